"""Page–Hinkley (Page 1954): the sum of what values exceed their mean by, against its own extreme."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from monitors.detectors.base import Detector, Takes, positive
from monitors.detectors.series import Fed, Means


@dataclass(frozen=True, kw_only=True)
class PageHinkley(Fed):
    """delta: change that is tolerated, threshold: where the sum is a drift; both in standard deviations of a value."""

    name: ClassVar[str] = "page_hinkley"
    takes: ClassVar[frozenset[Takes]] = frozenset({"number", "mean", "rate"})
    delta: float = 0.5
    threshold: float = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("delta", self.delta)
        positive("threshold", self.threshold)

    def build(self, categories: bool = False) -> Detector:
        return _PageHinkley(self, self.delta, self.threshold)


class _PageHinkley(Means):
    def __init__(self, settings: Fed, delta: float, threshold: float) -> None:
        super().__init__(settings)
        self._delta, self._threshold = delta, threshold

    def _fresh(self) -> Any:
        from river.drift import PageHinkley as River  # takes seconds to import

        return River(min_instances=8, delta=self._delta, threshold=self._threshold, alpha=1.0)
