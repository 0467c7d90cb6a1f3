"""HDDM_W (Frías-Blanco et al. 2015): an error rate against its own past, by bounds on weighted moving averages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from monitors.detectors.base import Detector, Takes, positive
from monitors.detectors.series import Fed, Trials


@dataclass(frozen=True, kw_only=True)
class HddmW(Fed):
    """confidence: chance of a false alarm that is allowed, for independent trials. It sees a rate rise and fall.

    weight: of the latest trial in the mean. river's default, 0.05, tells no change of a rate below about 0.4.
    """

    name: ClassVar[str] = "hddm_w"
    takes: ClassVar[frozenset[Takes]] = frozenset({"rate"})
    confidence: float = 0.0001
    weight: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("confidence", self.confidence, 1)
        positive("weight", self.weight, 1)

    def build(self, categories: bool = False) -> Detector:
        return _HddmW(self, self)


class _HddmW(Trials):
    def __init__(self, settings: Fed, own: HddmW) -> None:
        super().__init__(settings)
        self._own = own

    def _fresh(self) -> Any:
        from river.drift.binary import HDDMW  # takes seconds to import

        make: Any = HDDMW  # river has no types for it
        return make(
            drift_confidence=self._own.confidence,
            warning_confidence=self._own.confidence,
            lambda_val=self._own.weight,
            two_sided_test=True,
        )
