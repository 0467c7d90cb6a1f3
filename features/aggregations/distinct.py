"""How many different values: exact up to 32, beyond that HyperLogLog with 256 registers.

While there are at most 32, their hashes are kept as they are; the 33rd turns them into registers (Flajolet et al. 2007,
with linear counting for small numbers). What is kept depends only on which values were seen, not on their order or on
how they were cut into panes. The standard error of the estimate is 1.04 / √256 = 6.5 %.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from features.aggregations.algebra import Algebra

N, FIRST, KEPT = 0, 1, 32
"""Slot 0: how many hashes are kept, or DENSE. Then 32 hashes, or 256 registers of a byte."""

DENSE = -1
REGISTERS, BITS = 256, 8
_ALPHA = 0.7213 / (1 + 1.079 / REGISTERS)


@njit(cache=True, error_model="numpy")
def hashed(f: np.ndarray, i: np.ndarray, value: float) -> np.int64:
    """The bits of a number, mixed (splitmix64, one to one); -0.0 is 0.0. The last slot lends its place."""
    kept = i[FIRST + KEPT]
    f[FIRST + KEPT] = value + 0.0
    x = np.uint64(i[FIRST + KEPT])
    i[FIRST + KEPT] = kept
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64(x ^ (x >> np.uint64(31)))


@njit(cache=True, error_model="numpy")
def _register(i: np.ndarray, place: int | np.int64) -> int:
    return (i[FIRST + (place >> 3)] >> ((place & 7) << 3)) & 0xFF


@njit(cache=True, error_model="numpy")
def _raise(i: np.ndarray, place: int | np.int64, rank: int) -> None:
    """Sets a register to `rank` if that is more."""
    old = _register(i, place)
    if rank > old:
        i[FIRST + (place >> 3)] += (rank - old) << ((place & 7) << 3)


@njit(cache=True, error_model="numpy")
def _count(i: np.ndarray, mixed: np.int64) -> None:
    """Counts one hash: its first bits name the register, the zeros that follow are its rank."""
    x = np.uint64(mixed)
    rest, rank = x << np.uint64(BITS), 1
    while rank <= 64 - BITS and not rest >> np.uint64(63):
        rest <<= np.uint64(1)
        rank += 1
    _raise(i, np.int64(x >> np.uint64(64 - BITS)), rank)


@njit(cache=True, error_model="numpy")
def _spread(i: np.ndarray) -> None:
    """From kept hashes to registers."""
    kept = np.empty(KEPT, dtype=np.int64)
    for at in range(KEPT):
        kept[at] = i[FIRST + at]
        i[FIRST + at] = 0
    for at in range(i[N]):
        _count(i, kept[at])
    i[N] = DENSE


@njit(cache=True, error_model="numpy")
def _take(i: np.ndarray, mixed: np.int64) -> None:
    if i[N] != DENSE:
        for at in range(FIRST, FIRST + i[N]):
            if i[at] == mixed:
                return
        if i[N] < KEPT:
            i[FIRST + i[N]] = mixed
            i[N] += 1
            return
        _spread(i)
    _count(i, mixed)


@njit(cache=True, error_model="numpy")
def init(f: np.ndarray, i: np.ndarray) -> None:
    for at in range(FIRST + KEPT + 1):
        i[at] = 0


@njit(cache=True, error_model="numpy")
def add(f: np.ndarray, i: np.ndarray, value: float, time: int, p: int) -> None:
    _take(i, hashed(f, i, value))


@njit(cache=True, error_model="numpy")
def merge(f: np.ndarray, i: np.ndarray, g: np.ndarray, j: np.ndarray, p: int) -> None:
    if j[N] != DENSE:
        for at in range(FIRST, FIRST + j[N]):
            _take(i, j[at])
        return
    if i[N] != DENSE:
        _spread(i)
    for place in range(REGISTERS):
        _raise(i, place, _register(j, place))


@njit(cache=True, error_model="numpy")
def result(f: np.ndarray, i: np.ndarray, time: int, p: int, q: int) -> float:
    if i[N] != DENSE:
        return float(i[N])
    total, empty = 0.0, 0
    for place in range(REGISTERS):
        rank = _register(i, place)
        total += 2.0**-rank
        empty += rank == 0
    estimate = _ALPHA * REGISTERS * REGISTERS / total
    if estimate <= 2.5 * REGISTERS and empty > 0:
        return REGISTERS * math.log(REGISTERS / empty)
    return estimate


ALGEBRA = Algebra("distinct", FIRST + KEPT + 1, 1, init, add, merge, result)
