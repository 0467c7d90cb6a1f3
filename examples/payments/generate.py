"""Synthetic payments: seeded, as many as wanted; the first n are the same however many follow.

    python -m examples.payments.generate --broker localhost:9092 --records 100000

writes them to the topic `payments`, keyed by user, with record timestamps = event times.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from confluent_kafka import Producer

BLOCK = 50_000


class Record(NamedTuple):
    """A record to produce: `time_ms` is its record timestamp, and as a rule its event time."""

    key: bytes
    value: bytes
    time_ms: int


class Columns(NamedTuple):
    """n payments before they are written, int64 [n] each but for `amounts`, float64 [n].

    numbers: of the payments in their stream; times: event times in ms; stamps: their records' timestamps in ms.
    """

    numbers: np.ndarray
    users: np.ndarray
    merchants: np.ndarray
    amounts: np.ndarray
    times: np.ndarray
    stamps: np.ndarray


@dataclass(frozen=True)
class Payments:
    """A stream of payments by `users` users at `rate` payments a second of event time, from `start_ms` on.

    Times never fall; user and merchant are drawn evenly, an amount log-normally, in whole cents. At the
    default rate a user pays every 500 s, so that the example's windows (1 h, 24 h) have something to hold.
    """

    users: int = 10_000
    merchants: int = 500
    rate: float = 20.0
    start_ms: int = 1_735_689_600_000  # 2025-01-01, UTC
    seed: int = 7

    def records(self, n: int) -> Iterator[Record]:
        """The first `n` payments, in event-time order."""
        return islice(self._endless(), n)

    def blocks(self) -> Iterator[Columns]:
        """The endless stream, `BLOCK` payments at a time."""
        block, start_ms = 0, float(self.start_ms)
        while True:
            times = start_ms + self._draw(block).exponential(1000 / self.rate, BLOCK).cumsum()
            yield self._columns(block, times.astype(np.int64))
            block, start_ms = block + 1, float(times[-1])

    def _endless(self) -> Iterator[Record]:
        for columns in self.blocks():
            yield from encode(columns)

    def _columns(self, block: int, times: np.ndarray) -> Columns:
        draw = self._draw(block, 1)
        users = draw.integers(0, self.users, BLOCK)
        merchants = draw.integers(0, self.merchants, BLOCK)
        amounts = np.maximum(draw.lognormal(3.2, 1.1, BLOCK), 0.01)
        return Columns(np.arange(block * BLOCK, (block + 1) * BLOCK), users, merchants, amounts, times, times)

    def _draw(self, block: int, part: int = 0) -> np.random.Generator:
        return np.random.default_rng([self.seed, block, part])


def encode(columns: Columns) -> Iterator[Record]:
    """The payments as records, in their order."""
    for number, user, merchant, amount, time_ms, stamp_ms in zip(*(c.tolist() for c in columns), strict=True):
        key = b"u%05d" % user
        value = b'{"payment_id":"p%08d","user_id":"%b","merchant":"m%03d","amount":%.2f,"ts":%d}' % (
            number,
            key,
            merchant,
            amount,
            time_ms,
        )
        yield Record(key, value, stamp_ms)


def produce(
    broker: str, topic: str, records: Iterator[Record], headers: Mapping[int, list[tuple[str, bytes]]] | None = None
) -> int:
    """Writes `records` to `topic` and waits until the broker has them all. Returns how many. headers: by place.

    Raises RuntimeError if the broker refused or lost one.
    """
    producer = Producer(
        {
            "bootstrap.servers": broker,
            "linger.ms": 50,
            "batch.num.messages": 20_000,
            "queue.buffering.max.messages": 500_000,
            "compression.type": "none",
            "acks": "all",
        }
    )
    failed: list[str] = []

    def report(error: object, _: object) -> None:
        if error is not None:
            failed.append(str(error))

    sent, headers = 0, headers or {}
    for record in records:
        own: Any = headers.get(sent)
        producer.produce(topic, record.value, record.key, on_delivery=report, timestamp=record.time_ms, headers=own)
        sent += 1
        if sent % 10_000 == 0:
            producer.poll(0)
            while len(producer) > 400_000:
                producer.poll(0.05)
    producer.flush()
    if failed:
        raise RuntimeError(f"topic {topic}: {len(failed)} of {sent} records were not delivered: {failed[0]}")
    return sent


def main() -> None:
    parser = argparse.ArgumentParser(description="Write synthetic payments to a topic.")
    parser.add_argument("--broker", default="localhost:9092")
    parser.add_argument("--topic", default="payments")
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=Payments.users)
    parser.add_argument("--rate", type=float, default=Payments.rate, help="payments a second of event time")
    parser.add_argument("--start-ms", type=int, default=Payments.start_ms)
    parser.add_argument("--seed", type=int, default=Payments.seed)
    given = parser.parse_args()
    payments = Payments(users=given.users, rate=given.rate, start_ms=given.start_ms, seed=given.seed)
    sent = produce(given.broker, given.topic, payments.records(given.records))
    print(f"{sent} payments written to {given.topic}")


if __name__ == "__main__":
    main()
