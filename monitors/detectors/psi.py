"""Population stability index: how much of a distribution has moved between classes, in nats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.detectors.base import Detector, Sample, Takes, positive, whole
from monitors.detectors.histograms import Bins
from monitors.detectors.windows import Compared, Windows

_LEAST = 1e-4
"""A class that is empty on one side counts as this share of it, or the index would be infinite."""


@dataclass(frozen=True, kw_only=True)
class Psi(Compared):
    """PSI = Σ (q − p) ln(q / p) over classes, of shares p before and q after.

    Numbers fall into `classes` classes of about equal share before; categories are classes, the rare ones (below 1 % on
    both sides) together. 0.1 is commonly called a small change, 0.25 a large one. It grows with the square of
    a change: `times` = 10 is what about 3 is to a distance.
    """

    name: ClassVar[str] = "psi"
    takes: ClassVar[frozenset[Takes]] = frozenset({"number", "rate", "category"})
    threshold: float = 0.1
    times: float = 10.0
    classes: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("threshold", self.threshold)
        whole("classes", self.classes, 2, 100)

    def build(self, categories: bool = False) -> Detector:
        return _Psi(self, categories)


class _Psi(Windows[np.ndarray]):
    def __init__(self, settings: Psi, categories: bool) -> None:
        super().__init__(settings, settings.threshold)
        self._classes, self._categories = settings.classes, categories
        self._bins = Bins(categories)

    def _reduced(self, sample: Sample) -> np.ndarray:
        return self._bins.shares(sample)

    def _distance(self, before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> float:
        _, one, two = self._bins.together(before, after)
        if not len(one) or not one.any() or not two.any():
            return 0.0
        if self._categories:
            place = np.where((one < 0.01) & (two < 0.01), 0, np.arange(1, len(one) + 1))
        else:
            edges = np.arange(1, self._classes) / self._classes
            place = np.searchsorted(edges, np.cumsum(one) - one / 2)
        p, q = (np.maximum(np.bincount(place, share), _LEAST) for share in (one, two))
        return float(np.sum((q - p) * np.log(q / p)))
