"""river's detectors on a series of one number a block: scaled, averaged over the rhythm, and held for confirmation.

river's detectors take a stream of many independent events; a year has 365 days, which resemble their neighbours. So
each gets the mean of `step` blocks, in standard deviations of such means.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from monitors.detectors.base import Sample, SettingsError, Verdict, side, whole

_KEPT = 400
"""Blocks that are kept to tell where a change began."""


@dataclass(frozen=True, kw_only=True)
class Fed:
    """Settings of what feeds one of river's detectors.

    learn: so many blocks tell the usual spread; the detector sees them too. step: how many blocks make one value for
    it, 7 where blocks are days with a weekly rhythm. hold: for how many blocks a change that it has told once stands,
    as long as the mean since then stays beyond the middle between before and after; `confirm` counts these.
    """

    learn: int = 56
    step: int = 7
    hold: int = 28

    def __post_init__(self) -> None:
        whole("step", self.step, 1)
        whole("learn", self.learn, 2)
        whole("hold", self.hold, 1)
        if self.learn % self.step or self.learn < 2 * self.step:
            raise SettingsError(f"learn={self.learn}: give a multiple of step={self.step}, at least twice it")


class Series(ABC):
    """Feeds what `_fresh` makes, a detector of river's."""

    def __init__(self, settings: Fed) -> None:
        self._fed = settings
        self._learning: list[Sample] | None = []
        self._group: list[float] = []
        self._since: deque[Sample] = deque(maxlen=_KEPT)
        self._split: int | None = None
        self._told = 0
        self._river: Any = None

    def update(self, sample: Sample) -> Verdict | None:
        self._since.append(sample)
        if self._learning is not None:
            self._learning.append(sample)
            if len(self._learning) < self._fed.learn:
                return None
            fed, self._learning = self._learning, None
            self._learn([value for value, *_ in fed])
            self._river = self._fresh()
            for earlier in fed:
                self._feed(earlier)
            changed = False
        else:
            changed = self._feed(sample)
        return self._hold(changed)

    def restart(self) -> None:
        kept = list(self._since)[self._split or 0 :] if self._split is not None else []
        self._since = deque(kept, maxlen=_KEPT)
        self._split = None

    def promoted(self) -> None:  # noqa: B027 - nothing to do is what it does
        """river's detectors keep no reference of the model's."""

    @abstractmethod
    def _learn(self, values: Sequence[float]) -> None:
        """Finds the usual spread of the values of the first blocks."""

    @abstractmethod
    def _fresh(self) -> Any:
        """A detector of river's."""

    @abstractmethod
    def _feed(self, sample: Sample) -> bool:
        """Gives it a block; whether it tells a change."""

    def _measure(self) -> tuple[float, float] | None:
        """(statistic, threshold) of river's detector, where it tells more than yes or no."""
        return None

    def _hold(self, changed: bool) -> Verdict:
        if changed:
            self._split, self._told = change_point([sample.value for sample in self._since]), 0
            self._measured = self._measure() or (1.0, 0.5)
        blocks = list(self._since)
        if self._split is not None:
            before, after = side(blocks[: self._split]), side(blocks[self._split :])
            self._told += 1
            latest = math.fsum(sample.value for sample in blocks[-self._told :]) / self._told
            middle = (before.mean + after.mean) / 2
            if self._told <= self._fed.hold and (changed or (latest > middle) == (after.mean > before.mean)):
                return Verdict(*self._measured, before, after)
            self._split = None
        whole_series = side(blocks)
        return Verdict(*(self._measure() or (0.0, 0.5)), whole_series, whole_series)


class Means(Series):
    """Feeds the mean of `step` blocks, in standard deviations of such means in the blocks that it learned from."""

    def _learn(self, values: Sequence[float]) -> None:
        step = self._fed.step
        self._largest = max(map(abs, values)) or 1.0
        means = [math.fsum(values[at : at + step]) / self._largest / step for at in range(0, len(values), step)]
        self._centre = math.fsum(means) / len(means)
        self._spread = max(math.sqrt(math.fsum((one - self._centre) ** 2 for one in means) / len(means)), 1e-6)

    def _feed(self, sample: Sample) -> bool:
        scaled = (sample.value / self._largest - self._centre) / self._spread
        # river squares; a value of a million standard deviations is far enough.
        self._group.append(max(-1e6, min(1e6, scaled)))
        if len(self._group) < self._fed.step:
            return False
        mean = math.fsum(self._group) / len(self._group)
        self._group = []
        self._river.update(mean)
        return bool(self._river.drift_detected)


class Trials(Series):
    """Feeds zeros and ones, as detectors of error rates want them.

    A block of n events at rate r says less than n independent trials would, for its events share their weather. It
    counts as m trials, as many as give independent trials the spread that means of `step` blocks were seen to have:
    m · step = p (1 − p) / variance. The ones are spread evenly over the m trials.
    """

    def _learn(self, values: Sequence[float]) -> None:
        step = self._fed.step
        means = [math.fsum(values[at : at + step]) / step for at in range(0, len(values), step)]
        p = min(max(math.fsum(means) / len(means), 0.0), 1.0)
        variance = math.fsum((one - p) ** 2 for one in means) / (len(means) - 1)
        self._trials = max(1, min(200, round(p * (1 - p) / variance / step))) if variance > 1e-12 else 200
        self._carry = 0.5

    def _feed(self, sample: Sample) -> bool:
        changed = False
        rate = min(max(sample.value, 0.0), 1.0)
        for _ in range(self._trials):
            self._carry += rate
            one = self._carry >= 1
            self._carry -= one
            self._river.update(one)
            changed |= bool(self._river.drift_detected)
        return changed


def change_point(values: Sequence[float]) -> int:
    """Where to cut `values` (two or more) so that the means of both parts differ most for their lengths; at least 1."""
    n = len(values)
    largest = max(map(abs, values)) or 1.0
    total = math.fsum(value / largest for value in values)
    best, cut, running = -1.0, max(n - 1, 1), 0.0
    for at in range(1, n):
        running += values[at - 1] / largest
        gap = abs(running - total * at / n) / math.sqrt(at * (n - at))
        if gap > best + 1e-12:
            best, cut = gap, at
    return cut
