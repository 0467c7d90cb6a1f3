"""Events as the tests write them, cut into the rounds that the engine takes; and a store in a dict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from features.engine import FeatureEngine, Features
from features.round import Round, Segment, StreamColumns
from features.spec import FeatureSpec
from features.store import Found, Meta, RowKey, Vector, Wanted
from tests.oracles.features import Event


def round_of(spec: FeatureSpec, events: Sequence[Event]) -> Round:
    """Events in arrival order as the columns of one round."""
    columns = []
    for index, stream in enumerate(spec.streams):
        mine = [(place, event) for place, event in enumerate(events) if event.stream == index]
        mine.sort(key=lambda at: at[1].partition)
        if not mine:
            continue
        partitions = [event.partition for _, event in mine]
        segments = tuple(
            Segment(p, partitions.index(p), partitions.index(p) + partitions.count(p))
            for p in sorted(set(partitions))
        )
        fields: dict[str, object] = {}
        for f in stream.fields:
            values = [event.fields[f.name] for _, event in mine]
            fields[f.name] = np.array(values, dtype=np.float64) if f.kind == "number" else values
        columns.append(
            StreamColumns(
                index,
                segments,
                np.array([event.offset for _, event in mine], dtype=np.int64),
                np.array([event.time for _, event in mine], dtype=np.int64),
                fields,
                np.array([place for place, _ in mine], dtype=np.int64),
                np.array([event.scored for _, event in mine]) if index == 0 else None,
            )
        )
    return tuple(columns)


def cut(events: Sequence[Event], sizes: Iterable[int]) -> list[list[Event]]:
    """Consecutive pieces of these sizes, repeated until nothing is left."""
    pieces: list[list[Event]] = []
    start, wanted = 0, list(sizes) or [len(events)]
    while start < len(events):
        size = wanted[len(pieces) % len(wanted)]
        pieces.append(list(events[start : start + size]))
        start += size
    return pieces


def vector(spec: FeatureSpec, events: Sequence[Event], partition: int) -> Vector:
    """Next offsets of a partition after `events`."""
    return tuple(
        sum(event.stream == stream and event.partition == partition for event in events)
        for stream in range(len(spec.streams))
    )


def in_arrival_order(events: Sequence[Event], features: Features) -> np.ndarray:
    """`features.aggregates`, which go partition by partition, in the order in which the events arrived."""
    partitions = [event.partition for event in events if event.stream == 0 and event.scored]
    order = sorted(range(len(partitions)), key=partitions.__getitem__)
    arrived = np.empty_like(features.aggregates)
    arrived[order] = features.aggregates
    return arrived


async def run(engine: FeatureEngine, pieces: Iterable[Sequence[Event]]) -> np.ndarray:
    """The aggregates float64 [n, a] of the scored events of rounds, in the order of arrival."""
    found = [np.empty((0, len(engine.spec.aggregates)))]
    for piece in pieces:
        arrived = round_of(engine.spec, piece)
        await engine.load(arrived)
        found.append(in_arrival_order(piece, engine.process(arrived)))
    return np.concatenate(found)


def owning(
    spec: FeatureSpec, store: DictStore, *, partitions: int = 2, capacity: int = 1000
) -> FeatureEngine:
    """An engine that owns partitions as the store has them."""
    engine = FeatureEngine(spec, store, capacity=capacity)
    for partition in range(partitions):
        fresh = Meta(1, 1, spec.state_hash, (0,) * len(spec.streams))
        engine.own(partition, store.metas.setdefault(partition, fresh))
    return engine


@dataclass
class DictStore:
    """The least that a store is, for one owner: `loads` are the requests it had."""

    metas: dict[int, Meta] = field(default_factory=dict)
    rows: dict[tuple[int, RowKey], bytes] = field(default_factory=dict)
    loads: list[dict[int, list[RowKey]]] = field(default_factory=list)

    async def load(self, wanted: Wanted, metas: Mapping[int, Meta]) -> dict[int, list[bytes | None]]:
        self.loads.append({partition: list(keys) for partition, keys in wanted.items()})
        return {p: [self.rows.get((p, key)) for key in keys] for p, keys in wanted.items()}

    async def write(
        self, partition: int, follows: Meta, vector: Vector, rows: Iterable[tuple[RowKey, bytes]]
    ) -> Meta:
        assert follows == self.metas[partition]
        self.rows.update({(partition, key): data for key, data in rows})
        self.metas[partition] = replace(follows, vector=vector)
        return self.metas[partition]

    async def claim(self, partition: int, partitions: int = 0) -> tuple[int, Meta | None]:
        raise NotImplementedError

    async def begin(self, partition: int, meta: Meta) -> None:
        raise NotImplementedError

    async def read(self, wanted: Wanted, known: Mapping[int, Meta] | None = None) -> dict[int, Found]:
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing is open."""
