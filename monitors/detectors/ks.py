"""Kolmogorov–Smirnov: the largest gap between two distribution functions, 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.detectors.base import Detector, Sample, Takes, positive
from monitors.detectors.histograms import Bins
from monitors.detectors.windows import Compared, Windows


@dataclass(frozen=True, kw_only=True)
class Ks(Compared):
    """D = max |F − G| over the bins. Its p-value would take neighbours for independent; `times` does not."""

    name: ClassVar[str] = "ks"
    takes: ClassVar[frozenset[Takes]] = frozenset({"number", "rate"})
    threshold: float = 0.05
    times: float = 3.5

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("threshold", self.threshold, 1)

    def build(self, categories: bool = False) -> Detector:
        return _Ks(self)


class _Ks(Windows[np.ndarray]):
    def __init__(self, settings: Ks) -> None:
        super().__init__(settings, settings.threshold)
        self._bins = Bins()

    def _reduced(self, sample: Sample) -> np.ndarray:
        return self._bins.shares(sample)

    def _distance(self, before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> float:
        _, one, two = self._bins.together(before, after)
        if not one.any() or not two.any():
            return 0.0
        return float(np.max(np.abs(np.cumsum(one) - np.cumsum(two))))
