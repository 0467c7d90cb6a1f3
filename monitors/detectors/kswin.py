"""KSWIN (Raab, Heusinger, Schleif 2020): Kolmogorov–Smirnov between the latest values and earlier ones of a window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from monitors.detectors.base import Detector, SettingsError, Takes, positive, whole
from monitors.detectors.series import Fed, Means


@dataclass(frozen=True, kw_only=True)
class Kswin(Fed):
    """alpha: chance of a false alarm at each value; `window` values, of which the latest `recent` are compared.

    The earlier ones are drawn by a fixed seed: the same blocks give the same answer. After an alarm it begins anew and
    says nothing for `window` values, so that a false one is dear: alpha is small.
    """

    name: ClassVar[str] = "kswin"
    takes: ClassVar[frozenset[Takes]] = frozenset({"number", "mean", "rate"})
    alpha: float = 1e-5
    window: int = 56
    recent: int = 14
    step: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("alpha", self.alpha, 1)
        whole("recent", self.recent, 2)
        whole("window", self.window, 4)
        if self.window < 2 * self.recent:
            raise SettingsError(f"window={self.window}: give at least twice recent={self.recent}")

    def build(self, categories: bool = False) -> Detector:
        return _Kswin(self, self)


class _Kswin(Means):
    def __init__(self, settings: Fed, own: Kswin) -> None:
        super().__init__(settings)
        self._own = own

    def _fresh(self) -> Any:
        from river.drift import KSWIN  # takes seconds to import

        return KSWIN(alpha=self._own.alpha, window_size=self._own.window, stat_size=self._own.recent, seed=0)
