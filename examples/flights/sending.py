"""Events into the three topics of the flights, with watermarks among them."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable
from typing import Literal

import msgspec
from confluent_kafka import Producer

from examples.flights.data import FlightEvent
from examples.flights.events import ORIGINS
from examples.flights.hold_back import HoldBack, Positions

TOPICS = ("flights.requests", "flights.departures", "flights.arrivals")
REQUESTS = 0
WATERMARK = "weir-watermark"
CLOSED = 2**62  # ms; no event is later
WATERMARK_EVENTS = 200
SAMPLE = 50  # of this many requests one reports when it was sent

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


class Replay:
    """Sends events to TOPICS, all of `partitions` partitions, with watermarks among them.

    starts: the next offset of each partition of flights.requests; nobody else writes there meanwhile.
    """

    def __init__(
        self, producer: Producer, partitions: int, starts: Positions, hold_back: HoldBack | None = None
    ) -> None:
        self._producer = producer
        self.partitions = range(partitions)
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
            self.watermark(event.time, self.partitions)
        elif self._since_watermark >= WATERMARK_EVENTS:
            self.watermark(event.time)
        if event.stream == REQUESTS:
            self._request(event, partition)
        self._produce(event.stream, partition, event.time, event.origin.encode(), event.value)
        self.sent[event.stream] += 1
        self._since_watermark += 1
        self._last_ms = event.time

    def sign_of_life(self, time_ms: int) -> None:
        """Says once more that nothing is older than `time_ms`, not among the requests, whose offsets stay the same
        however often."""
        headers: Headers = [(WATERMARK, str(time_ms).encode())]
        for partition in sorted(set(self._partition_of.values())):
            self._produce(len(TOPICS) - 1, partition, time_ms, headers=headers)
        self._producer.poll(0)

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
        self.watermark(CLOSED, self.partitions)
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
