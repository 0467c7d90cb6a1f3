"""How many events in a row, up to the latest, had the same value; 0 of nothing.

The order is that of the panes, and of arrival within a pane. Two stretches join where the later one is one streak
from its beginning, and of the value that the earlier one ended with.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from features.aggregations.algebra import Algebra

N, RUN, VALUE = range(3)


@njit(cache=True, error_model="numpy")
def init(f: np.ndarray, i: np.ndarray) -> None:
    i[N] = i[RUN] = 0
    f[VALUE] = np.nan


@njit(cache=True, error_model="numpy")
def add(f: np.ndarray, i: np.ndarray, value: float, time: int, p: int) -> None:
    i[RUN] = i[RUN] + 1 if value == f[VALUE] else 1
    i[N] += 1
    f[VALUE] = value


@njit(cache=True, error_model="numpy")
def merge(f: np.ndarray, i: np.ndarray, g: np.ndarray, j: np.ndarray, p: int) -> None:
    if j[N] == 0:
        return
    joined = j[RUN] == j[N] and f[VALUE] == g[VALUE]
    i[RUN] = j[RUN] + (i[RUN] if joined else 0)
    i[N] += j[N]
    f[VALUE] = g[VALUE]


@njit(cache=True, error_model="numpy")
def result(f: np.ndarray, i: np.ndarray, time: int, p: int, q: int) -> float:
    return float(i[RUN])


ALGEBRA = Algebra("streak", 3, 1, init, add, merge, result)
