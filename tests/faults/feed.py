"""What is sent, and what must come of it: computed beforehand, in one thread, twice over."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice

import numpy as np
from confluent_kafka import KafkaError, Message, Producer

from features.engine import FeatureEngine
from features.memory_store import MemoryStore
from features.spec import FeatureSpec
from features.store import Meta
from streams.pipeline import Pipeline
from tests.faults.pipelines import PIPELINES, Kind
from tests.faults.pipelines import records as records_of
from tests.features.rounds import cut, round_of
from tests.integration.tape import Place, Record
from tests.oracles.features import Event, features_of

_ROUND = 997
_DRIP = 8
_TOLERANCE = 1e-9
_MAKING = threading.Lock()


class Feed:
    """Records in the order of sending, with the features that each scored one must have.

    rows: by place, the row of `matrix` (float32 [n, d], NaN = missing). dead: places of the records that must come
    out as dead letters. The engine, over all events in their order, must say what the brute-force loop says within
    1e-9; what the workers say is compared with the engine bit by bit.
    """

    def __init__(self, kind: Kind, records: Sequence[Record]) -> None:
        self.kind, self.records = kind, records
        pipeline = PIPELINES[kind]("feed")
        self.dead: set[tuple[int, int, int]] = set()
        self.counts: Counter[tuple[int, int]] = Counter()
        sent: dict[int, list[tuple[int, Record]]] = defaultdict(list)
        for record in records:
            at = record.stream, record.partition
            offset = self.counts[at]
            self.counts[at] += 1
            if not record.usable:
                self.dead.add((*at, offset))
            elif record.value is not None:
                sent[record.partition].append((offset, record))
        self.rows: dict[Place, int] = {}
        matrices = []
        for partition in sorted(sent):  # each for itself: a million events at once would not be small
            events = _arrived(pipeline, sent.pop(partition))
            for event in events:
                if event.stream == 0:
                    self.rows[partition, event.offset] = len(self.rows)
            matrices.append(asyncio.run(_replay(pipeline.spec, partition, events)))
        self.matrix = np.concatenate(matrices)

    def __len__(self) -> int:
        """Records that must be predicted."""
        return len(self.rows)


def feed(kind: Kind, n: int) -> Feed:
    """The feed of `n` events; the same one for every scenario."""
    with _MAKING:
        return _feed(kind, n)


@lru_cache(maxsize=4)
def _feed(kind: Kind, n: int) -> Feed:
    return Feed(kind, records_of(kind, n))


def _arrived(pipeline: Pipeline, sent: Sequence[tuple[int, Record]]) -> list[Event]:
    """The events of one partition's usable records (offset, record), in the order in which a worker merges them."""
    times = [source.time for source in pipeline.sources]
    turns = [0] * len(times)
    events = []
    for offset, record in sent:
        fields = json.loads(record.value or b"")
        event = Event(record.stream, fields[times[record.stream]], offset, record.partition, fields)
        turns[event.stream] = max(turns[event.stream], event.time)
        events.append((turns[event.stream], event))
    return [event for _, event in sorted(events, key=lambda e: (e[0], e[1].stream, e[1].offset))]


async def _replay(spec: FeatureSpec, partition: int, events: list[Event]) -> np.ndarray:
    """The engine's features of the scored events of a partition, compared with the loop's."""
    engine = FeatureEngine(spec, MemoryStore())
    engine.own(partition, Meta(1, 1, spec.state_hash, (0,) * len(spec.streams)), empty=True)
    names = [aggregate.name for aggregate in spec.aggregates]
    wanted = features_of(spec, events)
    found = []
    for piece in cut(events, [_ROUND]):
        columns = round_of(spec, piece)
        await engine.load(columns)
        features = engine.process(columns)
        found.append(features.matrix)
        exact = [[f[name] for name in names] for f in islice(wanted, len(features.matrix))]
        np.testing.assert_allclose(
            features.aggregates,
            np.array(exact, dtype=np.float64).reshape(len(exact), len(names)),
            rtol=_TOLERANCE,
            atol=0,
            err_msg="engine and loop",
        )
    return np.concatenate(found)


_TICK_S = 0.04
"""What is due within it is sent at once: a client that is polled every millisecond takes half a core."""


class Load(threading.Thread):
    """Sends a feed at `per_s` records a second; the last quarter only drips until `hurry`.

    sent_s: by stream and partition, the wall-clock time at which each record was sent. drips_s: since when it drips.
    """

    def __init__(self, feed: Feed, broker: str, topics: Sequence[str], per_s: float) -> None:
        super().__init__(name="load", daemon=True)
        self.failed: list[str] = []
        self.sent_s: dict[tuple[int, int], list[float]] = defaultdict(list)
        self.drips_s = float("inf")
        self._feed, self._topics, self._per_s = feed, list(topics), per_s
        self._hurry, self._halt = threading.Event(), threading.Event()
        self._acked: Counter[tuple[str, int]] = Counter()
        self._producer = Producer(
            {
                "bootstrap.servers": broker,
                "enable.idempotence": True,
                "message.timeout.ms": 0,
                "linger.ms": 40,  # a record at a time, brokers and workers would be busy with nothing else
                "compression.type": "lz4",
                "message.max.bytes": 20_000_000,
                "reconnect.backoff.max.ms": 1000,
                "log_level": 0,
                "on_delivery": self._on_delivery,
            }
        )

    @property
    def going(self) -> bool:
        return self.is_alive()

    def hurry(self) -> None:
        """The rest at once."""
        self._hurry.set()

    def halt(self) -> None:
        """Sends no more."""
        self._halt.set()
        self._hurry.set()
        if self.is_alive():
            self.join(10)

    def finish(self, within_s: float) -> None:
        """Waits until the brokers have everything."""
        self.join(within_s)
        assert not self.is_alive(), f"the load was not delivered in {within_s:.0f} s"
        assert not self.failed, self.failed[0]

    def run(self) -> None:
        records, drip = self._feed.records, len(self._feed.records) * 3 // 4
        due = time.monotonic()
        for i, (stream, partition, key, value, timestamp, headers, _) in enumerate(records):
            while not self._hurry.is_set() and (wait := due - time.monotonic()) > 0:
                self._producer.poll(min(max(wait, _TICK_S), 0.1))
            due += (1 if i < drip else _DRIP) / self._per_s
            if self._halt.is_set():
                return
            if i == drip:
                self.drips_s = time.time()
            self._produce(self._topics[stream], value, key, partition, timestamp, headers)
            self.sent_s[stream, partition].append(time.time())
        while len(self._producer) and not self._halt.is_set():
            self._producer.poll(0.1)

    def _produce(
        self, topic: str, value: bytes | None, key: bytes | None, p: int, timestamp: int, headers: object
    ) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, p, timestamp=timestamp, headers=headers)
            except BufferError:
                self._producer.poll(0.1)
            else:
                self._producer.poll(0)
                return

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        at = str(message.topic()), int(message.partition() or 0)
        if error is not None:
            self.failed.append(f"the load lost a record of its own: {error.str()}")
        elif message.offset() != self._acked[at]:
            self.failed.append(f"the load's record {self._acked[at]} of {at} has offset {message.offset()}")
        self._acked[at] += 1
