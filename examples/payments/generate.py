"""Synthetic payments: seeded, as many as wanted; the first n are the same however many follow.

    python -m examples.payments.generate --broker localhost:9092 --records 100000

writes them to the topic `payments`, keyed by user, with record timestamps = event times.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
from confluent_kafka import Producer

BLOCK = 50_000


class Record(NamedTuple):
    """A record to produce: `time_ms` is its event time and its record timestamp."""

    key: bytes
    value: bytes
    time_ms: int


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

    def _endless(self) -> Iterator[Record]:
        block, start_ms = 0, float(self.start_ms)
        while True:
            times = start_ms + self._draw(block).exponential(1000 / self.rate, BLOCK).cumsum()
            yield from self._encode(block, times.astype(np.int64))
            block, start_ms = block + 1, float(times[-1])

    def _encode(self, block: int, times: np.ndarray) -> Iterator[Record]:
        draw = self._draw(block, 1)
        users = draw.integers(0, self.users, BLOCK).tolist()
        merchants = draw.integers(0, self.merchants, BLOCK).tolist()
        amounts = np.maximum(draw.lognormal(3.2, 1.1, BLOCK), 0.01).tolist()
        first = block * BLOCK
        for i, (user, merchant, amount, time_ms) in enumerate(
            zip(users, merchants, amounts, times.tolist(), strict=True), first
        ):
            key = b"u%05d" % user
            value = b'{"payment_id":"p%08d","user_id":"%b","merchant":"m%03d","amount":%.2f,"ts":%d}' % (
                i,
                key,
                merchant,
                amount,
                time_ms,
            )
            yield Record(key, value, time_ms)

    def _draw(self, block: int, part: int = 0) -> np.random.Generator:
        return np.random.default_rng([self.seed, block, part])


def produce(broker: str, topic: str, records: Iterator[Record]) -> int:
    """Writes `records` to `topic` and waits until the broker has them all. Returns how many.

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

    sent = 0
    for record in records:
        producer.produce(topic, record.value, record.key, on_delivery=report, timestamp=record.time_ms)
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
