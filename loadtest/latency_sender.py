"""The open-loop sender: payments leave at their intended times, however the system behind them does.

Whatever is due leaves every TICK_S, and nothing waits for an answer: a record that leaves late, because this process
was held up, keeps its intended time.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
from confluent_kafka import Producer

from examples.payments.generate import Payments, Record
from loadtest.child import say
from loadtest.shapes import STEADY, Load
from loadtest.spans import sampled, traceparent
from streams.tracing import TRACEPARENT

TICK_S = 0.002
FLUSH_S = 30.0
CONNECT_S = 10.0
_AHEAD = 1000
"""Records that are encoded at once, where not all of them are before the start."""


@dataclass(frozen=True)
class Plan:
    """`warmup_s` seconds at `rate` records/s, then `seconds` of the load; `start_ms`: event time of the first record.

    The stream's first `skip` payments are left out: they were sent before.
    """

    rate: float
    warmup_s: float
    seconds: float
    start_ms: int
    skip: int = 0
    load: Load = STEADY

    @property
    def warmup(self) -> int:
        """How many records come before the measured ones."""
        return round(self.rate * self.warmup_s)

    @property
    def count(self) -> int:
        return len(self.intended_s)

    @cached_property
    def intended_s(self) -> np.ndarray:
        """float64 [count]: seconds from the start to each record's intended time."""
        warmup = np.arange(self.warmup) / self.rate
        return np.concatenate([warmup, self.warmup / self.rate + self.load.due_s(self.rate, self.seconds)])

    @cached_property
    def good(self) -> np.ndarray:
        """bool [count]: the records that can be scored."""
        return ~self.load.bad(self._payments, self.skip + self.count)[self.skip :]

    def records(self) -> Iterator[Record]:
        """In their order; each one's event time is the time it is due."""
        times_ms = self.start_ms + np.floor(self.intended_s * 1000).astype(np.int64)
        return self.load.records(self._payments, times_ms, self.skip)

    @property
    def _payments(self) -> Payments:
        return Payments(rate=self.rate, start_ms=self.start_ms)


class Sender:
    """Sends to `topic` of `broker`; `failed` counts what the broker did not take. config: more for librdkafka."""

    def __init__(self, broker: str, topic: str, **config: Any) -> None:
        self.failed = 0
        self._topic = topic
        self._producer = Producer(
            {
                "bootstrap.servers": broker,
                "linger.ms": 2,
                "acks": "all",
                "queue.buffering.max.messages": 5_000_000,
                "delivery.report.only.error": True,
                "on_delivery": self._reported,
                **config,
            }
        )
        self._producer.list_topics(topic, timeout=CONNECT_S)  # connected before the first record is due

    def send(
        self,
        records: Sequence[Record],
        intended_s: np.ndarray,
        start_s: float,
        traced: dict[int, bytes] | None = None,
    ) -> list[float]:
        """Sends records [n], each at `start_s` (monotonic) + its `intended_s`; traced: `traceparent` by place.

        Returns how late each tick's oldest record left, in s.
        """
        late: list[float] = []
        sent, produce, topic = 0, self._producer.produce, self._topic
        traced = traced or {}
        while sent < len(records):
            now_s = time.monotonic()
            until = int(np.searchsorted(intended_s, now_s - start_s, side="right"))
            if until > sent:
                late.append(now_s - start_s - float(intended_s[sent]))
                for place, (key, value, time_ms) in enumerate(records[sent:until], sent):
                    if place in traced:
                        produce(topic, value, key, timestamp=time_ms, headers=[(TRACEPARENT, traced[place])])
                    else:
                        produce(topic, value, key, timestamp=time_ms)
                sent = until
                self._producer.poll(0)
            time.sleep(max(0.0, now_s + TICK_S - time.monotonic()))
        return late

    def stream(self, records: Iterable[Record], intended_s: np.ndarray, start_s: float) -> Iterator[list[float]]:
        """As `send`, of records that are made as they are due: how late they left, a thousand at a time."""
        rest, sent = iter(records), 0
        while ahead := list(islice(rest, _AHEAD)):
            yield self.send(ahead, intended_s[sent : sent + len(ahead)], start_s)
            sent += len(ahead)

    def flush(self) -> None:
        """Waits until the broker has all, or FLUSH_S are over: the rest has failed."""
        self.failed += self._producer.flush(FLUSH_S)

    def _reported(self, error: object, _: object) -> None:
        self.failed += error is not None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--rate", type=float, required=True, help="records a second")
    parser.add_argument("--warmup-s", type=float, required=True, help="seconds at the rate before the load")
    parser.add_argument("--seconds", type=float, required=True, help="of the load")
    parser.add_argument("--load", type=Load.parse, required=True)
    parser.add_argument("--start-ms", type=int, required=True, help="event time of the stream's beginning")
    parser.add_argument("--skip", type=int, required=True, help="records of the stream that were sent already")
    given = parser.parse_args()
    plan = Plan(given.rate, given.warmup_s, given.seconds, given.start_ms, given.skip, given.load)
    records, intended_s = list(plan.records()), plan.intended_s
    traced = {place: traceparent(given.skip + place) for place in sampled(plan.count)}
    sender = Sender(given.broker, given.topic)
    gc.collect()
    gc.disable()  # its pauses would be ours, not the system's
    say(ready=True)
    start_s = float(sys.stdin.readline())
    cpu_s = time.process_time()
    late = sender.send(records, intended_s, start_s, traced)
    sender.flush()
    share = (time.process_time() - cpu_s) / (time.monotonic() - start_s)
    say(
        sent=len(records) - sender.failed,
        late_p99_ms=float(np.percentile(late, 99)) * 1e3,
        late_max_ms=max(late) * 1e3,
        cores=share,
    )


if __name__ == "__main__":
    main()
