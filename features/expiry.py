"""What a value is worth at the time of reading: it is present until the newest event behind it is too old."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from features.kernel import (
    BANK_FOLD,
    BANK_FOLD_END,
    BANK_NEWEST,
    BANK_PANE_MS,
    COPY,
    FOLD_PANES,
    LATEST_TIME,
    OUT_A,
    OUT_KIND,
    OUT_WITHIN,
    RATIO,
    UNSEEN,
)
from features.layout import Kind

MISSING, EXPIRED, PRESENT, REBUILDING = range(4)
"""missing: never seen, or not before the time of reading; rebuilding: not known, its partition is being made anew."""


class Expiry(NamedTuple):
    """Of the outputs of a kind, in their order, each int64 [k]: the slot of the newest pane (or event time) that an
    output depends on, how long such a pane is (1 for a time), and how many panes old it may be.
    """

    slots: np.ndarray
    pane_ms: np.ndarray
    panes: np.ndarray


class Newest(NamedTuple):
    """Where the event times of a kind's newest events are, each int64 [m]: slots, and the length of a pane there."""

    slots: np.ndarray
    pane_ms: np.ndarray


def expiry_of(kind: Kind) -> Expiry:
    """The table that `states` reads."""
    found = np.array([_expiry(kind, out) for out in kind.outs], dtype=np.int64).reshape(-1, 3)
    return Expiry(found[:, 0], found[:, 1], found[:, 2])


def newest_of(kind: Kind) -> Newest:
    """The table that `newest_ms` reads."""
    banks = [(bank[BANK_NEWEST], bank[BANK_PANE_MS]) for bank in kind.banks]
    found = np.array([*banks, *((latest[LATEST_TIME], 1) for latest in kind.latest)], dtype=np.int64).reshape(-1, 2)
    return Newest(found[:, 0], found[:, 1])


def states(expiry: Expiry, rows: np.ndarray, values: np.ndarray, at_ms: int) -> np.ndarray:
    """Codes uint8 [n, k] of values float64 [n, k] at `at_ms`, from the int64 view [n, width] of their rows."""
    newest = rows[:, expiry.slots]
    found = np.where(np.isnan(values), MISSING, PRESENT).astype(np.uint8)
    found[newest <= at_ms // expiry.pane_ms - expiry.panes] = EXPIRED
    found[newest == UNSEEN] = MISSING
    return found


def newest_ms(newest: Newest, rows: np.ndarray) -> np.ndarray:
    """Event time int64 [n] of each row's newest event, or the start of its pane; UNSEEN if it has seen none."""
    found = rows[:, newest.slots]
    unseen = found == UNSEEN
    times = np.where(unseen, UNSEEN, np.where(unseen, 0, found) * newest.pane_ms)
    latest: np.ndarray = times.max(axis=1, initial=UNSEEN)
    return latest


def _expiry(kind: Kind, out: np.ndarray) -> tuple[int, int, int]:
    if out[OUT_KIND] in (COPY, RATIO):
        fold = out[OUT_A]
        bank = next(bank for bank in kind.banks if bank[BANK_FOLD] <= fold < bank[BANK_FOLD_END])
        return int(bank[BANK_NEWEST]), int(bank[BANK_PANE_MS]), int(kind.folds[fold, FOLD_PANES])
    return int(out[OUT_A]), 1, int(out[OUT_WITHIN]) + 1
