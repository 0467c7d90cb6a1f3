"""How many events, or values that are not null."""

from __future__ import annotations

import numpy as np
from numba import njit

from features.aggregations.algebra import Algebra


@njit(cache=True, error_model="numpy")
def init(f: np.ndarray, i: np.ndarray) -> None:
    i[0] = 0


@njit(cache=True, error_model="numpy")
def add(f: np.ndarray, i: np.ndarray, value: float, time: int, p: int) -> None:
    i[0] += 1


@njit(cache=True, error_model="numpy")
def merge(f: np.ndarray, i: np.ndarray, g: np.ndarray, j: np.ndarray, p: int) -> None:
    i[0] += j[0]


@njit(cache=True, error_model="numpy")
def result(f: np.ndarray, i: np.ndarray, time: int, p: int, q: int) -> float:
    return float(i[0])


ALGEBRA = Algebra("count", 1, 1, init, add, merge, result)
