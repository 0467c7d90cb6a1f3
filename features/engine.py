"""The engine: rounds of events in, the model's inputs out, with the state in between.

    engine.own(partition, meta)              the partition is ours, its store record is `meta`
    await engine.load(round)                 brings in the rows that the round needs
    out = engine.process(round)              computes, and updates the state
    for c in engine.snapshot({partition: vector}):
        engine.written(c, await store.write(c.partition, c.follows, c.vector, c.rows()))
    engine.release(partition)

All of it belongs to one event loop. `load` is awaited by one coroutine at a time; while it waits for the
store the other calls may come. Checkpoints are written whenever it suits, one a partition at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from features.arrivals import events, in_arrival_order, scored_fields, scored_records, scored_times
from features.checkpoint import Checkpoint, Taken
from features.codec import pack, unpack
from features.kernel import FOLDED
from features.layout import Layout
from features.loading import Owned, Rows, find, insert, keys_of
from features.matrix import (
    Failure,
    FeatureError,
    Logged,
    fill_aggregates,
    fill_missing,
    logged,
    own_features,
)
from features.progress import Progress
from features.round import Round
from features.spec import FeatureSpec
from features.store import Meta, Store, Vector
from features.table import EntityTable, values_at
from features.windows import Window


@dataclass(frozen=True)
class Features:
    """The n scored events of a round, in their own order.

    matrix: float32 [n, d], the model's input. logged: what predictions say they used.
    aggregates: float64 [n, a], the spec's aggregates before the cast to float32.
    late: by windowed aggregate, the events of the round, scored or not, that came too late for it.
    failed: computed features whose function failed on some events, which have NaN for it.
    """

    matrix: np.ndarray
    logged: Logged
    aggregates: np.ndarray
    late: dict[str, int]
    failed: dict[str, Failure]


@dataclass(frozen=True)
class Folded:
    """The n scored events of a round, in their own order: aggregates and late as in `Features`."""

    aggregates: np.ndarray
    late: dict[str, int]


@dataclass(frozen=True)
class Stats:
    """Of one entity kind: the rows held now; and counted since the start: records whose row was here (hits)
    or was not (misses), rows evicted, rows taken in beyond the bound.
    """

    rows: int
    hits: int
    misses: int
    evictions: int
    over_bound: int


@dataclass(frozen=True)
class _Loaded:
    round: Round
    rows: Rows


class FeatureEngine:
    """Computes a spec's features. `capacity`: clean rows beyond it, per entity kind, are evicted."""

    def __init__(self, spec: FeatureSpec, store: Store, *, capacity: int = 200_000) -> None:
        self.spec = spec
        self.layout = Layout(spec)
        self._store = store
        self._tables = [
            EntityTable(kind, entity, self.layout.streams, capacity)
            for entity, kind in enumerate(self.layout.kinds)
        ]
        self._owned: dict[int, Owned] = {}
        self._loaded: _Loaded | None = None
        self._stamp = 0
        self._hits, self._misses = [0] * len(self._tables), [0] * len(self._tables)
        self.late = {a.name: 0 for a in spec.kept if isinstance(a.window, Window)}
        """By aggregate of a sawtooth window, the events since the start that came too late for it."""
        for kind in self.layout.kinds[:1]:  # compiles, or reads what was compiled, before a round waits for it
            values_at(kind, np.empty((0, kind.width)), np.empty(0, dtype=np.int64), len(spec.aggregates))
            streams, template = self.layout.streams, kind.template
            unpack([], [], incarnation=0, streams=streams, template=template)
            pack(0, np.empty((0, streams), np.int64), np.empty((0, kind.width)), [], template=template)

    def own(self, partition: int, meta: Meta, *, empty: bool = False, committed: Vector | None = None) -> None:
        """Begins a partition, without rows.

        empty: the store has none either of the groups that `meta.incarnation` begins, so none is asked for. committed:
        where the owners before got to; a row that covers more is refused.
        """
        self.release(partition)
        self._owned[partition] = Owned(meta, committed)
        for table in self._tables:
            begun = meta.incarnation_of(table.kind.number) == meta.incarnation
            table.own(partition, empty=empty and begun)

    def records(self) -> dict[str, int]:
        """Of the round loaded last, the records that each entity kind takes notice of, by its fields joined by "_"."""
        rows: Rows = self._loaded.rows if self._loaded is not None else [[] for _ in self._tables]
        return {
            "_".join(kind): sum(int(np.count_nonzero(mine)) for mine in of_kind)
            for kind, of_kind in zip(self.spec.entities, rows, strict=True)
        }

    def release(self, partition: int) -> None:
        """Forgets a partition and its rows, written or not; a round that was loaded is to be loaded again."""
        if self._owned.pop(partition, None) is not None:
            self._loaded = None
            for table in self._tables:
                table.release(partition)

    @property
    def guessed(self) -> list[int]:
        """Partitions whose state lacks what the store has, since a round was loaded without it.

        They are not checkpointed; own them anew when the store answers.
        """
        return [partition for partition, owned in self._owned.items() if owned.guessed]

    async def load(self, round: Round, *, without_store: bool = False) -> None:
        """Finds or loads the rows of a round, with at most one request to the store.

        without_store: none at all; entities that are not in memory begin empty (see `guessed`).

        Raises what `Store.load` raises, CodecError for a row that is not what was asked for or that nobody can have
        written rightly, and FeatureError if a partition is not owned, or no longer when the store has answered. No
        state has changed then.
        """
        self._loaded = None
        self._stamp += 1
        for columns in round:
            for segment in columns.segments:
                if segment.partition not in self._owned:
                    raise FeatureError(f"load: partition {segment.partition} is not owned; call own() first")
        keys = keys_of(self._tables, round, self._owned)
        rows, missing = find(self._tables, round, keys, self._stamp)
        for entity, of_kind in enumerate(rows):
            self._hits[entity] += sum(int(np.count_nonzero(mine > 0)) for mine in of_kind)
            self._misses[entity] += sum(int(np.count_nonzero(mine < 0)) for mine in of_kind)
        if missing:
            store = None if without_store else self._store
            await insert(self._tables, store, self._owned, missing, self._stamp)
            rows, _ = find(self._tables, round, keys, self._stamp)
        self._loaded = _Loaded(round, rows)

    def process(self, round: Round, given: Mapping[str, np.ndarray] | None = None) -> Features:
        """The features of the round loaded last, each as of just before its event, which updates the state.

        given: float64 [n] of the scored events for each of the spec's `given` aggregates; NaN = missing.

        Raises FeatureError, before any state has changed, where a field that is never null holds a null, or the
        round was not the last one loaded, or was already processed.
        """
        loaded, scored = self._taken(round), scored_records(round)
        fields = scored_fields(self.spec, round, scored)
        matrix, failed = own_features(self.spec, fields, scored_times(round, scored))
        aggregates, late = self._walk(loaded, scored, given or {})
        if self.spec.aggregates:
            failed |= fill_aggregates(self.spec, fields, matrix, aggregates)
        fill_missing(self.spec, matrix)
        return Features(matrix, logged(self.spec, fields, matrix), aggregates, late, failed)

    def fold(self, round: Round) -> Folded:
        """As `process`, for who needs no model's input: the aggregates that are kept here alone."""
        aggregates, late = self._walk(self._taken(round), scored_records(round), {})
        return Folded(aggregates, late)

    def _taken(self, round: Round) -> _Loaded:
        if self._loaded is None or self._loaded.round is not round:
            raise FeatureError("process: the round is not the one loaded last; call load() with it first")
        return self._loaded

    def _walk(
        self, loaded: _Loaded, scored: np.ndarray, given: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, dict[str, int]]:
        """Aggregates float64 [n, a] of the scored events, with what is given; late events by windowed aggregate."""
        round = loaded.round
        aggregates = np.full((len(scored), len(self.spec.aggregates)), np.nan)
        late = dict.fromkeys(self.late, 0)
        if self._tables:
            arrived = events(self.spec, self.layout, round, scored)
            for table, rows in zip(self._tables, loaded.rows, strict=True):
                self._count_late(table, table.walk(in_arrival_order(rows, round), arrived, aggregates), late)
        for place, aggregate in enumerate(self.spec.aggregates):
            if aggregate.name in given:
                aggregates[:, place] = given[aggregate.name]
        self._loaded = None
        for name, count in late.items():
            self.late[name] += count
        return aggregates, late

    def crowded(self, partitions: Collection[int]) -> bool:
        """Whether a checkpoint of `partitions` should come before more rounds, so that rows find room in the bound."""
        return any(table.crowded(partitions) for table in self._tables)

    def snapshot(
        self, vectors: Mapping[int, Vector], progress: Mapping[int, Progress] | None = None
    ) -> list[Checkpoint]:
        """Copies the dirty rows of partitions that have processed just what is below `vectors[partition]`.

        progress: of the same partitions, to be written with their rows, and also where only it is new.

        Partitions with nothing to write, whose last checkpoint is not settled yet, or that are guessed, are left out.
        """
        if not self._tables:
            return []
        ready = {
            p: v
            for p, v in vectors.items()
            if (owned := self._owned.get(p)) is not None and owned.in_flight is None and not owned.guessed
        }
        dirty = [table.take_dirty(ready) for table in self._tables]
        checkpoints = []
        for partition, vector in ready.items():
            owned = self._owned[partition]
            taken = tuple(
                Taken.copy(table, rows[partition], vector)
                for table, rows in zip(self._tables, dirty, strict=True)
                if partition in rows
            )
            told = (progress or {}).get(partition)
            if taken or vector != owned.meta.vector or told != owned.progress:
                owned.in_flight, owned.progress = Checkpoint(partition, owned.meta, vector, taken, told), told
                if owned.reach is not None:
                    owned.reach = tuple(map(max, owned.reach, vector))
                checkpoints.append(owned.in_flight)
        return checkpoints

    def written(self, checkpoint: Checkpoint, meta: Meta) -> None:
        """The store has a checkpoint, and its meta is now `meta`: rows not changed since are clean.

        Those beyond the bound, which grew while the store took nothing, may leave.
        """
        if self._settle(checkpoint, written=True):
            self._owned[checkpoint.partition].follow(meta)
            for table in self._tables:
                table.shrink(self._stamp)

    def write_failed(self, checkpoint: Checkpoint) -> bool:
        """A checkpoint was not written: its rows are dirty again, and the next one has them.

        False where it was settled before, or its partition went meanwhile.
        """
        return self._settle(checkpoint, written=False)

    def stats(self) -> dict[str, Stats]:
        """What the engine holds and has done, by entity kind (its fields joined by "_")."""
        return {
            "_".join(kind): Stats(len(table), hits, misses, table.evictions, table.over_bound)
            for kind, table, hits, misses in zip(
                self.spec.entities, self._tables, self._hits, self._misses, strict=True
            )
        }

    def _settle(self, checkpoint: Checkpoint, *, written: bool) -> bool:
        """Ends a checkpoint's writing; False if the partition went meanwhile, and its rows with it."""
        owned = self._owned.get(checkpoint.partition)
        if owned is None or owned.in_flight is not checkpoint:
            return False
        owned.in_flight = None
        if not written:
            owned.progress = None  # to be told again
        for taken in checkpoint.taken:
            taken.table.settle(taken.places, written=written)
        return True

    def _count_late(self, table: EntityTable, folds: np.ndarray, late: dict[str, int]) -> None:
        """Adds a walk's late events, counted by fold, to the aggregates that use the folds."""
        if folds.any():
            for kind, fold, _, column, _ in table.kind.outs.tolist():
                if kind in FOLDED and folds[fold]:
                    late[self.spec.aggregates[column].name] += int(folds[fold])
