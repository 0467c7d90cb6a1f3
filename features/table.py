"""The state of one entity kind in a worker: rows by partition and key, which of them wait to be written, and
who may go.

A row is *clean* (the store has it, or it holds nothing), *dirty* (changed since it was last copied) or *being
written* (copied, and the store has not confirmed). Only clean rows leave to make room.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from features.kernel import walk
from features.layout import Kind
from features.round import Segment

RESERVED_BYTES = 256 * 1024**2
"""Of state that a table begins with, within its bound: address space, which becomes memory row by row as entities
come. Beyond it a table doubles, and for a moment holds its state twice."""


class Events(NamedTuple):
    """A round's n events in arrival order, as every kind's walk reads them.

    streams int8 [n], offsets and times int64 [n], values float64 [n, fields] (`Layout.fields` of the event's
    stream), places int32 [n]: the event's row among the scored ones, or -1.
    """

    streams: np.ndarray
    offsets: np.ndarray
    times: np.ndarray
    values: np.ndarray
    places: np.ndarray


class EntityTable:
    """Rows of one entity kind (`entity`: its index). Row 0 stands for a null entity: no key, no state, never
    dirty.

    state: float64 [rows, width]; covered: int64 [rows, S], the offsets that a row's state already covers;
    complete: the partitions of which the store holds nothing that is not here; evictions, over_bound: how
    many rows went to make room, and came although there was none.
    """

    def __init__(self, kind: Kind, entity: int, streams: int, capacity: int) -> None:
        self.kind = kind
        self.entity = entity
        self.capacity = capacity
        self.evictions = 0
        self.over_bound = 0
        self.complete: set[int] = set()
        size = min(RESERVED_BYTES // (8 * kind.width), capacity) + 1
        self.state = np.empty((size, kind.width))
        self.covered = np.zeros((size, streams), dtype=np.int64)
        self.dirty = np.zeros(size, dtype=np.uint8)
        self.writing = np.zeros(size, dtype=np.bool_)
        self.used = np.zeros(size, dtype=np.int64)
        self.partitions = np.full(size, -1, dtype=np.int32)
        self.keys: list[str | None] = [None] * size
        self._rows: dict[int, dict[str | None, int]] = {}
        self._free = array("i", range(size - 1, 0, -1))

    def __len__(self) -> int:
        return len(self.keys) - 1 - len(self._free)

    def own(self, partition: int, *, empty: bool) -> None:
        """Begins a partition without rows; `empty`: the store has none either."""
        self._rows[partition] = {None: 0}
        if empty:
            self.complete.add(partition)

    def find(
        self, segments: Sequence[Segment], keys: Sequence[str | None], stamp: int
    ) -> tuple[np.ndarray, dict[int, dict[str, None]]]:
        """Rows int32 [n] of the `keys` of `segments` (0 for None, -1 for those not here), and by partition the
        distinct keys not here, in their order.

        The rows found are in use as of round `stamp`.
        """
        known = [self._rows[partition] for partition, _, _ in segments]
        mine = [keys[start:stop] for _, start, stop in segments]
        missing: dict[int, dict[str, None]] = {}
        found = chain.from_iterable(map(map, [rows.__getitem__ for rows in known], mine))
        try:
            rows = np.fromiter(found, dtype=np.int32, count=len(keys))
        except KeyError:
            found = chain.from_iterable([rows.get(key, -1) for key in of] for rows, of in zip(known, mine, strict=True))
            rows = np.fromiter(found, dtype=np.int32, count=len(keys))
            for (partition, *_), rows_of, of in zip(segments, known, mine, strict=True):
                if lacking := {key: None for key in of if key is not None and key not in rows_of}:
                    missing[partition] = lacking
        self.used[rows[rows > 0] if missing else rows] = stamp
        return rows, missing

    def insert(self, partition: int, keys: Sequence[str], stamp: int) -> np.ndarray:
        """Rows int64 [n] for distinct keys that are not here, empty of state, in use as of round `stamp`."""
        self._make_room(len(keys), stamp)
        rows = np.array(self._free[len(self._free) - len(keys) :], dtype=np.int64)
        del self._free[len(self._free) - len(keys) :]
        self.state.view(np.int64)[rows] = self.kind.template
        self.covered[rows] = 0
        self.used[rows] = stamp
        self.partitions[rows] = partition
        known = self._rows[partition]
        for row, key in zip(rows.tolist(), keys, strict=True):
            known[key] = row
            self.keys[row] = key
        return rows

    def restore(self, rows: np.ndarray, vectors: np.ndarray, state: np.ndarray) -> None:
        """Gives rows the int64 vectors [n, S] and float64 state [n, width] that the store had."""
        self.covered[rows] = vectors
        self.state[rows] = state

    def walk(self, rows: np.ndarray, events: Events, out: np.ndarray) -> np.ndarray:
        """Reads the scored events into their places of `out` float64 [·, aggregates], and adds those that
        feed.

        rows: int32 [n]. Returns how many events were late, int64 [folds].
        """
        return _walk(self.kind, self.state, self.covered, self.dirty, rows, events, out)

    def take_dirty(self, partitions: Iterable[int]) -> dict[int, np.ndarray]:
        """The dirty rows of each of `partitions` that has some; from now on they are being written."""
        rows = np.flatnonzero(self.dirty)
        owners = self.partitions[rows]
        taken = {p: mine for p in partitions if len(mine := rows[owners == p])}
        for mine in taken.values():
            self.dirty[mine] = 0
            self.writing[mine] = True
        return taken

    def crowded(self, partitions: Collection[int]) -> bool:
        """Whether so many rows wait to be written, some of them of `partitions`, that new ones may soon find no room
        within the bound.
        """
        if len(self) <= self.capacity // 2:
            return False
        waiting = self.dirty.view(np.bool_) | self.writing
        if np.count_nonzero(waiting) <= self.capacity // 2:
            return False
        owners = np.bincount(self.partitions[waiting])
        return int(owners[[p for p in partitions if p < len(owners)]].sum()) > self.capacity // 4

    def settle(self, rows: np.ndarray, *, written: bool) -> None:
        """Ends the writing of rows: those not written are dirty again, and those changed since still are."""
        self.writing[rows] = False
        if not written:
            self.dirty[rows] = 1

    def shrink(self, stamp: int) -> None:
        """Goes back to the bound after a time in which no row could leave; rows in use as of `stamp` stay."""
        if (over := len(self) - self.capacity) > 0:
            self._evict(over, stamp)

    def release(self, partition: int) -> None:
        """Forgets a partition and its rows, written or not."""
        self.complete.discard(partition)
        self._forget([row for row in self._rows.pop(partition).values() if row])

    def _make_room(self, count: int, stamp: int) -> None:
        """Frees or adds rows until `count` are free: within the bound if rows can go, beyond it if none
        can.
        """
        over = len(self) + count - self.capacity
        if over > 0:
            over -= self._evict(over, stamp)
            self.over_bound += min(max(over, 0), count)
        lacking = count - len(self._free)
        if lacking > 0:
            size = len(self.keys)
            doubled = 2 * size - 1 if over > 0 else min(2 * size - 1, self.capacity + 1)
            self._grow(max(doubled, size + lacking))

    def _evict(self, count: int, stamp: int) -> int:
        """Frees the clean rows longest unused, an eighth of the bound at a time; returns how many."""
        clean = (self.partitions >= 0) & (self.dirty == 0) & ~self.writing & (self.used < stamp)
        rows = np.flatnonzero(clean)
        count = max(count, self.capacity // 8)
        if len(rows) > count:
            rows = rows[np.argpartition(self.used[rows], count - 1)[:count]]
        owners = self.partitions[rows].tolist()
        self.complete.difference_update(owners)
        for row, partition in zip(rows.tolist(), owners, strict=True):
            del self._rows[partition][self.keys[row]]
        self._forget(rows.tolist())
        self.evictions += len(rows)
        return len(rows)

    def _forget(self, rows: list[int]) -> None:
        for row in rows:
            self.keys[row] = None
        self.partitions[rows] = -1
        self.dirty[rows] = 0
        self.writing[rows] = False
        self._free.extend(rows)

    def _grow(self, size: int) -> None:
        before = len(self.keys)
        for name in ("state", "covered", "dirty", "writing", "used", "partitions"):
            old = getattr(self, name)
            new = np.empty((size, *old.shape[1:]), dtype=old.dtype)
            new[:before] = old
            setattr(self, name, new)
        for flags in (self.dirty, self.writing, self.used):
            flags[before:] = 0
        self.partitions[before:] = -1
        self.keys += [None] * (size - before)
        self._free[:0] = array("i", range(size - 1, before - 1, -1))


def values_at(kind: Kind, rows: np.ndarray, times: np.ndarray, aggregates: int) -> np.ndarray:
    """The aggregates float64 [n, aggregates] of float64 rows [n, width], each as of its time int64 [n] in ms.

    Only the columns of this kind are filled; the others are NaN.
    """
    return values_of(kind, np.concatenate([np.zeros((1, kind.width)), rows]), times, aggregates)


def values_of(
    kind: Kind, state: np.ndarray, times: np.ndarray, aggregates: int, rows: np.ndarray | None = None
) -> np.ndarray:
    """`values_at` of float64 state [1 + m, width], whose first row stands for no entity.

    rows: int32 [n], which row of `state` each time is read of; None = one after the other from row 1.
    """
    n, streams = len(times), len(kind.feeds) - 1
    reads = Events(  # of the stream that feeds nothing
        np.full(n, streams, dtype=np.int8),
        np.zeros(n, dtype=np.int64),
        np.array(times, dtype=np.int64),
        np.zeros((n, 0)),
        np.arange(n, dtype=np.int32),
    )
    out = np.full((n, aggregates), np.nan)
    covered, dirty = np.zeros((len(state), streams + 1), dtype=np.int64), np.zeros(len(state), dtype=np.uint8)
    _walk(kind, state, covered, dirty, np.arange(1, n + 1, dtype=np.int32) if rows is None else rows, reads, out)
    return out


def _walk(
    kind: Kind,
    state: np.ndarray,
    covered: np.ndarray,
    dirty: np.ndarray,
    rows: np.ndarray,
    events: Events,
    out: np.ndarray,
) -> np.ndarray:
    late = np.zeros(len(kind.folds), dtype=np.int64)
    tables = kind.banks, kind.accs, kind.folds, kind.latest, kind.spans, kind.trails, kind.outs, kind.feeds
    walk(*tables, state, state.view(np.int64), covered, dirty, rows, *events, out, late)
    return late
