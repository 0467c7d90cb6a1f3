"""What a test sends, made beforehand: every record with its place, so that the oracle knows what Kafka will hold."""

from __future__ import annotations

import json
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from confluent_kafka import Producer

from examples.flights import replay
from examples.flights.data import DAY_MS, Flights
from examples.payments.generate import Payments
from features.spec import Computed, FeatureSpec
from streams.loading import load_pipeline
from streams.pipeline import Pipeline
from tests.oracles.features import Event, features_of

PARTITIONS = 4
EXAMPLES = Path(__file__).parents[2] / "examples"

Place = tuple[int, int]
"""Partition and offset."""


class Record(NamedTuple):
    """A record to send. stream: index of the pipeline's sources; usable: False where a dead letter must come of it."""

    stream: int
    partition: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Any = None
    usable: bool = True


class Tape:
    """Records of one pipeline in the order of sending; `path`: the pipeline's file. expected: if known already."""

    def __init__(
        self, path: Path, records: Sequence[Record], expected: dict[Place, dict[str, Any]] | None = None
    ) -> None:
        self.path = path
        self.records = records
        self.pipeline: Pipeline = load_pipeline(str(path))
        self.topics = [source.topic for source in self.pipeline.sources]
        self.expected = self._expected(self.pipeline.spec) if expected is None else expected

    def __len__(self) -> int:
        return len(self.expected)

    def send(
        self, broker: str, start: int = 0, stop: int | None = None, *, per_s: float | None = None
    ) -> None:
        """Sends records[start:stop], at `per_s` records a second if given, and waits for their delivery."""
        failed: list[str] = []

        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                failed.append(str(error))

        producer = Producer(
            {
                "bootstrap.servers": broker,
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 5,
                "message.max.bytes": 20_000_000,
                "queue.buffering.max.messages": 0,
                "message.timeout.ms": 60_000,
                "on_delivery": delivered,
            }
        )
        began = time.monotonic()
        for i, record in enumerate(self.records[start:stop]):
            if per_s is not None and (due := began + i / per_s) > time.monotonic() + 0.01:
                producer.poll(due - time.monotonic())
            stream, partition, key, value, timestamp, headers, _ = record
            producer.produce(self.topics[stream], value, key, partition, timestamp=timestamp, headers=headers)
            producer.poll(0)
        assert producer.flush(60) == 0
        assert not failed, failed[0]

    def arrivals(self) -> list[list[Event]]:
        """The usable records of each partition as events, in the order in which a worker takes them."""
        by_partition: dict[int, list[tuple[int, Event]]] = defaultdict(list)
        offsets: Counter[tuple[int, int]] = Counter()
        turns: dict[tuple[int, int], int] = {}
        for record in self.records:
            at = (record.stream, record.partition)
            offset = offsets[at]
            offsets[at] += 1
            if record.value is None or not record.usable:
                continue
            fields = json.loads(record.value)
            event = Event(record.stream, fields[self._time(record.stream)], offset, record.partition, fields)
            turns[at] = max(turns.get(at, 0), event.time)
            by_partition[record.partition].append((turns[at], event))
        if len(self.pipeline.sources) > 1:
            for events in by_partition.values():
                events.sort(key=lambda e: (e[0], e[1].stream, e[1].offset))
        return [[event for _, event in events] for events in by_partition.values()]

    def _expected(self, spec: FeatureSpec) -> dict[Place, dict[str, Any]]:
        """The features of each scored record by brute force, by its place."""
        expected = {}
        for merged in self.arrivals():
            scored = [e for e in merged if e.stream == 0]
            for event, features in zip(scored, features_of(spec, merged), strict=True):
                for computed in (f for f in spec.features if isinstance(f, Computed)):
                    columns = {name: np.array([value]) for name, value in event.fields.items()}
                    features[computed.name] = float(np.asarray(computed.function(columns))[0])
                expected[event.partition, event.offset] = features
        return expected

    def _time(self, stream: int) -> str:
        return self.pipeline.sources[stream].time


class _Recorder:
    """Stands where the replay's producer does, and keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def produce(
        self, topic: str, value: bytes | None, key: bytes | None, partition: int, *, timestamp: int, headers: Any
    ) -> None:
        self.records.append(Record(replay.TOPICS.index(topic), partition, key, value, timestamp, headers))

    def poll(self, _: float) -> int:
        return 0

    def flush(self, _: float) -> int:
        return 0


def flights(folder: Path, name: str, days: float, *, expected: dict[Place, dict[str, Any]] | None = None) -> Tape:
    """The first `days` of 2013 as the example's replay sends them, for the example's pipeline under another name."""
    if expected is not None:
        return Tape(_renamed("flights", folder, name), _flights_records(days), expected)
    known = _flights(days)
    return Tape(_renamed("flights", folder, name), known.records, known.expected)


@lru_cache(maxsize=1)  # whatever the name, the records and their features are the same
def _flights(days: float) -> Tape:
    return Tape(EXAMPLES / "flights" / "pipeline.py", _flights_records(days))


def _flights_records(days: float) -> list[Record]:
    all_events = Flights().events()
    first = next(all_events)
    recorder = _Recorder()
    target = replay.Replay(recorder, PARTITIONS, dict.fromkeys(range(PARTITIONS), 0))  # type: ignore[arg-type]
    wanted = takewhile(lambda e: e.time < first.time + days * DAY_MS, all_events)
    replay.run([first, *wanted], target, speed=None, pauses=(), report=lambda _: None, go_on=lambda: True)
    return recorder.records


def payments(
    folder: Path,
    name: str,
    n: int,
    *,
    users: int = 300,
    rate: float = 2.0,
    headers: Callable[[int], Any] | None = None,
    expected: dict[Place, dict[str, Any]] | None = None,
) -> Tape:
    """The first `n` synthetic payments, for the example's pipeline under another name; about one in 150 s a user."""
    path = _renamed("payments", folder, name)
    made = Payments(users=users, rate=rate).records(n)
    records = [
        Record(0, partition_of(r.key), r.key, r.value, r.time_ms, headers(i) if headers else None)
        for i, r in enumerate(made)
    ]
    return Tape(path, records, expected)


def partition_of(key: bytes, partitions: int = PARTITIONS) -> int:
    return zlib.crc32(key) % partitions


def _renamed(example: str, folder: Path, name: str) -> Path:
    """The example's pipeline file with other topics and another consumer group, so that runs do not meet."""
    text = (EXAMPLES / example / "pipeline.py").read_text()
    text = text.replace(f'"{example}.', f'"{name}.').replace(f'"{example}",', f'"{name}",')
    path = folder / f"{name}.py"
    path.write_text(text)
    return path
