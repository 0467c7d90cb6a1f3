"""Histograms of several blocks side by side, as arrays of shares."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import numpy as np

from monitors.detectors.base import Sample
from monitors.histogram import middle

MOST = 4096
"""Bins that are told apart; numbers have no more. Of categories, those that come later share the places of others."""


class Bins:
    """The bins that were seen so far, and blocks as shares of them.

    Each block counts the same, so that one with 100 times the traffic is one block still.
    """

    def __init__(self, categories: bool = False) -> None:
        self._categories = categories
        self._place: dict[str, int] = {}
        self._order = np.empty(0, dtype=np.int64)
        self._values = np.empty(0)
        self._latest: tuple[Sequence[np.ndarray], np.ndarray] | None = None

    def shares(self, sample: Sample) -> np.ndarray:
        """The sample's shares of the bins there are by now, in the order in which they were first seen."""
        at = [self._at(key) for key in sample.bins]
        total = sum(sample.bins.values())
        if not total:
            return np.zeros(len(self._place))
        counts = np.array(list(sample.bins.values()), dtype=np.float64)
        found: np.ndarray = np.bincount(at, counts / total, len(self._place))
        return found

    def together(
        self, before: Sequence[np.ndarray], after: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(values, before, after): float64 [k] each: the values of all bins, ascending, and the mean shares of them.

        For categories the values are 0 … k − 1, in the order of their names.
        """
        if len(self._order) < len(self._place):
            keys = list(self._place)
            if self._categories:
                self._order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
                self._values = np.arange(len(keys), dtype=np.float64)
            else:
                numbers = np.array([int(key) for key in keys], dtype=np.int64)
                self._order = np.argsort(numbers)
                self._values = middle(numbers[self._order])
        return self._values, self._mean(before, keep=True)[self._order], self._mean(after)[self._order]

    def _at(self, key: str) -> int:
        place = self._place
        if key not in place and len(place) >= MOST:
            return crc32(key.encode("utf-8", "replace")) % MOST
        return place.setdefault(key, len(place))

    def _mean(self, rows: Sequence[np.ndarray], keep: bool = False) -> np.ndarray:
        if self._latest is not None and self._latest[0] is rows and len(self._latest[1]) == len(self._place):
            return self._latest[1]
        total = np.zeros(len(self._place))
        for row in rows:
            total[: len(row)] += row
        total /= max(len(rows), 1)
        if keep:
            self._latest = (rows, total)
        return total
