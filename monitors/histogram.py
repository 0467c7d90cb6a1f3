"""Bins for numbers that are the same whatever the data: made of a float32's own sign, exponent and first 3 bits.

Each power of two has 8 bins of equal width, so that a bin is at most 1/8 as wide as its lower edge, and its middle is
within 1/16 of whatever fell into it. Bin 0 holds zero and what is smaller than 2**-126. Numbers of bins rise with the
value, −2039 … 2039. Histograms merge by adding counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

LAST = 2039
"""The bin of the greatest finite float32; −LAST is that of the least."""

_BITS = 20
"""Bits of a float32 that a bin leaves open."""
_NORMAL = 8
"""The first bin above bin 0: that of 2**-126."""


def bins(values: np.ndarray) -> np.ndarray:
    """The bin of each value, int32 [n]. values: [n], taken as float32; what is not finite then has no bin.

    Raises ValueError for what has no bin.
    """
    with np.errstate(over="ignore"):
        exact = np.ascontiguousarray(values, dtype=np.float32)
    if not np.isfinite(exact).all():
        raise ValueError("a number without a bin: it is not finite as float32")
    bits = exact.view(np.int32)
    size = (bits & 0x7FFFFFFF) >> _BITS
    size[size < _NORMAL] = 0
    return np.where(bits < 0, -size, size).astype(np.int32)


def counts(values: np.ndarray) -> dict[str, int]:
    """How many of `values` [n] fell into each bin that has any, by its number as text, ascending. Not finite: none."""
    with np.errstate(over="ignore"):
        exact = np.asarray(values, dtype=np.float32)
    numbers, found = np.unique(bins(exact[np.isfinite(exact)]), return_counts=True)
    return dict(zip(map(str, numbers.tolist()), found.tolist(), strict=True))


def lower(numbers: np.ndarray) -> np.ndarray:
    """The lower edge of each bin, float64 [n]."""
    return -upper(-np.asarray(numbers))


def upper(numbers: np.ndarray) -> np.ndarray:
    """The upper edge of each bin, float64 [n]: the lower edge of the next."""
    numbers = np.asarray(numbers, dtype=np.int64)
    return np.where(numbers < 0, -_start(-numbers), _start(np.maximum(numbers + 1, _NORMAL)))


def middle(numbers: np.ndarray) -> np.ndarray:
    """What stands for the values of each bin, float64 [n]: halfway between its edges; 0 for bin 0."""
    return np.asarray((lower(numbers) + upper(numbers)) / 2)


def arrays(found: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """A histogram as (bins, counts), int64 [k] each, bins ascending. Raises ValueError for keys that are no bins."""
    pairs = sorted((int(number), count) for number, count in found.items())
    if pairs and max(-pairs[0][0], pairs[-1][0]) > LAST:
        raise ValueError(f"bins are numbered -{LAST} to {LAST}")
    numbers, amounts = zip(*pairs, strict=True) if pairs else ((), ())
    return np.array(numbers, dtype=np.int64), np.array(amounts, dtype=np.int64)


def merged(*histograms: Mapping[str, int]) -> dict[str, int]:
    """Histograms, of numbers or of categories, added up."""
    total: Counter[str] = Counter()
    for histogram in histograms:
        total.update(histogram)
    return dict(total)


def _start(numbers: np.ndarray) -> np.ndarray:
    """Where bins of positive numbers begin, float64 [n]."""
    numbers = np.maximum(numbers, _NORMAL)
    return np.asarray(np.ldexp(1 + (numbers & 7) / 8, (numbers >> 3) - 127))
