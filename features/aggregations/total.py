"""The sum, in float64; 0 of nothing. Beyond float64 it is infinite, and so missing to a model."""

from __future__ import annotations

import numpy as np
from numba import njit

from features.aggregations.algebra import Algebra


@njit(cache=True, error_model="numpy")
def init(f: np.ndarray, i: np.ndarray) -> None:
    f[0] = 0.0


@njit(cache=True, error_model="numpy")
def add(f: np.ndarray, i: np.ndarray, value: float, time: int, p: int) -> None:
    f[0] += value


@njit(cache=True, error_model="numpy")
def merge(f: np.ndarray, i: np.ndarray, g: np.ndarray, j: np.ndarray, p: int) -> None:
    f[0] += g[0]


@njit(cache=True, error_model="numpy")
def result(f: np.ndarray, i: np.ndarray, time: int, p: int, q: int) -> float:
    return f[0]


ALGEBRA = Algebra("sum", 1, 1, init, add, merge, result)
