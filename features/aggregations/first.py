"""The value with the earliest event time; of equal times, the one that arrived first. Missing of nothing."""

from __future__ import annotations

import numpy as np
from numba import njit

from features.aggregations.algebra import Algebra

TIME, VALUE = range(2)
NEVER = 2**63 - 1


@njit(cache=True, error_model="numpy")
def init(f: np.ndarray, i: np.ndarray) -> None:
    i[TIME] = NEVER
    f[VALUE] = np.nan


@njit(cache=True, error_model="numpy")
def add(f: np.ndarray, i: np.ndarray, value: float, time: int, p: int) -> None:
    if time < i[TIME]:
        i[TIME] = time
        f[VALUE] = value


@njit(cache=True, error_model="numpy")
def merge(f: np.ndarray, i: np.ndarray, g: np.ndarray, j: np.ndarray, p: int) -> None:
    if j[TIME] < i[TIME]:
        i[TIME] = j[TIME]
        f[VALUE] = g[VALUE]


@njit(cache=True, error_model="numpy")
def result(f: np.ndarray, i: np.ndarray, time: int, p: int, q: int) -> float:
    return f[VALUE]


ALGEBRA = Algebra("first", 2, 1, init, add, merge, result)
