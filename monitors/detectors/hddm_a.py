"""HDDM_A (Frías-Blanco et al. 2015): an error rate against its own past, by bounds on moving averages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from monitors.detectors.base import Detector, Takes, positive
from monitors.detectors.series import Fed, Trials


@dataclass(frozen=True, kw_only=True)
class HddmA(Fed):
    """confidence: chance of a false alarm that is allowed, for independent trials. It sees a rate rise and fall."""

    name: ClassVar[str] = "hddm_a"
    takes: ClassVar[frozenset[Takes]] = frozenset({"rate"})
    confidence: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("confidence", self.confidence, 1)

    def build(self, categories: bool = False) -> Detector:
        return _HddmA(self, self.confidence)


class _HddmA(Trials):
    def __init__(self, settings: Fed, confidence: float) -> None:
        super().__init__(settings)
        self._confidence = confidence

    def _fresh(self) -> Any:
        from river.drift.binary import HDDMA  # takes seconds to import

        make: Any = HDDMA  # river has no types for it
        return make(drift_confidence=self._confidence, warning_confidence=self._confidence, two_sided_test=True)
