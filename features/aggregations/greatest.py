"""The largest value; NaN of nothing."""

from __future__ import annotations

import numpy as np
from numba import njit

from features.aggregations.algebra import Algebra


@njit(inline="always", error_model="numpy")
def greatest(best: float, value: float) -> float:
    """The larger of two numbers; NaN is none."""
    if np.isnan(value):
        return best
    if np.isnan(best) or value > best:
        return value
    return best


@njit(cache=True, error_model="numpy")
def init(f: np.ndarray, i: np.ndarray) -> None:
    f[0] = np.nan


@njit(cache=True, error_model="numpy")
def add(f: np.ndarray, i: np.ndarray, value: float, time: int, p: int) -> None:
    f[0] = greatest(f[0], value)


@njit(cache=True, error_model="numpy")
def merge(f: np.ndarray, i: np.ndarray, g: np.ndarray, j: np.ndarray, p: int) -> None:
    f[0] = greatest(f[0], g[0])


@njit(cache=True, error_model="numpy")
def result(f: np.ndarray, i: np.ndarray, time: int, p: int, q: int) -> float:
    return f[0]


ALGEBRA = Algebra("max", 1, 1, init, add, merge, result)
