"""What a detector is: a value of settings, and `build()`, which makes the state that sees one block after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple, Protocol

from monitors.loop import Side

Takes = Literal["number", "mean", "rate", "category"]
"""What a signal is: numbers with a histogram; the mean of numbers alone; a share, 0 to 1, of n events; categories.

The histogram of a rate has two bins, those of 0 and 1.
"""


class SettingsError(ValueError):
    """A detector's setting cannot be: the message begins with the setting's name and tells the mend."""


class Sample(NamedTuple):
    """One signal in one block: mean of n events; bins as in `monitors.block.Column`, {} where there are none."""

    value: float
    n: int
    bins: Mapping[str, int] = {}


class Verdict(NamedTuple):
    """What a detector says after a block: a change is seen where statistic > threshold (both finite).

    Of river's that say only yes or no, the statistic is 1 or 0 and the threshold 0.5.
    """

    statistic: float
    threshold: float
    before: Side
    after: Side

    @property
    def beyond(self) -> bool:
        return self.statistic > self.threshold


class Detector(Protocol):
    """The state of one signal's detector. A pure function of the samples that it was given, in their order."""

    def update(self, sample: Sample) -> Verdict | None:
        """Takes the next block's sample in. None while it knows too little to compare."""

    def restart(self) -> None:
        """A change was announced: what came since it began is what is normal from now on."""

    def promoted(self) -> None:
        """Another model is served: a reference of what the model was trained on is taken anew."""


class Settings(Protocol):
    """A detector's declared settings: a frozen dataclass, checked when it is made (SettingsError)."""

    name: ClassVar[str]
    takes: ClassVar[frozenset[Takes]]

    def build(self, categories: bool = False) -> Detector:
        """A fresh state. categories: the bins are values by name, without an order."""


def side(samples: Sequence[Sample]) -> Side:
    """The samples together: their mean, weighted by events."""
    n = sum(sample.n for sample in samples)
    mean = math.fsum(sample.value * (sample.n / n) for sample in samples) if n else 0.0
    return Side(mean, len(samples), n)


def whole(name: str, value: object, least: int, most: int | None = None) -> None:
    """Raises SettingsError unless `value` is a whole number of `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        span = f"from {least} on" if most is None else f"of {least} to {most}"
        raise SettingsError(f"{name}={value!r}: give a whole number {span}")


def positive(name: str, value: object, below: float = math.inf) -> None:
    """Raises SettingsError unless `value` is a finite number above 0 and below `below`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < below:
        span = "above 0" if below == math.inf else f"above 0 and below {below:g}"
        raise SettingsError(f"{name}={value!r}: give a number {span}")
