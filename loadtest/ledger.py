"""Reads predictions as whoever uses them does: committed ones alone, each source offset once, and how late."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.errors import WeirError

LATEST_MS = 60_000
"""Latencies above count as this."""

_BATCH = 5000
_POLL_S = 0.05
_REQUEST_S = 20.0
_PLACE = re.compile(rb'"time":(\d+),"source":\{"topic":"[^"]*","partition":\d+,"offset":(\d+)\}')


class Offsets:
    """Which of one partition's source offsets have come: of 0 … n, in constant memory where they come in order."""

    def __init__(self) -> None:
        self.next = 0
        self.skipped: set[int] = set()
        self.duplicated = 0

    def strike(self, offset: int) -> None:
        if offset == self.next:
            self.next += 1
        elif offset > self.next:
            self.skipped.update(range(self.next, offset))
            self.next = offset + 1
        elif offset in self.skipped:
            self.skipped.discard(offset)
        else:
            self.duplicated += 1

    def lost(self, end: int) -> int:
        """How many of 0 … `end` - 1 have not come."""
        return len(self.skipped) + max(0, end - self.next)


class Ledger(threading.Thread):
    """Follows a predictions topic from its beginning to `finish`; from its end, and for latencies alone, where it is
    made with `latencies_only`.

    A prediction's latency is its arrival here less its event time, where that is the time of its sending. Latencies are
    kept by slot (`slot_s` long, counted from `origin_s`, wall clock) and whole ms. Whoever asks while the topic cannot
    be read is told so by a WeirError.
    """

    def __init__(self, broker: str, topic: str, slot_s: float, *, latencies_only: bool = False) -> None:
        super().__init__(name="ledger", daemon=True)
        self._strikes = not latencies_only
        self.offsets: defaultdict[int, Offsets] = defaultdict(Offsets)
        self._seen = 0
        self.origin_s, self._slot_s = time.time(), slot_s
        self._latencies: defaultdict[int, Counter[int]] = defaultdict(Counter)
        self._first: dict[int, float] = {}
        self._lock, self._halt = threading.Lock(), threading.Event()
        self._failed: list[BaseException] = []
        self._consumer = Consumer(
            {
                "bootstrap.servers": broker,
                "group.id": "ledger",  # never joined
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 10,
                "fetch.queue.backoff.ms": 20,
                "log_level": 0,
            }
        )
        found = self._consumer.list_topics(topic, timeout=_REQUEST_S).topics[topic].partitions
        self.partitions = sorted(found)
        start = OFFSET_END if latencies_only else OFFSET_BEGINNING
        self._consumer.assign([TopicPartition(topic, p, start) for p in found])

    @property
    def seen(self) -> int:
        """Predictions so far."""
        self._check()
        return self._seen

    def slot(self, time_s: float) -> int:
        """The slot of a wall-clock time."""
        return int((time_s - self.origin_s) // self._slot_s)

    def latencies(self, since: int = 0) -> dict[int, Counter[int]]:
        """From slot `since` on."""
        self._check()
        with self._lock:
            return {slot: Counter(found) for slot, found in self._latencies.items() if slot >= since}

    def mark(self) -> None:
        """From now on `first` is told anew."""
        with self._lock:
            self._first = {}

    def first(self) -> dict[int, float]:
        """By partition, when the first prediction since `mark` came, wall clock."""
        self._check()
        with self._lock:
            return dict(self._first)

    def restart_clock(self) -> None:
        """Slots are counted from now; what was timed before is forgotten."""
        with self._lock:
            self._latencies.clear()
            self.origin_s = time.time()

    def finish(self, ends: Mapping[int, int], within_s: float) -> tuple[int, int]:
        """Waits for every source offset below `ends`, by partition, and closes. Returns how many are lost, and how
        many came more than once.
        """
        deadline = time.monotonic() + within_s
        while self._lost(ends) and time.monotonic() < deadline and not self._failed:
            time.sleep(0.1)
        time.sleep(10 * _POLL_S)  # a duplicate may come behind the last one
        self.close()
        self._check()
        return self._lost(ends), sum(found.duplicated for found in self.offsets.values())

    def close(self) -> None:
        self._halt.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        try:
            while not self._halt.is_set():
                first = self._consumer.poll(_POLL_S)
                if first is not None:  # `consume` alone would wait until its batch is full
                    self._note([first, *self._consumer.consume(_BATCH - 1, 0)], time.time())
        except BaseException as error:
            self._failed.append(error)
        finally:
            self._consumer.close()

    def _note(self, messages: list[Message], now_s: float) -> None:
        with self._lock:
            slot, now_ms = self._latencies[self.slot(now_s)], int(now_s * 1000)
            for message in messages:
                error = message.error()
                if error is not None:
                    if error.retriable() or error.code() == KafkaError._TRANSPORT:
                        continue
                    raise KafkaException(error)
                found = _PLACE.search(message.value() or b"")
                if found is None:
                    raise WeirError(f"not a prediction: {message.value()!r}")
                partition = message.partition() or 0
                self._first.setdefault(partition, now_s)
                if self._strikes:
                    self.offsets[partition].strike(int(found[2]))
                slot[min(max(0, now_ms - int(found[1])), LATEST_MS)] += 1
            self._seen += len(messages)

    def _check(self) -> None:
        if self._failed:
            raise WeirError(f"the predictions could not be read: {self._failed[0]}")

    def _lost(self, ends: Mapping[int, int]) -> int:
        return sum(self.offsets[p].lost(end) for p, end in ends.items())


def percentile(latencies: Counter[int], share: float) -> int:
    """The latency in ms that `share` of the predictions do not exceed; 0 of none."""
    left = share * latencies.total()
    for ms in sorted(latencies):
        left -= latencies[ms]
        if left <= 0:
            return ms
    return 0
