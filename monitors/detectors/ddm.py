"""DDM (Gama et al. 2004): an error rate above its lowest so far by more than chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from monitors.detectors.base import Detector, Takes, positive
from monitors.detectors.series import Fed, Trials


@dataclass(frozen=True, kw_only=True)
class Ddm(Fed):
    """threshold: in standard deviations of the rate above its lowest. It sees a rate rise, not fall."""

    name: ClassVar[str] = "ddm"
    takes: ClassVar[frozenset[Takes]] = frozenset({"rate"})
    threshold: float = 3.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("threshold", self.threshold)

    def build(self, categories: bool = False) -> Detector:
        return _Ddm(self, self.threshold)


class _Ddm(Trials):
    def __init__(self, settings: Fed, threshold: float) -> None:
        super().__init__(settings)
        self._threshold = threshold

    def _fresh(self) -> Any:
        from river.drift.binary import DDM  # takes seconds to import

        return DDM(warm_start=100, warning_threshold=min(2.0, self._threshold), drift_threshold=self._threshold)
