"""What one partition has to write: its dirty rows, copied at a boundary."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from features.codec import pack
from features.progress import Progress, packed_progress
from features.store import Meta, Row, Vector, row_keys
from features.table import EntityTable

BLOCK_ROWS = 256


class Taken(NamedTuple):
    """Copies of n rows of a table: their places in it, keys, int64 vectors [n, S] and float64 state [n,
    width].
    """

    table: EntityTable
    places: np.ndarray
    keys: list[str]
    vectors: np.ndarray
    state: np.ndarray

    @classmethod
    def copy(cls, table: EntityTable, places: np.ndarray, vector: Vector) -> Taken:
        """A row loaded from ahead of a replay stays ahead: it covers its own vector and `vector`."""
        keys = [key for place in places.tolist() if (key := table.keys[place]) is not None]
        return cls(table, places, keys, np.maximum(table.covered[places], vector), table.state[places])


@dataclass(frozen=True)
class Checkpoint:
    """The arguments of `Store.write` for one partition.

    progress: how far the owner of a remote group is, for those who read its rows.
    """

    partition: int
    follows: Meta
    vector: Vector
    taken: tuple[Taken, ...]
    progress: Progress | None = None

    def rows(self) -> PackedRows:
        """Keys and packed rows. How far the owner is comes last: never before what it speaks of."""
        return PackedRows(self)


class PackedRows:
    """A checkpoint's rows, packed as they are asked for: all of them at once would take their memory twice, and keep
    the event loop for as long.

    count, size: how many have been packed, and bytes of their values.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.count = self.size = 0

    def __iter__(self) -> Iterator[Row]:
        follows, progress = self._checkpoint.follows, self._checkpoint.progress
        for taken in self._checkpoint.taken:
            kind = taken.table.kind
            incarnation = follows.incarnation_of(kind.number)
            for start in range(0, len(taken.keys), BLOCK_ROWS):
                some = slice(start, start + BLOCK_ROWS)
                keys = taken.keys[some]
                packed = pack(incarnation, taken.vectors[some], taken.state[some], keys, template=kind.template)
                self.count += len(packed)
                self.size += sum(map(len, packed))
                yield from zip(row_keys(kind.number, keys), packed, strict=True)
        if progress is not None:
            row = packed_progress(progress, follows.incarnation, self._checkpoint.vector)
            self.count, self.size = self.count + 1, self.size + len(row[1])
            yield row
