"""The most frequent value, with 8 counters (Misra and Gries 1982; merged as by Agarwal et al. 2012).

Exact while at most 8 different values were seen. Beyond that a counter is at most n / 9 below the true count of its
value, n being the number of events: a value that leads every other by more than that is found. Of equal counts the
smallest value is taken. Missing of nothing, and where no counter is left.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from features.aggregations.algebra import Algebra

KEPT = 8
"""Slots: 8 values, then their 8 counts; a count of 0 is a free place."""


@njit(cache=True, error_model="numpy")
def _take(f: np.ndarray, i: np.ndarray, value: float, count: int) -> bool:
    """Counts into the counter of `value`, or a free one; False where there is neither."""
    free = -1
    for at in range(KEPT):
        if i[KEPT + at] == 0:
            free = at if free < 0 else free
        elif f[at] == value:
            i[KEPT + at] += count
            return True
    if free < 0:
        return False
    f[free] = value
    i[KEPT + free] = count
    return True


@njit(cache=True, error_model="numpy")
def init(f: np.ndarray, i: np.ndarray) -> None:
    for at in range(KEPT):
        f[at] = 0.0
        i[KEPT + at] = 0


@njit(cache=True, error_model="numpy")
def add(f: np.ndarray, i: np.ndarray, value: float, time: int, p: int) -> None:
    if not _take(f, i, value, 1):
        for at in range(KEPT, 2 * KEPT):
            i[at] -= 1


@njit(cache=True, error_model="numpy")
def _ninth(i: np.ndarray, over: np.ndarray) -> int:
    """The ninth largest of two sets of 8 counts: as many others are larger, or equal and before it."""
    for one in range(2 * KEPT):
        count, before = i[KEPT + one] if one < KEPT else over[one - KEPT], 0
        for two in range(2 * KEPT):
            other = i[KEPT + two] if two < KEPT else over[two - KEPT]
            before += other > count or (other == count and two < one)
        if before == KEPT:
            return count
    return 0


@njit(cache=True, error_model="numpy")
def merge(f: np.ndarray, i: np.ndarray, g: np.ndarray, j: np.ndarray, p: int) -> None:
    over, found = np.empty(KEPT, dtype=np.int64), False
    for at in range(KEPT):
        over[at] = j[KEPT + at]
        if over[at] > 0 and _take(f, i, g[at], over[at]):
            over[at] = 0
        found |= over[at] > 0
    if not found:
        return
    ninth = _ninth(i, over)  # of all counters of both; less it, at most 8 are left
    for at in range(KEPT, 2 * KEPT):
        i[at] = max(i[at] - ninth, 0)
    for at in range(KEPT):
        if over[at] > ninth:
            _take(f, i, g[at], over[at] - ninth)


@njit(cache=True, error_model="numpy")
def result(f: np.ndarray, i: np.ndarray, time: int, p: int, q: int) -> float:
    best, most = np.nan, 0
    for at in range(KEPT):
        count = i[KEPT + at]
        if count > most or (count == most and count > 0 and f[at] < best):
            best, most = f[at], count
    return best


ALGEBRA = Algebra("frequent", 2 * KEPT, 1, init, add, merge, result)
