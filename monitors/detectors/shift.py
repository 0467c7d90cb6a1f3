"""Shift: how far the mean of blocks has moved, in standard deviations between blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from monitors.detectors.base import Detector, Sample, Takes, positive
from monitors.detectors.windows import Compared, Windows


@dataclass(frozen=True, kw_only=True)
class Shift(Compared):
    """S = |mean after − mean before| / σ, with σ the standard deviation of the blocks' values on both sides.

    Each block counts the same. It needs no histogram: for losses, rates and whatever else is one number a block.
    """

    name: ClassVar[str] = "shift"
    takes: ClassVar[frozenset[Takes]] = frozenset({"number", "mean", "rate"})
    threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("threshold", self.threshold)

    def build(self, categories: bool = False) -> Detector:
        return _Shift(self, self.threshold)


class _Shift(Windows[float]):
    def _reduced(self, sample: Sample) -> float:
        return sample.value

    def _distance(self, before: Sequence[float], after: Sequence[float]) -> float:
        one, two = list(before), list(after)
        largest = max(map(abs, (*one, *two)))
        if not largest or min(*one, *two) == max(*one, *two):
            return 0.0
        # Scaled first: squares of the largest floats would be infinite.
        one, two = ([value / largest for value in values] for values in (one, two))
        m, k = _mean(one), _mean(two)
        spread = math.sqrt((_mean([(v - m) ** 2 for v in one]) + _mean([(v - k) ** 2 for v in two])) / 2)
        # Where blocks do not vary, a step is a hundred standard deviations, not infinite; rounding is no step.
        return abs(k - m) / max(spread, abs(k - m) / 100, 1e-12)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
