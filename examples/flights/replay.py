"""Replays the flights of 2013 into Kafka: three topics keyed by origin, in event-time order.

    python -m examples.flights.replay --broker localhost:9092 --months 1-12 --speed 20000

Record timestamps are event times, and watermark records (no value, header `weir-watermark`) tell on every
partition how far the replay has come, so that a pipeline merges the streams in the same order in each run.
Topics that are missing are created without an end to their retention: records of 2013 would not outlive an
ordinary one. Progress is written as lines of JSON.

An embedded broker makes topics by itself and keeps only about 5 MB a partition, so there the replay must not
run ahead of whoever reads last: `--hold-back GROUP` waits for the offsets that this group commits on
flights.requests.
"""

from __future__ import annotations

import argparse
import select
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from examples.flights.data import DataMissing, FlightEvent, Flights, month_start, parse_months
from examples.flights.events import ORIGINS

TOPICS = ("flights.requests", "flights.departures", "flights.arrivals")
REQUESTS = 0
WATERMARK = "weir-watermark"
CLOSED = 2**62  # ms; no event is later
WATERMARK_EVENTS = 200
REPORT_S = 0.25
PAUSE_S = 0.2
TIMEOUT_S = 10.0
SAMPLE = 50  # of this many requests one reports when it was sent

Positions = dict[int, int]
Headers = list[tuple[str, str | bytes | None]]
State = Literal["running", "paused", "done"]


class ReplayError(Exception):
    """The replay cannot go on; the message says why."""


class Progress(msgspec.Struct):
    """A line of the replay's output, about what was sent so far.

    state: paused goes on with a line on stdin. time: event time reached, ms. sent: events by stream.
    samples: since the last line, [partition, offset, seconds since 1970] of every SAMPLE-th request.
    held_s: how long it was held back.
    """

    state: State
    time: int
    sent: list[int]
    samples: list[tuple[int, int, float]]
    held_s: float


@dataclass
class HoldBack:
    """Bounds the requests, per partition, that the last consumer has not dealt with: in records and in bytes.

    committed: asks for that consumer's offsets on flights.requests, by partition.
    """

    committed: Callable[[], Positions]
    max_records: int = 1500
    max_bytes: int = 800_000  # of requests; a prediction is about five times as large
    _ahead: dict[int, deque[tuple[int, int]]] = field(default_factory=dict)
    _bytes: dict[int, int] = field(default_factory=dict)

    def sent(self, partition: int, offset: int, size: int) -> None:
        """A request was sent."""
        self._ahead.setdefault(partition, deque()).append((offset, size))
        self._bytes[partition] = self._bytes.get(partition, 0) + size

    def full(self, partition: int, share: float = 1.0) -> bool:
        """Whether as much as `share` of what may be ahead in the partition is ahead."""
        records, size = len(self._ahead.get(partition, ())), self._bytes.get(partition, 0)
        return records >= self.max_records * share or size >= self.max_bytes * share

    def wait(self, partition: int, pause: Callable[[float], object]) -> None:
        """Blocks while the partition is more than half full; `pause` takes the seconds to sleep."""
        while True:
            for found, offset in self.committed().items():
                self._forget(found, offset)
            if not self.full(partition, 0.5):
                return
            pause(0.005)

    def _forget(self, partition: int, committed: int) -> None:
        ahead = self._ahead.get(partition)
        while ahead and ahead[0][0] < committed:
            self._bytes[partition] -= ahead.popleft()[1]


