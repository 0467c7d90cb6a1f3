"""Sums over numbers, scores and labels that do not depend on the order in which they come: integers all of them.

A number counts as float32. Its mantissa and the square of that are added up by exponent, so that mean and deviation
are those of the exact values, rounded once; its bin is that of `monitors.histogram`. Losses are rounded to 2**-32.

What compiled code depends on stands in this file: it is kept on disk by the file's age.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import numpy as np
from numba import njit

from monitors.block import Column

_NULLS, _LEAST, _MOST, _MOMENTS = range(4)
_BINS = _MOMENTS + 3 * 255
_ZERO = _BINS + 2039
WIDTH = _BINS + 2 * 2039 + 1
"""int64 that a column of numbers takes: nulls, least, most, 3 sums for each exponent, and the bins.

Least and most are float32 bits as rising integers, shifted by ∓2**32, so that 0 is none. An exponent's sums are of
mantissas, and of the upper and lower 24 bits of their squares: each good for 2**39 numbers.
"""

ONE = 1 << 32
"""1 in fixed point. A loss is below 2**36, so that int64 is good for 2**27 rows: more than a batch has."""

LOSS_SUMS = 6  # n, loss, brier, errors, score, label
PAIR_SUMS = 3  # n, difference, squares

_KEPT = 4


@njit(cache=True, nogil=True, error_model="numpy")
def fold(values: np.ndarray, state: np.ndarray) -> None:
    """Adds `values`, float64 [n], to a column, int64 [WIDTH]. What is not finite as float32 counts as missing."""
    exact = values.astype(np.float32).view(np.int32)
    for at in range(len(exact)):
        bits = np.int64(exact[at])
        size = bits & 0x7FFFFFFF
        if size >= 0x7F800000:
            state[_NULLS] += 1
            continue
        negative = bits < 0
        rank = -size if negative else size
        state[_LEAST] = min(state[_LEAST], rank - ONE)
        state[_MOST] = max(state[_MOST], rank + ONE)
        exponent, mantissa = size >> 23, size & 0x7FFFFF
        if exponent > 0:
            mantissa |= 0x800000
        square = mantissa * mantissa
        place = _MOMENTS + 3 * exponent
        state[place] += -mantissa if negative else mantissa
        state[place + 1] += square >> 24
        state[place + 2] += square & 0xFFFFFF
        number = size >> 20
        if number >= 8:
            state[_ZERO - number if negative else _ZERO + number] += 1
        else:
            state[_ZERO] += 1


@njit(cache=True, nogil=True, error_model="numpy")
def judge(
    scores: np.ndarray, labels: np.ndarray, versions: np.ndarray, eps: float, sums: np.ndarray, losses: np.ndarray
) -> None:
    """Log loss of each score, into losses int64 [n] in fixed point, and LOSS_SUMS for each version, int64 [v, 6].

    scores, labels: float64 [n]; versions: int32 [n], places in `sums`. A score or label outside [0, 1], NaN among
    them, and a version below 0, have no loss: −1. What happened is a label of at least 0.5; scores are kept `eps`
    away from 0 and 1 for the logarithm.
    """
    for at in range(len(scores)):
        score, label, version = scores[at], labels[at], versions[at]
        losses[at] = -1
        if version < 0 or not (0.0 <= score <= 1.0 and 0.0 <= label <= 1.0):
            continue
        p = min(max(score, eps), 1.0 - eps)
        loss = -math.log(p) if label >= 0.5 else -math.log1p(-p)
        losses[at] = _fixed(loss)
        sums[version, 0] += 1
        sums[version, 1] += losses[at]
        sums[version, 2] += _fixed((score - label) * (score - label))
        sums[version, 3] += (score >= 0.5) != (label >= 0.5)
        sums[version, 4] += _fixed(score)
        sums[version, 5] += _fixed(label)


@njit(cache=True, nogil=True, error_model="numpy")
def compare(losses: np.ndarray, served: np.ndarray, versions: np.ndarray, sums: np.ndarray) -> None:
    """PAIR_SUMS for each served version, int64 [v, 3], over the rows that have both losses (see `judge`)."""
    for at in range(len(losses)):
        if losses[at] < 0 or served[at] < 0:
            continue
        difference = losses[at] - served[at]
        real = difference / 4294967296.0
        sums[versions[at], 0] += 1
        sums[versions[at], 1] += difference
        sums[versions[at], 2] += _fixed(real * real)


@njit(inline="always", error_model="numpy")
def _fixed(value: float) -> int:
    return math.floor(value * 4294967296.0 + 0.5)


def column(state: np.ndarray) -> Column:
    """What a column, int64 [WIDTH], has added up to."""
    places = np.flatnonzero(state[_BINS:])
    counts = state[_BINS:][places].tolist()
    n, nulls = sum(counts), int(state[_NULLS])
    if not n:
        return Column(0, nulls)
    total = squares = 0  # in units of 2**-149, and of its square
    moments = state[_MOMENTS:_BINS].reshape(-1, 3)
    for exponent in np.flatnonzero(moments.any(axis=1)).tolist():
        mantissas, upper, lower = moments[exponent].tolist()
        shift = max(exponent - 1, 0)
        total += mantissas << shift
        squares += ((upper << 24) + lower) << 2 * shift
    spread = (n * squares - total * total) / ((n * n) << 298)  # integers divided: rounded once
    return Column(
        n,
        nulls,
        total / (n << 149),
        math.sqrt(spread),
        _real(int(state[_LEAST]) + ONE),
        _real(int(state[_MOST]) - ONE),
        {str(place - (_ZERO - _BINS)): count for place, count in zip(places.tolist(), counts, strict=True)},
    )


def _real(rank: int) -> float:
    size = float(np.array(abs(rank), dtype=np.int32).view(np.float32))
    return -size if rank < 0 else size


class Columns:
    """The columns of numbers of each open block: those used last as they are, the others packed, without zeros.

    columns: how many a block has.
    """

    def __init__(self, columns: int) -> None:
        self._shape = (columns, WIDTH)
        self._ready: OrderedDict[int, np.ndarray] = OrderedDict()
        self._packed: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def of(self, number: int) -> np.ndarray:
        """Those of a block, int64 [columns, WIDTH], zeros at first. To be written to before the next is asked for."""
        found = self._ready.get(number)
        if found is None:
            found = self._ready[number] = self._unpack(number)
            if len(self._ready) > _KEPT:
                oldest, cells = self._ready.popitem(last=False)
                self._packed[oldest] = _pack(cells)
        else:
            self._ready.move_to_end(number)
        return found

    def pop(self, number: int) -> np.ndarray:
        """Those of a block, which is forgotten."""
        found = self._ready.pop(number, None)
        return self._unpack(number) if found is None else found

    def snapshot(self) -> dict[int, tuple[bytes, bytes]]:
        """By block, the places that are not 0 and what stands there."""
        packed = {**self._packed, **{number: _pack(cells) for number, cells in self._ready.items()}}
        return {
            number: (places.astype("<i4").tobytes(), cells.astype("<i8").tobytes())
            for number, (places, cells) in sorted(packed.items())
        }

    def restore(self, data: dict[int, tuple[bytes, bytes]]) -> None:
        """Raises ValueError for what is no snapshot of as many columns."""
        packed = {}
        for number, (places, cells) in data.items():
            pair = np.frombuffer(places, dtype="<i4"), np.frombuffer(cells, dtype="<i8")
            outside = (pair[0] < 0) | (pair[0] >= self._shape[0] * WIDTH)
            if len(pair[0]) != len(pair[1]) or outside.any():
                raise ValueError("sums of other columns")
            packed[number] = pair
        self._ready, self._packed = OrderedDict(), packed

    def _unpack(self, number: int) -> np.ndarray:
        cells = np.zeros(self._shape, dtype=np.int64)
        if number in self._packed:
            places, values = self._packed.pop(number)
            cells.reshape(-1)[places] = values
        return cells


def _pack(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flat = cells.reshape(-1)
    places = np.flatnonzero(flat)
    return places.astype(np.int32), flat[places]
