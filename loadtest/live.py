"""Payments as they happen: each is sent when its event time comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from examples.payments.generate import Payments, Record
from loadtest.shapes import Load
from streams.errors import WeirError

_PAUSE_S = 0.002
_FLUSH_S = 60.0
_REQUEST_S = 20.0


class Live(threading.Thread):
    """Sends payments of `users` users at `per_s` a second from its start until `halt`.

    Event times are wall-clock times of when a payment is due, whether or not it could be sent in time. load: over
    `period_s`, again and again; None = payments at random, evenly.
    """

    def __init__(
        self, broker: str, topic: str, users: int, per_s: float, load: Load | None = None, period_s: float = 0.0
    ) -> None:
        super().__init__(name="live", daemon=True)
        self.sent = 0
        self._load, self._period_s = load, period_s
        self._topic, self._users, self._per_s = topic, users, per_s
        self._failed: list[str] = []
        self._halt = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": broker,
                "enable.idempotence": True,
                "linger.ms": 5,
                "compression.type": "lz4",
                "queue.buffering.max.messages": 1_000_000,
                "delivery.report.only.error": True,
                "on_delivery": self._on_delivery,
                "log_level": 0,
            }
        )

    def halt(self) -> None:
        """Sends no more; returns when the broker has all. Raises WeirError where it lost one."""
        self._halt.set()
        if self.is_alive():
            self.join()
        if self._failed:
            raise WeirError(f"{len(self._failed)} payments were not delivered: {self._failed[0]}")

    def run(self) -> None:
        payments = Payments(users=self._users, rate=self._per_s, start_ms=time.time_ns() // 1_000_000)
        try:
            for record in self._shaped(payments, self._load) if self._load else payments.records(2**62):
                while (wait_s := record.time_ms / 1000 - time.time()) > 0:
                    self._producer.poll(min(wait_s, _PAUSE_S))
                if self._halt.is_set():
                    break
                self._send(record)
            if left := self._producer.flush(_FLUSH_S):
                self._failed.append(f"{left} are still queued")
        except BaseException as error:
            self._failed.append(repr(error))

    def _shaped(self, payments: Payments, load: Load) -> Iterator[Record]:
        """The load's periods, one after the other; the payments of each have their own numbers."""
        due_ms, sent, start_ms = load.due_s(self._per_s, self._period_s) * 1000, 0, float(payments.start_ms)
        while True:
            yield from load.records(payments, np.floor(start_ms + due_ms).astype(np.int64), sent)
            sent, start_ms = sent + len(due_ms), start_ms + self._period_s * 1000

    def _send(self, record: Record) -> None:
        while True:
            try:
                self._producer.produce(self._topic, record.value, record.key, timestamp=record.time_ms)
            except BufferError:
                self._producer.poll(0.1)
            else:
                self.sent += 1
                return

    def _on_delivery(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failed.append(error.str())


def history(users: int, each: int, until_ms: int, span_ms: int = 24 * 3_600_000) -> Iterator[Record]:
    """`each` payments of every user, in a new order each time, evenly over the `span_ms` before `until_ms`."""
    draw, n = np.random.default_rng(7), users * each
    for turn in range(each):
        amounts = np.maximum(draw.lognormal(3.2, 1.1, users), 0.01).tolist()
        for i, (user, amount) in enumerate(zip(draw.permutation(users).tolist(), amounts, strict=True), turn * users):
            key, time_ms = b"u%05d" % user, until_ms - span_ms + span_ms * i // n
            value = b'{"payment_id":"h%08d","user_id":"%b","merchant":"m%03d","amount":%.2f,"ts":%d}'
            yield Record(key, value % (i, key, user % 500, amount, time_ms), time_ms)


def ends(broker: str, topic: str) -> dict[int, int]:
    """By partition, how many records were ever written to a topic without transactions."""
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "ends", "log_level": 0})
    try:
        partitions = consumer.list_topics(topic, timeout=_REQUEST_S).topics[topic].partitions
        return {
            p: int(consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=_REQUEST_S)[1])
            for p in partitions
        }
    finally:
        consumer.close()
