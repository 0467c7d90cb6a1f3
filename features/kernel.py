"""The compiled walk over a round's events: one kernel for every spec, driven by the tables of a `Kind`.

It is compiled once and kept on disk. Compiled code is kept by this file's age: what it depends on must not lie in
another, so the columns of the tables are named here, beside the code that reads them. The aggregations do lie in
files of their own; a digest of these is a constant of `walk` (see `_compiled`), and constants that a function is made
with are part of the name that numba keeps it under.

The helpers on the way of count, sum, min and max are inlined: passed from function to function, the arrays cost more
than the arithmetic. Those of the other aggregations are not, for they would make the former slower.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from features import aggregations
from features.aggregations.greatest import greatest
from features.aggregations.least import least

UNSEEN = -(2**63)
"""Newest pane, or event time, of an entity that has seen none."""

COUNT, SUM, MIN, MAX = range(4)
"""Kinds of accumulator and of fold: the first of `features.aggregations.ALGEBRAS`, which have one slot. A count is an
int64; the minimum or maximum of nothing is NaN. The other kinds have several slots; their folds lie in the scratch."""

COPY, RATIO, LAST, SINCE, RATE, RESULT, LAG = range(7)
"""How an output comes about: a fold, one fold over another, the latest value, seconds since a time, a fold over the
seconds of its window, what an algebra makes of its fold, the nth latest value."""

FOLDED = (COPY, RATIO, RATE, RESULT)
"""Those whose OUT_A is a fold."""

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
ACC_KIND, ACC_FIELD, ACC_AT, ACC_SIZE, ACC_PARAM = range(5)
(
    FOLD_KIND,
    FOLD_AT,
    FOLD_PANES,  # or, of a trail, its latest events
    FOLD_SIZE,
    FOLD_PARAM,
    FOLD_TO,  # its place in the scratch
    FOLD_WITHIN,  # of a trail
) = range(7)
LATEST_FIELD, LATEST_TIME, LATEST_VALUE = range(3)
(
    SPAN_NEWEST,  # slot of the newest event time
    SPAN_WITHIN,  # ms without an event after which it begins anew
    SPAN_ACC,
    SPAN_ACC_END,
    SPAN_FOLD,
    SPAN_FOLD_END,
) = range(6)
(
    TRAIL_FIELD,
    TRAIL_SEEN,  # slot: events so far
    TRAIL_SIZE,  # events kept
    TRAIL_TIMES,  # slots: their times, event k at k modulo TRAIL_SIZE, in the order of event time
    TRAIL_VALUES,
    TRAIL_FOLD,
    TRAIL_FOLD_END,
) = range(7)
OUT_KIND, OUT_A, OUT_B, OUT_COLUMN, OUT_WITHIN = range(5)
(
    FEED_BANK,
    FEED_BANK_END,
    FEED_LATEST,
    FEED_LATEST_END,
    FEED_SPAN,
    FEED_SPAN_END,
    FEED_TRAIL,
    FEED_TRAIL_END,
) = range(8)


def _compiled(digest: int) -> Any:
    """`walk`, compiled, and kept under a name to which `digest` belongs."""

    @njit(cache=True, nogil=True, error_model="numpy")
    def walk(
        banks: np.ndarray,
        accs: np.ndarray,
        folds: np.ndarray,
        latest: np.ndarray,
        spans: np.ndarray,
        trails: np.ndarray,
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
        values float64 [n, columns] (NaN = null), places int32: the row of `out` float64 [·, aggregates] to fill,
        or -1. late int64 [folds]: counted up.
        """
        if digest < 0:  # never: named here, it is part of what compiled code is kept under
            return
        folded = np.empty(len(folds))
        scratch = np.empty(folds[-1, FOLD_TO] + folds[-1, FOLD_SIZE] if len(folds) > 0 else 0)
        notes = scratch.view(np.int64)
        panes = np.empty(len(banks), dtype=np.int64)
        for event in range(len(rows)):
            row, stream, time, place = np.uintp(rows[event]), streams[event], times[event], places[event]
            fresh = row > 0 and offsets[event] >= covered[row, stream]
            if place >= 0:
                if row > 0:
                    for bank in range(len(banks)):
                        panes[bank] = time // banks[bank, BANK_PANE_MS]
                        _fold(banks, folds, bank, panes[bank], state, ints, row, folded, scratch, notes, late)
                    for span in range(len(spans)):
                        _fold_span(spans, folds, span, time, state, ints, row, folded, scratch, notes)
                    for trail in range(len(trails)):
                        _fold_trail(trails, folds, trail, time, state, ints, row, folded, scratch, notes)
                else:
                    for fold in range(len(folds)):
                        folded[fold] = 0.0 if folds[fold, FOLD_KIND] <= SUM else np.nan
                        if folds[fold, FOLD_KIND] > MAX:
                            _begin(folds, fold, folded, scratch, notes)
                _output(outs, folds, trails, state, ints, row, time, folded, scratch, notes, out, place)
            elif fresh:
                for bank in range(feeds[stream, FEED_BANK], feeds[stream, FEED_BANK_END]):
                    panes[bank] = time // banks[bank, BANK_PANE_MS]
                    _count_late(banks, folds, bank, panes[bank], ints, row, late)
            if fresh:
                for bank in range(feeds[stream, FEED_BANK], feeds[stream, FEED_BANK_END]):
                    _add(banks, accs, bank, panes[bank], values, event, time, state, ints, row)
                    dirty[row] = 1
                for at in range(feeds[stream, FEED_LATEST], feeds[stream, FEED_LATEST_END]):
                    _add_latest(latest, at, time, values, event, state, ints, row)
                    dirty[row] = 1
                for span in range(feeds[stream, FEED_SPAN], feeds[stream, FEED_SPAN_END]):
                    _add_to_span(spans, accs, span, values, event, time, state, ints, row)
                    dirty[row] = 1
                for trail in range(feeds[stream, FEED_TRAIL], feeds[stream, FEED_TRAIL_END]):
                    _add_to_trail(trails, trail, values, event, time, state, ints, row)
                    dirty[row] = 1

    return walk


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
    scratch: np.ndarray,
    notes: np.ndarray,
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
        elif kind > MAX:
            _fold_panes(folds, fold, begin, length, size, state, ints, row, folded, scratch, notes)
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
    return least(best, value) if kind == MIN else greatest(best, value)


