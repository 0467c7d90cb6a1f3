"""What a value is worth at the time of reading: it is present until the newest event behind it is too old."""

from __future__ import annotations

from typing import NamedTuple

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
    UNSEEN,
)
from features.layout import Kind

MISSING, EXPIRED, PRESENT, REBUILDING = range(4)
"""missing: never seen, or not before the time of reading; rebuilding: not known, its partition is being made anew."""


class Newest(NamedTuple):
    """Where the event times of newest events are, each int64 [m]: slots, and the length of a pane there, 1 for a time.

    Of a trail, which is a ring: slots of its first time, seen: of its number of events, nths: which of the latest is
    meant, sizes: of the ring. Elsewhere sizes is 1, nths 0 and seen any slot.
    """

    slots: np.ndarray
    pane_ms: np.ndarray
    seen: np.ndarray
    nths: np.ndarray
    sizes: np.ndarray


class Expiry(NamedTuple):
    """Of the outputs of a kind, in their order: the newest event that each depends on, and int64 [k] how many panes,
    or ms, old that may be.
    """

    newest: Newest
    panes: np.ndarray

    def of(self, outs: list[int]) -> Expiry:
        """That of some outputs."""
        return Expiry(Newest(*(column[outs] for column in self.newest)), self.panes[outs])


def expiry_of(kind: Kind) -> Expiry:
    """The table that `states` reads."""
    found = [_expiry(kind, out) for out in kind.outs]
    return Expiry(_table([newest for newest, _ in found]), np.array([panes for _, panes in found], dtype=np.int64))


def newest_of(kind: Kind) -> Newest:
    """The table of all that a kind has seen, which `newest_ms` reads."""
    return _table(
        [
            *(_at(bank[BANK_NEWEST], bank[BANK_PANE_MS]) for bank in kind.banks),
            *(_at(latest[LATEST_TIME]) for latest in kind.latest),
            *(_at(span[SPAN_NEWEST]) for span in kind.spans),
            *(_nth(trail, 1) for trail in kind.trails),
        ]
    )


def states(expiry: Expiry, rows: np.ndarray, values: np.ndarray, at_ms: int) -> np.ndarray:
    """Codes uint8 [n, k] of values float64 [n, k] at `at_ms`, from the int64 view [n, width] of their rows."""
    newest = _found(expiry.newest, rows)
    found = np.where(np.isnan(values), MISSING, PRESENT).astype(np.uint8)
    found[newest <= at_ms // expiry.newest.pane_ms - expiry.panes] = EXPIRED
    found[newest == UNSEEN] = MISSING
    return found


def newest_ms(newest: Newest, rows: np.ndarray) -> np.ndarray:
    """Event time int64 [n] of each row's newest event, or the start of its pane; UNSEEN if it has seen none."""
    found = _found(newest, rows)
    unseen = found == UNSEEN
    times = np.where(unseen, UNSEEN, np.where(unseen, 0, found) * newest.pane_ms)
    latest: np.ndarray = times.max(axis=1, initial=UNSEEN)
    return latest


def _found(newest: Newest, rows: np.ndarray) -> np.ndarray:
    """int64 [n, m]: what the rows hold there; UNSEEN where a trail has fewer events."""
    if not newest.nths.any():
        return rows.take(newest.slots, axis=1)
    seen = np.where(newest.nths, rows[:, newest.seen], 0)
    found = np.take_along_axis(rows, newest.slots + (seen - newest.nths) % newest.sizes, axis=1)
    return np.where(seen < newest.nths, UNSEEN, found)


def _at(slot: int, pane_ms: int = 1) -> tuple[int, ...]:
    return slot, pane_ms, 0, 0, 1


def _nth(trail: np.ndarray, n: int) -> tuple[int, ...]:
    return trail[TRAIL_TIMES], 1, trail[TRAIL_SEEN], n, trail[TRAIL_SIZE]


def _table(rows: list[tuple[int, ...]]) -> Newest:
    return Newest(*np.array(rows, dtype=np.int64).reshape(-1, 5).T)


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
