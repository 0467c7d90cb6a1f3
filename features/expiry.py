"""What a value is worth at the time of reading: it is present until the newest event behind it is too old."""

from __future__ import annotations

import numpy as np

from features.kernel import (
    BANK_FOLD,
    BANK_FOLD_END,
    BANK_NEWEST,
    BANK_PANE_MS,
    FOLD_PANES,
    FOLD_WITHIN,
    FOLDED,
    LAG,
    LATEST_TIME,
    OUT_A,
    OUT_B,
    OUT_KIND,
    OUT_WITHIN,
    SPAN_FOLD,
    SPAN_FOLD_END,
    SPAN_NEWEST,
    SPAN_WITHIN,
    TRAIL_FOLD,
    TRAIL_FOLD_END,
    TRAIL_SEEN,
    TRAIL_SIZE,
    TRAIL_TIMES,
)
from features.layout import Kind

MISSING, EXPIRED, PRESENT, REBUILDING = range(4)
"""missing: never seen, or not before the time of reading; rebuilding: not known, its partition is being made anew."""


SLOT, PANE_MS, SEEN, NTH, RING, PANES = range(6)
"""Columns of a source: where the event time of a newest event is. SLOT: of a time, or of a pane of length PANE_MS (1
for a time). PANES: how many panes, or ms, old it may be for what depends on it.

Of a trail, which is a ring of RING times, SLOT is the first one's, SEEN the slot of its number of events, and the NTH
latest is meant. Elsewhere NTH is 0.
"""


def sources_of(kind: Kind, outs: list[int]) -> np.ndarray:
    """int64 [k, 6]: of some outputs of a kind, the newest event that each depends on."""
    return _table([(*source, panes) for source, panes in (_expiry(kind, kind.outs[out]) for out in outs)])


def seen_of(kind: Kind) -> np.ndarray:
    """int64 [m, 6]: all that a kind has seen; how old that may be is not said."""
    return _table(
        [
            *((*_at(bank[BANK_NEWEST], bank[BANK_PANE_MS]), 0) for bank in kind.banks),
            *((*_at(latest[LATEST_TIME]), 0) for latest in kind.latest),
            *((*_at(span[SPAN_NEWEST]), 0) for span in kind.spans),
            *((*_nth(trail, 1), 0) for trail in kind.trails),
        ]
    )


def _at(slot: int, pane_ms: int = 1) -> tuple[int, ...]:
    return slot, pane_ms, 0, 0, 1


def _nth(trail: np.ndarray, n: int) -> tuple[int, ...]:
    return trail[TRAIL_TIMES], 1, trail[TRAIL_SEEN], n, trail[TRAIL_SIZE]


def _table(rows: list[tuple[int, ...]]) -> np.ndarray:
    return np.array(rows, dtype=np.int64).reshape(-1, 6)


def _expiry(kind: Kind, out: np.ndarray) -> tuple[tuple[int, ...], int]:
    """The newest event of an output, and how old it may be."""
    if out[OUT_KIND] == LAG:
        return _nth(kind.trails[out[OUT_A]], int(out[OUT_B])), int(out[OUT_WITHIN]) + 1
    if out[OUT_KIND] not in FOLDED:
        return _at(out[OUT_A]), int(out[OUT_WITHIN]) + 1
    fold = out[OUT_A]
    for bank in kind.banks:
        if bank[BANK_FOLD] <= fold < bank[BANK_FOLD_END]:
            return _at(bank[BANK_NEWEST], bank[BANK_PANE_MS]), int(kind.folds[fold, FOLD_PANES])
    for span in kind.spans:
        if span[SPAN_FOLD] <= fold < span[SPAN_FOLD_END]:
            return _at(span[SPAN_NEWEST]), int(span[SPAN_WITHIN]) + 1
    trail = next(t for t in kind.trails if t[TRAIL_FOLD] <= fold < t[TRAIL_FOLD_END])
    return _nth(trail, 1), int(kind.folds[fold, FOLD_WITHIN]) + 1