@njit(inline="always", error_model="numpy")
def _output(
    outs: np.ndarray,
    folds: np.ndarray,
    trails: np.ndarray,
    state: np.ndarray,
    ints: np.ndarray,
    row: np.uintp,
    time: int,
    folded: np.ndarray,
    scratch: np.ndarray,
    notes: np.ndarray,
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
        elif kind == RATE:
            value = folded[a] / (b / 1000.0)
        elif kind == RESULT:
            value = _result(folds, a, b, time, folded, scratch, notes)
        elif kind == LAG:
            value = _nth_latest(trails, a, b, outs[at, OUT_WITHIN], time, state, ints, row)
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
    time: int,
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
                    if accs[acc, ACC_KIND] > MAX:
                        _init_slots(accs, acc, slot, state, ints, row)
                    elif accs[acc, ACC_KIND] == COUNT:
                        ints[row, at] = 0
                    else:
                        state[row, at] = 0.0 if accs[acc, ACC_KIND] == SUM else np.nan
        ints[row, banks[bank, BANK_NEWEST]] = pane
    slot = pane % size
    for acc in range(banks[bank, BANK_ACC], banks[bank, BANK_ACC_END]):
        kind, field, at = accs[acc, ACC_KIND], accs[acc, ACC_FIELD], accs[acc, ACC_AT] + slot
        if kind > MAX:
            _add_to_slots(accs, acc, slot, values, event, time, state, ints, row)
            continue
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
    """Keeps the time of the latest event whose field is not null, and its value if that is wanted; of equal times,
    the later to arrive.
    """
    field, seen = latest[at, LATEST_FIELD], latest[at, LATEST_TIME]
    if time < ints[row, seen]:
        return
    if field < 0:
        ints[row, seen] = time
    elif not np.isnan(values[event, field]):
        ints[row, seen] = time
        if latest[at, LATEST_VALUE] >= 0:
            state[row, latest[at, LATEST_VALUE]] = values[event, field]


# What follows is called, not inlined: the aggregations of several slots, and the windows that are no panes.


@njit(error_model="numpy")
def _init_slots(accs: np.ndarray, acc: int, slot: int, state: np.ndarray, ints: np.ndarray, row: np.uintp) -> None:
    """Empties a pane of an accumulator."""
    size = accs[acc, ACC_SIZE]
    at = accs[acc, ACC_AT] + slot * size
    aggregations.init(accs[acc, ACC_KIND], state[row, at : at + size], ints[row, at : at + size])


@njit(error_model="numpy")
def _add_to_slots(
    accs: np.ndarray,
    acc: int,
    slot: int,
    values: np.ndarray,
    event: int,
    time: int,
    state: np.ndarray,
    ints: np.ndarray,
    row: np.uintp,
) -> None:
    """Adds an event to a pane of an accumulator, unless its field is null."""
    field, size = accs[acc, ACC_FIELD], accs[acc, ACC_SIZE]
    value = 1.0 if field < 0 else values[event, field]
    if np.isnan(value):
        return
    at = accs[acc, ACC_AT] + slot * size
    f, i = state[row, at : at + size], ints[row, at : at + size]
    aggregations.add(accs[acc, ACC_KIND], f, i, value, time, accs[acc, ACC_PARAM])


@njit(error_model="numpy")
def _begin(folds: np.ndarray, fold: int, folded: np.ndarray, scratch: np.ndarray, notes: np.ndarray) -> None:
    """A fold of nothing."""
    to = folds[fold, FOLD_TO]
    end = to + folds[fold, FOLD_SIZE]
    aggregations.init(folds[fold, FOLD_KIND], scratch[to:end], notes[to:end])
    folded[fold] = 0.0


@njit(error_model="numpy")
def _end(folds: np.ndarray, fold: int, folded: np.ndarray, scratch: np.ndarray, notes: np.ndarray) -> None:
    """Puts a fold of one slot where the folds of panes put theirs."""
    kind, to = folds[fold, FOLD_KIND], folds[fold, FOLD_TO]
    if kind <= MAX:
        folded[fold] = notes[to] if kind == COUNT else scratch[to]


@njit(error_model="numpy")
def _fold_panes(
    folds: np.ndarray,
    fold: int,
    begin: int,
    length: int,
    size: int,
    state: np.ndarray,
    ints: np.ndarray,
    row: np.uintp,
    folded: np.ndarray,
    scratch: np.ndarray,
    notes: np.ndarray,
) -> None:
    """Merges `length` panes of a ring of `size`, from slot `begin` on, into the fold's place in the scratch."""
    kind, slots, to = folds[fold, FOLD_KIND], folds[fold, FOLD_SIZE], folds[fold, FOLD_TO]
    f, i = scratch[to : to + slots], notes[to : to + slots]
    _begin(folds, fold, folded, scratch, notes)
    for pane in range(begin, begin + length):
        at = folds[fold, FOLD_AT] + pane % size * slots
        aggregations.merge(
            kind, f, i, state[row, at : at + slots], ints[row, at : at + slots], folds[fold, FOLD_PARAM]
        )


@njit(error_model="numpy")
def _fold_span(
    spans: np.ndarray,
    folds: np.ndarray,
    span: int,
    time: int,
    state: np.ndarray,
    ints: np.ndarray,
    row: np.uintp,
    folded: np.ndarray,
    scratch: np.ndarray,
    notes: np.ndarray,
) -> None:
    """The folds of all that was seen, or of nothing where the newest event is too old."""
    newest = ints[row, spans[span, SPAN_NEWEST]]
    empty = newest == UNSEEN or time - newest > spans[span, SPAN_WITHIN]
    for fold in range(spans[span, SPAN_FOLD], spans[span, SPAN_FOLD_END]):
        _begin(folds, fold, folded, scratch, notes)
        if not empty:
            at, slots, to = folds[fold, FOLD_AT], folds[fold, FOLD_SIZE], folds[fold, FOLD_TO]
            for slot in range(slots):
                notes[to + slot] = ints[row, at + slot]
        _end(folds, fold, folded, scratch, notes)


@njit(error_model="numpy")
def _add_to_span(
    spans: np.ndarray,
    accs: np.ndarray,
    span: int,
    values: np.ndarray,
    event: int,
    time: int,
    state: np.ndarray,
    ints: np.ndarray,
    row: np.uintp,
) -> None:
    """Adds an event to all that was seen; after too long a silence that begins anew."""
    newest = ints[row, spans[span, SPAN_NEWEST]]
    for acc in range(spans[span, SPAN_ACC], spans[span, SPAN_ACC_END]):
        if newest != UNSEEN and time - newest > spans[span, SPAN_WITHIN]:
            _init_slots(accs, acc, 0, state, ints, row)
        _add_to_slots(accs, acc, 0, values, event, time, state, ints, row)
    ints[row, spans[span, SPAN_NEWEST]] = max(newest, time)


@njit(error_model="numpy")
def _fold_trail(
    trails: np.ndarray,
    folds: np.ndarray,
    trail: int,
    time: int,
    state: np.ndarray,
    ints: np.ndarray,
    row: np.uintp,
    folded: np.ndarray,
    scratch: np.ndarray,
    notes: np.ndarray,
) -> None:
    """The folds of the n latest events, oldest first: of those not after `time` and not older than `within`."""
    seen, size = ints[row, trails[trail, TRAIL_SEEN]], trails[trail, TRAIL_SIZE]
    times, values = trails[trail, TRAIL_TIMES], trails[trail, TRAIL_VALUES]
    for fold in range(trails[trail, TRAIL_FOLD], trails[trail, TRAIL_FOLD_END]):
        _begin(folds, fold, folded, scratch, notes)
        kind, to = folds[fold, FOLD_KIND], folds[fold, FOLD_TO]
        end = to + folds[fold, FOLD_SIZE]
        for one in range(max(0, seen - folds[fold, FOLD_PANES]), seen):
            then = ints[row, times + one % size]
            if 0 <= time - then <= folds[fold, FOLD_WITHIN]:
                value = state[row, values + one % size]
                aggregations.add(kind, scratch[to:end], notes[to:end], value, then, folds[fold, FOLD_PARAM])
        _end(folds, fold, folded, scratch, notes)


@njit(error_model="numpy")
def _add_to_trail(
    trails: np.ndarray,
    trail: int,
    values: np.ndarray,
    event: int,
    time: int,
    state: np.ndarray,
    ints: np.ndarray,
    row: np.uintp,
) -> None:
    """Puts an event in its place among the latest, unless its field is null, or all that are kept are later."""
    field, size, seen = trails[trail, TRAIL_FIELD], trails[trail, TRAIL_SIZE], trails[trail, TRAIL_SEEN]
    value = 1.0 if field < 0 else values[event, field]
    last = ints[row, seen]
    at_times, at_values = trails[trail, TRAIL_TIMES], trails[trail, TRAIL_VALUES]
    if np.isnan(value) or (last >= size and time < ints[row, at_times + last % size]):
        return
    oldest = max(0, last - size + 1)
    place = last
    while place > oldest and ints[row, at_times + (place - 1) % size] > time:
        to, before = place % size, (place - 1) % size
        ints[row, at_times + to] = ints[row, at_times + before]
        state[row, at_values + to] = state[row, at_values + before]
        place -= 1
    ints[row, at_times + place % size] = time
    state[row, at_values + place % size] = value
    ints[row, seen] = last + 1


@njit(error_model="numpy")
def _nth_latest(
    trails: np.ndarray,
    trail: int,
    n: int,
    within: int,
    time: int,
    state: np.ndarray,
    ints: np.ndarray,
    row: np.uintp,
) -> float:
    """The value of the nth latest event; NaN where there are fewer, or it is after `time` or older than `within`."""
    seen, size = ints[row, trails[trail, TRAIL_SEEN]], trails[trail, TRAIL_SIZE]
    if row == 0 or seen < n:
        return np.nan
    place = (seen - n) % size
    age = time - ints[row, trails[trail, TRAIL_TIMES] + place]
    return state[row, trails[trail, TRAIL_VALUES] + place] if 0 <= age <= within else np.nan


@njit(error_model="numpy")
def _result(
    folds: np.ndarray, fold: int, q: int, time: int, folded: np.ndarray, scratch: np.ndarray, notes: np.ndarray
) -> float:
    """What the fold's algebra makes of it; NaN where the event is late for it."""
    if np.isnan(folded[fold]):
        return np.nan
    to = folds[fold, FOLD_TO]
    end = to + folds[fold, FOLD_SIZE]
    return aggregations.result(
        folds[fold, FOLD_KIND], scratch[to:end], notes[to:end], time, folds[fold, FOLD_PARAM], q
    )


walk = _compiled(aggregations.sources_digest())