class Replay:
    """Sends events to TOPICS, all of `partitions` partitions, with watermarks among them.

    starts: the next offset of each partition of flights.requests; nobody else writes there meanwhile.
    """

    def __init__(
        self, producer: Producer, partitions: int, starts: Positions, hold_back: HoldBack | None = None
    ) -> None:
        self._producer = producer
        self._partitions = range(partitions)
        self._partition_of = {o: zlib.crc32(o.encode()) % partitions for o in ORIGINS}
        self._next_request = dict(starts)
        self._hold_back = hold_back
        self._last_ms = 0
        self._since_watermark = 0
        self._samples: list[tuple[int, int, float]] = []
        self._held_s = 0.0
        self.sent = [0, 0, 0]

    def send(self, event: FlightEvent) -> None:
        """Sends the next event; waits first if it is held back."""
        partition = self._partition_of[event.origin]
        if not self._last_ms:
            self.watermark(event.time, self._partitions)
        elif self._since_watermark >= WATERMARK_EVENTS:
            self.watermark(event.time)
        if event.stream == REQUESTS:
            self._request(event, partition)
        self._produce(event.stream, partition, event.time, event.origin.encode(), event.value)
        self.sent[event.stream] += 1
        self._since_watermark += 1
        self._last_ms = event.time

    def watermark(self, time_ms: int, partitions: Iterable[int] | None = None) -> None:
        """Promises, on `partitions` (default: those in use), that no later record is older than `time_ms`."""
        self._since_watermark = 0
        headers: Headers = [(WATERMARK, str(time_ms).encode())]
        timestamp = self._last_ms if time_ms == CLOSED else time_ms
        for partition in sorted(set(self._partition_of.values())) if partitions is None else partitions:
            for stream in range(len(TOPICS)):
                self._produce(stream, partition, timestamp, headers=headers)
            self._next_request[partition] += 1
        self._producer.poll(0)

    def wait(self, seconds: float, next_ms: int) -> None:
        """Lets `seconds` pass; who merges the streams need not wait for them too."""
        if self._since_watermark:
            self.watermark(next_ms)
        self._producer.poll(seconds)

    def close(self) -> None:
        """Says on all partitions that nothing more comes, and waits until the broker has everything."""
        self.watermark(CLOSED, self._partitions)
        left = self._producer.flush(60)
        if left:
            raise ReplayError(f"{left} records could not be delivered within a minute")

    def progress(self, state: State, time_ms: int) -> Progress:
        """What was sent so far; each sample is reported once."""
        samples, self._samples = self._samples, []
        return Progress(state, time_ms, list(self.sent), samples, round(self._held_s, 3))

    def _request(self, event: FlightEvent, partition: int) -> None:
        if self._hold_back is not None and self._hold_back.full(partition):
            self.wait(0, event.time)  # without a watermark, what is ahead might never be dealt with
            started = time.monotonic()
            self._hold_back.wait(partition, self._producer.poll)
            self._held_s += time.monotonic() - started
        offset = self._next_request[partition]
        self._next_request[partition] = offset + 1
        if self._hold_back is not None:
            self._hold_back.sent(partition, offset, len(event.value))
        if offset % SAMPLE == 0:
            self._samples.append((partition, offset, time.time()))

    def _produce(
        self,
        stream: int,
        partition: int,
        timestamp: int,
        key: bytes | None = None,
        value: bytes | None = None,
        headers: Headers | None = None,
    ) -> None:
        while True:
            try:
                self._producer.produce(TOPICS[stream], value, key, partition, timestamp=timestamp, headers=headers)
                return
            except BufferError:
                self._producer.poll(0.05)


def run(
    events: Iterable[FlightEvent],
    target: Replay,
    *,
    speed: float | None = None,
    pauses: Sequence[int] = (),
    report: Callable[[Progress], object],
    go_on: Callable[[], bool] = lambda: True,
) -> None:
    """Sends all events, `speed` times as fast as they happened (None = as fast as it goes).

    Before the first event at or after each of `pauses` (ms, rising) it waits until `go_on` says so.
    """
    start: tuple[float, int] | None = None
    reported = time.monotonic()
    ahead = deque(pauses)
    time_ms = 0
    for event in events:
        time_ms = event.time
        if ahead and time_ms >= ahead[0]:
            pause_at = ahead.popleft()
            target.watermark(pause_at)
            report(target.progress("paused", pause_at))
            while not go_on():
                target.watermark(pause_at)  # a sign of life: a worker takes up a new model between two rounds
            start = None
        now = time.monotonic()
        if speed is not None:
            start = start or (now, time_ms)
            due = start[0] + (time_ms - start[1]) / 1000 / speed
            if due > now + 0.005:
                target.wait(due - now, time_ms)
        target.send(event)
        if now > reported + REPORT_S:
            reported = now
            report(target.progress("running", time_ms))
    target.close()
    report(target.progress("done", time_ms))


