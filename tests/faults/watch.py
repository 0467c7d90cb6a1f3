"""Reads what the workers write, while they write it: committed records with the times of append and of arrival."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

_END_S = 60.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A record of an output topic. appended_s, arrived_s: wall clock, when the leader took it and when it was read."""

    partition: int
    offset: int
    value: bytes
    headers: list[tuple[str, bytes]]
    appended_s: float
    arrived_s: float


class Watch(threading.Thread):
    """Reads `topics` from their beginnings with read_committed, until `to_end` has come there."""

    def __init__(self, broker: str, topics: Sequence[str]) -> None:
        super().__init__(name="watch", daemon=True)
        self.found: dict[str, list[Seen]] = {topic: [] for topic in topics}
        self._broker = broker
        self._consumer = _reader(broker, "read_committed")
        self._assigned = _everything(self._consumer, topics)
        self._consumer.assign(self._assigned)
        self._closing = threading.Event()
        self._failed: list[BaseException] = []

    def run(self) -> None:
        try:
            while not self._closing.is_set():
                self._read()
            # The log's own ends: what a transaction left open hides from here is still to come, or void.
            with closing(_reader(self._broker, "read_uncommitted")) as other:
                ends = _ends(other, self._assigned)
            deadline = time.monotonic() + _END_S
            while not _there(self._consumer, ends):
                self._read()
                if time.monotonic() > deadline:
                    raise TimeoutError("the outputs could not be read to their end")
        except BaseException as error:
            self._failed.append(error)
        finally:
            self._consumer.close()

    def to_end(self) -> None:
        """Reads what is there by now, and closes."""
        self._closing.set()
        self.join(2 * _END_S)
        if self._failed:
            raise self._failed[0]

    def _read(self) -> None:
        for message in self._consumer.consume(2000, 0.1):
            error = message.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF or error.retriable() or error.code() < 0:
                    continue
                raise KafkaException(error)
            headers = [(name, value or b"") for name, value in message.headers() or ()]
            at = int(message.partition() or 0), int(message.offset() or 0)
            appended_s = message.timestamp()[1] / 1000
            seen = Seen(*at, message.value() or b"", headers, appended_s, time.time())
            self.found[str(message.topic())].append(seen)


def count_uncommitted(broker: str, topics: Sequence[str]) -> int:
    """Records of `topics`, those of aborted transactions among them."""
    consumer = _reader(broker, "read_uncommitted")
    try:
        assigned = _everything(consumer, topics)
        consumer.assign(assigned)
        ends = _ends(consumer, assigned)
        count, deadline = 0, time.monotonic() + _END_S
        while not _there(consumer, ends):
            count += sum(m.error() is None for m in consumer.consume(5000, 0.1))
            if time.monotonic() > deadline:
                raise TimeoutError("the outputs could not be counted")
        return count
    finally:
        consumer.close()


def _reader(broker: str, isolation: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": "fault-suite",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 50,
            "reconnect.backoff.max.ms": 1000,
            "log_level": 0,
        }
    )


def _everything(consumer: Consumer, topics: Sequence[str]) -> list[TopicPartition]:
    return [
        TopicPartition(topic, p, OFFSET_BEGINNING)
        for topic in topics
        for p in consumer.list_topics(topic, timeout=20).topics[topic].partitions
    ]


def _ends(consumer: Consumer, assigned: Sequence[TopicPartition]) -> dict[tuple[str, int], int]:
    ends = {}
    for p in assigned:
        low, high = consumer.get_watermark_offsets(TopicPartition(p.topic, p.partition), timeout=20)
        if high > low:
            ends[p.topic, p.partition] = high
    return ends


def _there(consumer: Consumer, ends: dict[tuple[str, int], int]) -> bool:
    at = consumer.position([TopicPartition(topic, p) for topic, p in ends]) if ends else []
    return all(p.offset >= ends[p.topic, p.partition] for p in at)
