"""Histograms of several blocks side by side, as arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monitors.detectors.base import Sample
from monitors.histogram import middle


def together(
    before: Sequence[Sample], after: Sequence[Sample], categories: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(values, before, after): float64 [k] each; the values of the bins that either has, ascending, and their shares.

    Each block counts the same, so that one with 100 times the traffic is one block still. For categories the values
    are 0 … k − 1, in the order of their names.
    """
    one, two = _shares(before), _shares(after)
    keys = sorted(one.keys() | two.keys(), key=(str if categories else int))
    values = (
        np.arange(len(keys), dtype=np.float64)
        if categories
        else middle(np.array([int(k) for k in keys], dtype=np.int64))
    )
    shares = [np.array([found.get(key, 0.0) for key in keys]) for found in (one, two)]
    return values, shares[0], shares[1]


def _shares(samples: Sequence[Sample]) -> dict[str, float]:
    total: dict[str, float] = {}
    for sample in samples:
        weight = 1 / (len(samples) * (sum(sample.bins.values()) or 1))
        for key, count in sample.bins.items():
            total[key] = total.get(key, 0.0) + count * weight
    return total
