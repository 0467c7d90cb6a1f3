"""Rows of a file as columns, and how a file is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from streams.offline.columns import OFFSET, PARTITION, TIMESTAMP, Places
from streams.offline.rejects import Reject

ROWS = 65_536
"""Of a chunk: what is read, computed and written at a time."""

TIME = "_time"
"""The event time in `Rows.columns`, int64, whatever else its field is used for."""


PLACES = Places(TIMESTAMP, PARTITION, OFFSET)
"""The names that are looked for, if no others are given."""


class Rows(NamedTuple):
    """The usable rows of a stretch of a file by column: number arrays (NaN = null) and lists of texts."""

    columns: dict[str, Any]
    rejects: list[Reject]
    rows: int


@dataclass(frozen=True)
class Reading:
    """How files are read.

    places: names of the columns with a record's place; a file may lack those that are not `given`. sort: a column to
    sort each file by first, in memory. rows: of a chunk.
    """

    places: Places = PLACES
    given: frozenset[str] = frozenset()
    sort: str | None = None
    rows: int = ROWS

    def found(self, columns: Iterable[str]) -> Places:
        """The place columns that a file with `columns` has, or must have."""
        there = set(columns) | self.given
        named = (self.places.timestamp, self.places.partition, self.places.offset)
        return Places(*(name if name in there else None for name in named))
