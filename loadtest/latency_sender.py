"""The open-loop sender: payments leave at their intended times, however the system behind them does.

Record i is due at start + i / rate. Whatever is due leaves every TICK_S, and nothing waits for an answer: a record
that leaves late, because this process was held up, keeps its intended time.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Sequence
from itertools import islice

import numpy as np
from confluent_kafka import Producer

from examples.payments.generate import Payments, Record
from loadtest.child import say

TICK_S = 0.002
FLUSH_S = 30.0


def due(elapsed_s: float, rate: float) -> int:
    """How many records have an intended time of at most `elapsed_s` after the start."""
    return int(elapsed_s * rate) + 1 if elapsed_s >= 0 else 0


class Sender:
    """Sends to `topic` of `broker`; `failed` counts what the broker did not take."""

    def __init__(self, broker: str, topic: str) -> None:
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
            }
        )
        self._producer.list_topics(topic, timeout=10)  # connected before the first record is due

    def send(self, records: Sequence[Record], rate: float, start_s: float) -> list[float]:
        """Sends all, the first at `start_s` (monotonic). Returns how late each tick's oldest record left, in s."""
        late: list[float] = []
        sent, produce, topic = 0, self._producer.produce, self._topic
        while sent < len(records):
            now_s = time.monotonic()
            until = min(len(records), due(now_s - start_s, rate))
            if until > sent:
                late.append(now_s - start_s - sent / rate)
                for key, value, time_ms in records[sent:until]:
                    produce(topic, value, key, timestamp=time_ms)
                sent = until
                self._producer.poll(0)
            time.sleep(max(0.0, now_s + TICK_S - time.monotonic()))
        self.failed += self._producer.flush(FLUSH_S)
        return late

    def _reported(self, error: object, _: object) -> None:
        self.failed += error is not None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--rate", type=float, required=True, help="records a second")
    parser.add_argument("--start-ms", type=int, required=True, help="event time of the stream's beginning")
    parser.add_argument("--skip", type=int, required=True, help="records of the stream that were sent already")
    parser.add_argument("--records", type=int, required=True, help="how many to send after those")
    given = parser.parse_args()
    stream = Payments(rate=given.rate, start_ms=given.start_ms).records(given.skip + given.records)
    records = list(islice(stream, given.skip, None))
    sender = Sender(given.broker, given.topic)
    gc.collect()
    gc.disable()  # its pauses would be ours, not the system's
    say(ready=True)
    start_s = float(sys.stdin.readline())
    cpu_s = time.process_time()
    late = sender.send(records, given.rate, start_s)
    share = (time.process_time() - cpu_s) / (time.monotonic() - start_s)
    say(
        sent=len(records) - sender.failed,
        late_p99_ms=float(np.percentile(late, 99)) * 1e3,
        late_max_ms=max(late) * 1e3,
        cores=share,
    )


if __name__ == "__main__":
    main()
