"""How far the owner of a remote group is, as a row beside the rows that it writes: see `features.remote`.

It is one of its partition's packed rows, so it is written with them, under the same epoch and incarnation, and never
says more than they hold.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from features.codec import CodecError, pack, unpack
from features.store import Row, RowKey, Vector

PROGRESS = RowKey(-1, "progress")
"""Under a number that no group has."""

NEVER = -1


class Progress(NamedTuple):
    """newest_ms: the newest event time that is in the rows; complete_ms: by the clock, a time such that everything that
    had been sent to the partition by then is in. NEVER = not known.
    """

    newest_ms: int = NEVER
    complete_ms: int = NEVER


UNKNOWN = Progress()
_NOTHING = np.zeros(len(UNKNOWN), dtype=np.int64)


def packed_progress(progress: Progress, incarnation: int, vector: Vector) -> Row:
    """The row that says it, of an owner whose rows cover `vector`."""
    vectors, state = np.array([vector], dtype=np.int64), np.array([progress], dtype=np.float64)
    return PROGRESS, pack(incarnation, vectors, state, [PROGRESS.key], template=_NOTHING)[0]


def progress_of(value: bytes | None, incarnation: int, streams: int) -> Progress:
    """What a row says; UNKNOWN where there is none, or it is of another incarnation, or broken."""
    try:
        found = unpack([value], [PROGRESS.key], incarnation=incarnation, streams=streams, template=_NOTHING)
    except CodecError:
        return UNKNOWN
    return Progress(*map(int, found.rows[0].tolist())) if len(found.rows) else UNKNOWN
