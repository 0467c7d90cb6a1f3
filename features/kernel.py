"""The compiled walk over a round's events: one kernel for every spec, driven by the tables of a `Kind`.

It is compiled once and kept on disk. The columns of the tables are named here, beside the code that reads
them: compiled code is kept by this file's age, so what it depends on must not lie in another. The helpers are
inlined: passed from function to function, the arrays cost more than the arithmetic.
"""

from __future__ import annotations

import numpy as np
from numba import njit

UNSEEN = -(2**63)
"""Newest pane, or event time, of an entity that has seen none."""

COUNT, SUM, MIN, MAX = range(4)
"""Kinds of accumulator and of fold. A count is an int64; the minimum or maximum of nothing is NaN."""

COPY, RATIO, LAST, SINCE = range(4)
"""How an output comes about: a fold, one fold over another, the latest value, seconds since a time."""

(
    BANK_PANE_MS,  # length of a pane
    BANK_PANES,  # panes of the ring: of the longest window
    BANK_SHORTEST,  # panes of the shortest window
    BANK_NEWEST,  # slot of the newest pane
    BANK_ACC,  # its accumulators: accs[BANK_ACC:BANK_ACC_END]
    BANK_ACC_END,
    BANK_FOLD,  # its folds
    BANK_FOLD_END,
) = range(8)
ACC_KIND, ACC_FIELD, ACC_AT = range(3)
FOLD_KIND, FOLD_AT, FOLD_PANES = range(3)
LATEST_FIELD, LATEST_TIME, LATEST_VALUE = range(3)
OUT_KIND, OUT_A, OUT_B, OUT_COLUMN, OUT_WITHIN = range(5)
FEED_BANK, FEED_BANK_END, FEED_LATEST, FEED_LATEST_END = range(4)


@njit(cache=True, nogil=True, error_model="numpy")
def walk(
    banks: np.ndarray,
    accs: np.ndarray,
    folds: np.ndarray,
    latest: np.ndarray,
    outs: np.ndarray,
    feeds: np.ndarray,
    state: np.ndarray,
    ints: np.ndarray,
    covered: np.ndarray,
    dirty: np.ndarray,
    rows: np.ndarray,
    streams: np.ndarray,
    offsets: np.ndarray,
    times: np.ndarray,
    values: np.ndarray,
    places: np.ndarray,
    out: np.ndarray,
    late: np.ndarray,
) -> None:
    """Each event in turn: its values as of just before it, then the event itself is added.

    banks … feeds: tables of a `Kind`. state float64 [capacity, width] and ints, its int64 view; row 0 stands
    for a null entity. covered int64 [capacity, S]: offsets below it are in the row already. dirty uint8
    [capacity]: set where a row changes. Of the n events: rows int32, streams int8, offsets and times int64,
    values float64 [n, fields] (NaN = null), places int32: the row of `out` float64 [·, aggregates] to fill,
    or -1. late int64 [folds]: counted up.
    """
    folded = np.empty(len(folds))
    panes = np.empty(len(banks), dtype=np.int64)
    for event in range(len(rows)):
        row, stream, time, place = np.uintp(rows[event]), streams[event], times[event], places[event]
        fresh = row > 0 and offsets[event] >= covered[row, stream]
        if place >= 0:
            if row > 0:
                for bank in range(len(banks)):
                    panes[bank] = time // banks[bank, BANK_PANE_MS]
                    _fold(banks, folds, bank, panes[bank], state, ints, row, folded, late)
            else:
                for fold in range(len(folds)):
                    folded[fold] = 0.0 if folds[fold, FOLD_KIND] <= SUM else np.nan
            _output(outs, state, ints, row, time, folded, out, place)
        elif fresh:
            for bank in range(feeds[stream, FEED_BANK], feeds[stream, FEED_BANK_END]):
                panes[bank] = time // banks[bank, BANK_PANE_MS]
                _count_late(banks, folds, bank, panes[bank], ints, row, late)
        if fresh:
            for bank in range(feeds[stream, FEED_BANK], feeds[stream, FEED_BANK_END]):
                _add(banks, accs, bank, panes[bank], values, event, state, ints, row)
                dirty[row] = 1
            for at in range(feeds[stream, FEED_LATEST], feeds[stream, FEED_LATEST_END]):
                _add_latest(latest, at, time, values, event, state, ints, row)
                dirty[row] = 1


