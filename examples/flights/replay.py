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
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from examples.flights.data import DAY_MS, HOUR_MS, DataMissing, FlightEvent, Flights, month_start, parse_months
from examples.flights.hold_back import HoldBack, Positions
from examples.flights.sending import CLOSED, REQUESTS, SAMPLE, TOPICS, WATERMARK, Progress, Replay, ReplayError

__all__ = [
    "CLOSED",
    "SAMPLE",
    "TOPICS",
    "WATERMARK",
    "HoldBack",
    "Progress",
    "Replay",
    "ReplayError",
    "connect",
    "main",
    "pauses",
    "run",
]

REPORT_S = 0.25
PAUSE_S = 0.05
"""Between two looks, in a pause, whether it goes on; each brings a sign of life."""
TIMEOUT_S = 10.0


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
            target.watermark(pause_at, target.partitions)  # those without events, too, have come so far
            report(target.progress("paused", pause_at))
            while not go_on():
                target.sign_of_life(pause_at)  # a worker takes up a new model between two rounds
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
    parser.add_argument(
        "--pause-daily", type=_hour, metavar="HOUR", help="and before this hour of each day after the first"
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
            pauses=pauses(given.months, given.pause_before, given.pause_daily),
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


def pauses(months: tuple[int, int], before: Iterable[int], daily: int | None = None) -> list[int]:
    """When to wait, ms, rising: at the start of the months `before`, and daily at an hour of all days but the first."""
    found = {month_start(month) for month in before}
    if daily is not None:
        first, last = months
        found.update(range(month_start(first) + DAY_MS + daily * HOUR_MS, month_start(last + 1), DAY_MS))
    return sorted(found)


def _line_came() -> bool:
    """Waits a moment for a line on stdin."""
    if not select.select([sys.stdin], [], [], PAUSE_S)[0]:
        return False
    if not sys.stdin.readline():
        raise ReplayError("standard input closed while the replay was paused")
    return True


def _hour(text: str) -> int:
    if not text.isdigit() or int(text) > 23:
        raise argparse.ArgumentTypeError(f"{text!r}: hours go from 0 to 23")
    return int(text)


def _months(text: str) -> tuple[int, int]:
    try:
        return parse_months(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main())
