"""What one partition has to write: its dirty rows, copied at a boundary."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import NamedTuple

import numpy as np

from features.codec import pack
from features.progress import Progress, packed_progress
from features.store import Meta, RowKey, Vector
from features.table import EntityTable


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
    """The arguments of `Store.write` for one partition. Packing waits until `rows` is asked for.

    progress: how far the owner of a remote group is, for those who read its rows.
    """

    partition: int
    follows: Meta
    vector: Vector
    taken: tuple[Taken, ...]
    progress: Progress | None = None

    @cached_property
    def rows(self) -> list[tuple[RowKey, bytes]]:
        """Keys and packed rows. How far the owner is comes last: never before what it speaks of."""
        told, follows = self.progress, self.follows
        progress = [] if told is None else [packed_progress(told, follows.incarnation, self.vector)]
        return [
            row
            for taken in self.taken
            for row in zip(
                map(RowKey, repeat(taken.table.kind.number), taken.keys),
                pack(follows.incarnation_of(taken.table.kind.number), taken.vectors, taken.state, taken.keys),
                strict=True,
            )
        ] + progress