@njit(inline="always", error_model="numpy")
def _fold(
    banks: np.ndarray,
    folds: np.ndarray,
    bank: int,
    pane: int,
    state: np.ndarray,
    ints: np.ndarray,
    row: np.uintp,
    folded: np.ndarray,
    late: np.ndarray,
) -> None:
    """The folds of a bank over the panes (head − n, pane], oldest first; head is the newest, or `pane`.

    The ring holds nothing newer than `newest`, so that panes after it count as empty.
    """
    size, newest = banks[bank, BANK_PANES], ints[row, banks[bank, BANK_NEWEST]]
    head, end = max(newest, pane), min(newest, pane)
    slot_end = end % size
    for fold in range(banks[bank, BANK_FOLD], banks[bank, BANK_FOLD_END]):
        oldest = head - folds[fold, FOLD_PANES] + 1
        if pane < oldest:
            late[fold] += 1
            folded[fold] = np.nan
            continue
        kind, at = folds[fold, FOLD_KIND], folds[fold, FOLD_AT]
        # The ring in two stretches: [first, stop) and, where it wraps, [base, rest).
        length = end - oldest + 1 if end >= oldest else 0
        begin = slot_end - length + 1
        if begin < 0:
            begin += size
        over = max(begin + length - size, 0)
        base, first = np.uintp(at), np.uintp(at + begin)
        stop, rest = np.uintp(at + begin + length - over), np.uintp(at + over)
        if kind == COUNT:
            count = 0
            for slot in range(first, stop):
                count += ints[row, slot]
            for slot in range(base, rest):
                count += ints[row, slot]
            folded[fold] = count
        elif kind == SUM:
            total = 0.0
            for slot in range(first, stop):
                total += state[row, slot]
            for slot in range(base, rest):
                total += state[row, slot]
            folded[fold] = total
        else:
            best = np.nan
            for slot in range(first, stop):
                best = _better(kind, best, state[row, slot])
            for slot in range(base, rest):
                best = _better(kind, best, state[row, slot])
            folded[fold] = best


@njit(inline="always", error_model="numpy")
def _better(kind: int, best: float, value: float) -> float:
    """The lesser (MIN) or greater (MAX) of two numbers; NaN is none."""
    if np.isnan(value):
        return best
    if np.isnan(best) or (value < best if kind == MIN else value > best):
        return value
    return best


@njit(inline="always", error_model="numpy")
def _output(
    outs: np.ndarray,
    state: np.ndarray,
    ints: np.ndarray,
    row: np.uintp,
    time: int,
    folded: np.ndarray,
    out: np.ndarray,
    place: int,
) -> None:
    """The aggregates of one event. What was last is unknown before its time, and missing after `within`."""
    for at in range(len(outs)):
        kind, a, b = outs[at, OUT_KIND], outs[at, OUT_A], outs[at, OUT_B]
        if kind == COPY:
            value = folded[a]
        elif kind == RATIO:
            value = folded[a] / folded[b]
        else:
            value = np.nan
            if row > 0 and ints[row, a] != UNSEEN:
                age = time - ints[row, a]
                if 0 <= age <= outs[at, OUT_WITHIN]:
                    value = state[row, b] if kind == LAST else age / 1000.0
        out[place, outs[at, OUT_COLUMN]] = value


@njit(inline="always", error_model="numpy")
def _count_late(
    banks: np.ndarray,
    folds: np.ndarray,
    bank: int,
    pane: int,
    ints: np.ndarray,
    row: np.uintp,
    late: np.ndarray,
) -> None:
    """Counts the windows of a bank for which an event that is only added comes too late."""
    newest = ints[row, banks[bank, BANK_NEWEST]]
    if newest == UNSEEN or pane > newest - banks[bank, BANK_SHORTEST]:
        return
    for fold in range(banks[bank, BANK_FOLD], banks[bank, BANK_FOLD_END]):
        if pane <= newest - folds[fold, FOLD_PANES]:
            late[fold] += 1


@njit(inline="always", error_model="numpy")
def _add(
    banks: np.ndarray,
    accs: np.ndarray,
    bank: int,
    pane: int,
    values: np.ndarray,
    event: int,
    state: np.ndarray,
    ints: np.ndarray,
    row: np.uintp,
) -> None:
    """Adds an event to its pane, emptying the panes that it opens; too late for every window, it is not."""
    size, newest = banks[bank, BANK_PANES], ints[row, banks[bank, BANK_NEWEST]]
    if newest != UNSEEN and pane <= newest - size:
        return
    if pane > newest:
        if newest != UNSEEN:
            for opened in range(max(newest + 1, pane - size + 1), pane + 1):
                slot = opened % size
                for acc in range(banks[bank, BANK_ACC], banks[bank, BANK_ACC_END]):
                    at = accs[acc, ACC_AT] + slot
                    if accs[acc, ACC_KIND] == COUNT:
                        ints[row, at] = 0
                    else:
                        state[row, at] = 0.0 if accs[acc, ACC_KIND] == SUM else np.nan
        ints[row, banks[bank, BANK_NEWEST]] = pane
    slot = pane % size
    for acc in range(banks[bank, BANK_ACC], banks[bank, BANK_ACC_END]):
        kind, field, at = accs[acc, ACC_KIND], accs[acc, ACC_FIELD], accs[acc, ACC_AT] + slot
        if field < 0:
            ints[row, at] += 1
            continue
        value = values[event, field]
        if np.isnan(value):
            continue
        if kind == COUNT:
            ints[row, at] += 1
        elif kind == SUM:
            state[row, at] += value
        else:
            state[row, at] = _better(kind, state[row, at], value)


@njit(inline="always", error_model="numpy")
def _add_latest(
    latest: np.ndarray,
    at: int,
    time: int,
    values: np.ndarray,
    event: int,
    state: np.ndarray,
    ints: np.ndarray,
    row: np.uintp,
) -> None:
    """Keeps the time and the field's value of the latest event; of equals, the later to arrive."""
    field, seen = latest[at, LATEST_FIELD], latest[at, LATEST_TIME]
    if time < ints[row, seen]:
        return
    if field < 0:
        ints[row, seen] = time
    elif not np.isnan(values[event, field]):
        ints[row, seen] = time
        state[row, latest[at, LATEST_VALUE]] = values[event, field]
