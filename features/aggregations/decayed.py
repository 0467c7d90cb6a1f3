"""Count and mean in which an event weighs half as much with every half-life that has passed since.

    weight of an event = 2^(−age / half-life),   age = max(now, newest event seen) − its event time

p: the half-life in ms. q: 0 the sum of the weights, 1 the weighted mean (missing of nothing). What is kept is as of the
newest event time seen; a read, or a newer event, lets it decay further.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from features.aggregations.algebra import Algebra

TIME, WEIGHT, TOTAL = range(3)
NEVER = -(2**63)


@njit(cache=True, error_model="numpy")
def _until(f: np.ndarray, i: np.ndarray, time: int, p: int) -> None:
    """Lets the state decay until `time`, if that is later."""
    if time <= i[TIME]:
        return
    if i[TIME] != NEVER:
        left = 2.0 ** (-(time - i[TIME]) / p)
        f[WEIGHT] *= left
        f[TOTAL] *= left
    i[TIME] = time


@njit(cache=True, error_model="numpy")
def init(f: np.ndarray, i: np.ndarray) -> None:
    i[TIME] = NEVER
    f[WEIGHT] = f[TOTAL] = 0.0


@njit(cache=True, error_model="numpy")
def add(f: np.ndarray, i: np.ndarray, value: float, time: int, p: int) -> None:
    _until(f, i, time, p)
    weight = 2.0 ** (-(i[TIME] - time) / p)
    f[WEIGHT] += weight
    f[TOTAL] += weight * value


@njit(cache=True, error_model="numpy")
def merge(f: np.ndarray, i: np.ndarray, g: np.ndarray, j: np.ndarray, p: int) -> None:
    if j[TIME] == NEVER:
        return
    _until(f, i, j[TIME], p)
    left = 2.0 ** (-(i[TIME] - j[TIME]) / p)
    f[WEIGHT] += left * g[WEIGHT]
    f[TOTAL] += left * g[TOTAL]


@njit(cache=True, error_model="numpy")
def result(f: np.ndarray, i: np.ndarray, time: int, p: int, q: int) -> float:
    if q == 1:
        return f[TOTAL] / f[WEIGHT] if f[WEIGHT] > 0 else np.nan
    if time <= i[TIME] or i[TIME] == NEVER:
        return f[WEIGHT]
    return f[WEIGHT] * 2.0 ** (-(time - i[TIME]) / p)


ALGEBRA = Algebra("decayed", 3, 1, init, add, merge, result)
