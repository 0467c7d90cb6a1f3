"""Variance and standard deviation of the values (of the population: of one value it is 0).

Welford's update and the merge of Chan, Golub and LeVeque (1983): n, mean, and the sum of squared differences from the
mean, so that large values that lie close together lose nothing.

    d = mean_b − mean_a,   mean = mean_a + d · n_b / n,   m2 = m2_a + m2_b + d² · n_a n_b / n

q: 0 variance, 1 standard deviation. Missing of nothing, and where the squares go beyond float64.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from features.aggregations.algebra import Algebra

N, MEAN, M2 = range(3)


@njit(cache=True, error_model="numpy")
def init(f: np.ndarray, i: np.ndarray) -> None:
    i[N] = 0
    f[MEAN] = f[M2] = 0.0


@njit(cache=True, error_model="numpy")
def add(f: np.ndarray, i: np.ndarray, value: float, time: int, p: int) -> None:
    i[N] += 1
    before = value - f[MEAN]
    f[MEAN] += before / i[N]
    f[M2] += before * (value - f[MEAN])


@njit(cache=True, error_model="numpy")
def merge(f: np.ndarray, i: np.ndarray, g: np.ndarray, j: np.ndarray, p: int) -> None:
    if j[N] == 0:
        return
    if i[N] == 0:
        i[N] = j[N]
        f[MEAN], f[M2] = g[MEAN], g[M2]
        return
    mine, other = float(i[N]), float(j[N])
    apart, n = g[MEAN] - f[MEAN], mine + other
    i[N] += j[N]
    f[MEAN] += apart * (other / n)
    f[M2] += g[M2] + apart * apart * (mine * other / n)


@njit(cache=True, error_model="numpy")
def result(f: np.ndarray, i: np.ndarray, time: int, p: int, q: int) -> float:
    if i[N] == 0:
        return np.nan
    variance = f[M2] / i[N]
    if not math.isfinite(variance):
        return np.nan
    return math.sqrt(variance) if q == 1 else variance


ALGEBRA = Algebra("moments", 3, 1, init, add, merge, result)
