"""Kolmogorov–Smirnov: the largest gap between two distribution functions, 0 to 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from monitors.detectors.base import Detector, Sample, Takes, positive
from monitors.detectors.histograms import together
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
        return _Ks(self, self.threshold)


class _Ks(Windows):
    def _distance(self, before: Sequence[Sample], after: Sequence[Sample]) -> float:
        _, one, two = together(before, after, categories=False)
        if not one.any() or not two.any():
            return 0.0
        return float(np.max(np.abs(np.cumsum(one) - np.cumsum(two))))
