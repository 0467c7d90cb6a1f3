"""ADWIN (Bifet, Gavaldà 2007): a window that drops its older part when the means of its parts differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from monitors.detectors.base import Detector, Takes, positive
from monitors.detectors.series import Fed, Means


@dataclass(frozen=True, kw_only=True)
class Adwin(Fed):
    """delta: chance of a false alarm that is allowed, for values without memory."""

    name: ClassVar[str] = "adwin"
    takes: ClassVar[frozenset[Takes]] = frozenset({"number", "mean", "rate"})
    delta: float = 0.002

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("delta", self.delta, 1)

    def build(self, categories: bool = False) -> Detector:
        return _Adwin(self, self.delta)


class _Adwin(Means):
    def __init__(self, settings: Fed, delta: float) -> None:
        super().__init__(settings)
        self._delta = delta

    def _fresh(self) -> Any:
        from river.drift import ADWIN  # takes seconds to import

        make: Any = ADWIN  # river has no types for it
        # Few values: it looks at each of them. Its default looks at every 32nd.
        return make(delta=self._delta, clock=1, min_window_length=2, grace_period=5)
