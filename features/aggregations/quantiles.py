"""Quantiles from counts in bins of equal ratio (DDSketch) that double their width when they grow too many (UDDSketch).

At level L a bin is w = 2^L / 512 wide in the logarithm: value x > 0 lies in bin ceil(ln x / w), negative ones mirrored,
0 in its own. At most 64 bins are kept; a 65th raises the level, which joins neighbours in pairs. So what is kept
depends only on which values were seen, not on their order or on how they were cut into panes, and each value is known
to tanh(w / 2) of itself:

    level 0: 0.1 % (any values, as long as at most 64 bins hold some)
    all bins in use, largest : smallest value up to   51: 3.1 %     2,600: 6.2 %     6.9 million: 12.4 %

q: which quantile, in millionths: the value of rank floor(q · (n − 1)) of the n in order. Missing of nothing.
(Masson, Rim, Lee 2019; Epicoco et al. 2020.)
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from features.aggregations.algebra import Algebra

LEVEL, BINS, FIRST, KEPT = 0, 1, 2, 64
"""Slots: level, number of bins, then each bin in the order of its key: key · 2^32 + count."""

_PER_E = 512.0
_ZERO = 1 << 20  # key of bin 0 of the positive numbers; float64 has bins from -382,000 to 364,000 at level 0
_COUNT = (1 << 32) - 1


@njit(cache=True, error_model="numpy")
def _key(value: float, level: int) -> int:
    if value == 0.0:
        return 0
    place = math.ceil(math.log(abs(value)) * _PER_E)
    key = _ZERO + ((place + (1 << level) - 1) >> level)
    return key if value > 0 else -key


@njit(cache=True, error_model="numpy")
def _coarser(key: int) -> int:
    """The key one level up."""
    if key == 0:
        return 0
    if key > 0:
        return _ZERO + ((key - _ZERO + 1) >> 1)
    return -(_ZERO + ((-key - _ZERO + 1) >> 1))


@njit(cache=True, error_model="numpy")
def _sum_of(one: int, other: int) -> int:
    """A bin with the counts of two of its key; it stops at 2^32 − 1."""
    return (one & ~_COUNT) + min((one & _COUNT) + (other & _COUNT), _COUNT)


@njit(cache=True, error_model="numpy")
def _collapse(bins: np.ndarray, start: int, n: int) -> int:
    """Joins the n bins from `start` on in pairs, one level up; returns how many there are then."""
    made = start
    for at in range(start, start + n):
        moved = (_coarser(bins[at] >> 32) << 32) + (bins[at] & _COUNT)
        if made > start and bins[made - 1] >> 32 == moved >> 32:
            bins[made - 1] = _sum_of(bins[made - 1], moved)
        else:
            bins[made] = moved
            made += 1
    return made - start


@njit(cache=True, error_model="numpy")
def init(f: np.ndarray, i: np.ndarray) -> None:
    for at in range(FIRST + KEPT):
        i[at] = 0


@njit(cache=True, error_model="numpy")
def add(f: np.ndarray, i: np.ndarray, value: float, time: int, p: int) -> None:
    if math.isinf(value):
        return
    while True:
        key, n = _key(value, i[LEVEL]), i[BINS]
        low, high = 0, n  # the first bin whose key is not less
        while low < high:
            middle = (low + high) >> 1
            if i[FIRST + middle] >> 32 < key:
                low = middle + 1
            else:
                high = middle
        if low < n and i[FIRST + low] >> 32 == key:
            i[FIRST + low] = _sum_of(i[FIRST + low], 1)
            return
        if n < KEPT:
            for at in range(n, low, -1):
                i[FIRST + at] = i[FIRST + at - 1]
            i[FIRST + low] = (key << 32) + 1
            i[BINS] = n + 1
            return
        i[BINS] = _collapse(i, FIRST, n)
        i[LEVEL] += 1


@njit(cache=True, error_model="numpy")
def merge(f: np.ndarray, i: np.ndarray, g: np.ndarray, j: np.ndarray, p: int) -> None:
    if j[BINS] == 0:
        return
    level, n, more = max(i[LEVEL], j[LEVEL]), i[BINS], j[BINS]
    other, both = np.empty(KEPT, dtype=np.int64), np.empty(2 * KEPT, dtype=np.int64)
    for at in range(more):
        other[at] = j[FIRST + at]
    for _ in range(j[LEVEL], level):
        more = _collapse(other, 0, more)
    for _ in range(i[LEVEL], level):
        n = _collapse(i, FIRST, n)
    made = b = 0
    for a in range(n):
        mine = i[FIRST + a]
        while b < more and other[b] >> 32 < mine >> 32:
            both[made] = other[b]
            made, b = made + 1, b + 1
        if b < more and other[b] >> 32 == mine >> 32:
            mine, b = _sum_of(mine, other[b]), b + 1
        both[made] = mine
        made += 1
    for rest in range(b, more):
        both[made] = other[rest]
        made += 1
    while made > KEPT:
        made = _collapse(both, 0, made)
        level += 1
    i[LEVEL], i[BINS] = level, made
    for at in range(made):
        i[FIRST + at] = both[at]


@njit(cache=True, error_model="numpy")
def result(f: np.ndarray, i: np.ndarray, time: int, p: int, q: int) -> float:
    n = 0
    for at in range(FIRST, FIRST + i[BINS]):
        n += i[at] & _COUNT
    if n == 0:
        return np.nan
    rank, key = (n - 1) * q // 1_000_000, 0
    for at in range(FIRST, FIRST + i[BINS]):
        rank -= i[at] & _COUNT
        if rank < 0:
            key = i[at] >> 32
            break
    if key == 0:
        return 0.0
    width = float(1 << i[LEVEL]) / _PER_E
    # Between the bin's ends e^((k−1)w) and e^(kw), equally far from both as a ratio of itself: 2 e^(kw) / (1 + e^w).
    value = math.exp((abs(key) - _ZERO) * width - width - math.log1p(math.exp(-width)) + math.log(2.0))
    return value if key > 0 else -value


ALGEBRA = Algebra("quantiles", FIRST + KEPT, 1, init, add, merge, result)
