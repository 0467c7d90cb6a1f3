"""Wasserstein: how far values must be moved to turn one distribution into the other, in standard deviations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.detectors.base import Detector, Sample, Takes, positive
from monitors.detectors.histograms import Bins
from monitors.detectors.windows import Compared, Windows


@dataclass(frozen=True, kw_only=True)
class Wasserstein(Compared):
    """W = ∫ |F − G| dx / σ, with σ the standard deviation of both sides together."""

    name: ClassVar[str] = "wasserstein"
    takes: ClassVar[frozenset[Takes]] = frozenset({"number", "rate"})
    threshold: float = 0.1
    times: float = 3.5

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("threshold", self.threshold)

    def build(self, categories: bool = False) -> Detector:
        return _Wasserstein(self)


class _Wasserstein(Windows[np.ndarray]):
    def __init__(self, settings: Wasserstein) -> None:
        super().__init__(settings, settings.threshold)
        self._bins = Bins()

    def _reduced(self, sample: Sample) -> np.ndarray:
        return self._bins.shares(sample)

    def _distance(self, before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> float:
        values, one, two = self._bins.together(before, after)
        if len(values) < 2 or not one.any() or not two.any():
            return 0.0
        both = (one + two) / 2
        spread = float(np.sqrt(np.sum(both * (values - np.sum(both * values)) ** 2)))
        gaps = np.abs(np.cumsum(one) - np.cumsum(two))[:-1]
        return float(np.sum(gaps * np.diff(values))) / spread if spread else 0.0