def connect(
    broker: str, partitions: int, replication: int, hold_back: str | None, on_failure: Callable[[str], None]
) -> Replay:
    """A Replay into `broker`, its topics created where they are missing. hold_back: a consumer group."""
    admin = AdminClient({"bootstrap.servers": broker})
    if hold_back is None:
        _create_topics(admin, broker, partitions, replication)
    partitions = _partition_count(admin, broker)
    config = {
        "bootstrap.servers": broker,
        "group.id": hold_back or "flights-replay",
        "enable.auto.commit": False,
    }
    consumer = Consumer(config)
    requests = [TopicPartition(TOPICS[REQUESTS], p) for p in range(partitions)]
    starts = {p.partition: _end(consumer, p) for p in requests}

    def committed() -> Positions:
        return {p.partition: p.offset for p in consumer.committed(requests, timeout=TIMEOUT_S)}

    def delivered(error: KafkaError | None, _: object) -> None:
        if error is not None:
            on_failure(str(error))

    producer = Producer(
        {
            "bootstrap.servers": broker,
            "enable.idempotence": True,
            "linger.ms": 5,
            "on_delivery": delivered,
            "delivery.report.only.error": True,
        }
    )
    return Replay(producer, partitions, starts, HoldBack(committed) if hold_back else None)


def _end(consumer: Consumer, partition: TopicPartition) -> int:
    """The next offset of a partition, whose leader may not be known yet if its topic is new."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return int(consumer.get_watermark_offsets(partition, timeout=TIMEOUT_S)[1])
        except KafkaException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _create_topics(admin: AdminClient, broker: str, partitions: int, replication: int) -> None:
    """Creates the topics that are missing, without an end to their retention."""
    config = {"retention.ms": "-1"}
    topics = [NewTopic(t, partitions, replication, config=config) for t in TOPICS]
    for topic, future in admin.create_topics(topics, operation_timeout=TIMEOUT_S).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise ReplayError(f"topic {topic} cannot be created at {broker}: {error.args[0].str()}") from None


def _partition_count(admin: AdminClient, broker: str) -> int:
    """How many partitions the topics have. Asking makes the embedded broker create a topic."""
    try:
        counts = {t: len(admin.list_topics(t, timeout=TIMEOUT_S).topics[t].partitions) for t in TOPICS}
    except KafkaException as error:
        raise ReplayError(f"no broker answers at {broker}: {error.args[0].str()}") from None
    if len(set(counts.values())) != 1 or not all(counts.values()):
        raise ReplayError(f"the three topics need the same number of partitions, they have {counts}")
    return counts[TOPICS[REQUESTS]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m examples.flights.replay", description="Replay the flights of 2013 into Kafka."
    )
    parser.add_argument("--broker", default="localhost:9092", help="host:port,… (default %(default)s)")
    parser.add_argument("--months", type=_months, default=(1, 12), metavar="1-12", help="of 2013")
    parser.add_argument("--speed", type=float, metavar="N", help="N times real time (default: as fast as it goes)")
    parser.add_argument(
        "--pause-before",
        type=int,
        action="append",
        default=[],
        metavar="MONTH",
        help="wait there for a line on stdin; may be given several times",
    )
    parser.add_argument("--hold-back", metavar="GROUP", help="stay close to what this group has committed")
    parser.add_argument("--partitions", type=int, default=4, help="of topics to create (default %(default)s)")
    parser.add_argument("--replication", type=int, default=1, help="of topics to create (default %(default)s)")
    given = parser.parse_args(arguments)
    failures: list[str] = []
    try:
        flights = Flights(*given.months)
        target = connect(given.broker, given.partitions, given.replication, given.hold_back, failures.append)
        run(
            flights.events(),
            target,
            speed=given.speed,
            pauses=[month_start(month) for month in sorted(given.pause_before)],
            report=lambda progress: print(msgspec.json.encode(progress).decode(), flush=True),
            go_on=_line_came,
        )
    except (DataMissing, ReplayError) as error:
        failures.append(str(error))
    except KafkaException as error:
        failures.append(error.args[0].str())
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read the progress is gone
        return 1
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        print(f"replay: {failures[0]}{more}", file=sys.stderr)
    return 1 if failures else 0


def _line_came() -> bool:
    """Waits a moment for a line on stdin."""
    if not select.select([sys.stdin], [], [], PAUSE_S)[0]:
        return False
    if not sys.stdin.readline():
        raise ReplayError("standard input closed while the replay was paused")
    return True


def _months(text: str) -> tuple[int, int]:
    try:
        return parse_months(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
