"""Two stretches of blocks that are compared, and how far apart two stretches of a calm time lie anyway."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar, get_args

from monitors.detectors.base import Sample, SettingsError, Verdict, positive, side, whole

Reference = Literal["sliding", "training"]
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Settings of what compares the latest `window` blocks with `reference_blocks` blocks before them.

    reference: "sliding": the blocks just before the window, those under suspicion left out. "training": the blocks that
    were the latest when the model was promoted (or the first ones there are), until a drift or a promotion.
    times: neighbouring blocks are alike (weather, seasons), so that two stretches of them differ even when nothing has
    happened. A change must be `times` as large as what stretches of `window` blocks within the reference differ from
    the rest of it (root mean square, over stretches `step` blocks apart), and larger than the threshold.
    step: the rhythm of the blocks, 7 where they are days; `window` and `reference_blocks` are multiples of it.
    """

    window: int = 28
    reference_blocks: int = 56
    reference: Reference = "training"
    times: float = 4.0
    step: int = 7

    def __post_init__(self) -> None:
        whole("step", self.step, 1)
        whole("window", self.window, 1)
        whole("reference_blocks", self.reference_blocks, 2)
        positive("times", self.times)
        for name in ("window", "reference_blocks"):
            if getattr(self, name) % self.step:
                raise SettingsError(f"{name}={getattr(self, name)}: give a multiple of step={self.step}")
        if self.reference_blocks < 2 * self.window:
            raise SettingsError(
                f"reference_blocks={self.reference_blocks}: give at least twice window={self.window}, "
                "to tell what is usual"
            )
        if self.reference not in get_args(Reference):
            raise SettingsError(f'reference={self.reference!r}: give "sliding" or "training"')


class Windows(ABC, Generic[_T]):
    """The latest blocks against a reference; `_distance` says how far apart two stretches are.

    `_reduced` makes of each block once what `_distance` wants to know of it.
    """

    def __init__(self, settings: Compared, threshold: float) -> None:
        self._settings = settings
        self._threshold = threshold
        self._recent: deque[tuple[Sample, _T]] = deque()
        self._passed: deque[tuple[Sample, _T]] = deque(maxlen=settings.reference_blocks)
        self._usual: float | None = None
        self._refer(())
        self._beyond = 0

    def update(self, sample: Sample) -> Verdict | None:
        self._recent.append((sample, self._reduced(sample)))
        if len(self._recent) > self._settings.window:
            self._pass(self._recent.popleft())
        if len(self._reference) < self._settings.reference_blocks or len(self._recent) < self._settings.window:
            return None
        if self._usual is None:
            self._usual = self._within()
        threshold = max(self._threshold, self._settings.times * self._usual)
        found = self._distance(self._before, [what for _, what in self._recent])
        verdict = Verdict(found, threshold, self._side, side([sample for sample, _ in self._recent]))
        self._beyond = self._beyond + 1 if verdict.beyond else 0
        return verdict

    def restart(self) -> None:
        # The older part of the window may lie before the change, and is no reference for what comes.
        while len(self._recent) > self._beyond:
            self._recent.popleft()
        self._passed.clear()
        self._refer(())
        self._beyond = 0

    def promoted(self) -> None:
        if self._settings.reference == "training":
            # What it was trained on ended where it was promoted.
            self._passed.extend(self._recent)
            self._recent.clear()
            self._refer(tuple(self._passed))

    @abstractmethod
    def _reduced(self, sample: Sample) -> _T:
        """What is kept of a block."""

    @abstractmethod
    def _distance(self, before: Sequence[_T], after: Sequence[_T]) -> float:
        """How far apart they are; 0 where they are alike."""

    def _pass(self, block: tuple[Sample, _T]) -> None:
        """A block leaves the window; it is a reference for those to come unless the window is under suspicion."""
        if self._beyond and self._settings.reference == "sliding":
            return
        self._passed.append(block)
        if self._settings.reference == "sliding" or len(self._reference) < self._settings.reference_blocks:
            self._refer(tuple(self._passed))

    def _refer(self, blocks: tuple[tuple[Sample, _T], ...]) -> None:
        self._reference = blocks
        self._before = [what for _, what in blocks]
        self._side = side([sample for sample, _ in blocks])
        self._usual = None

    def _within(self) -> float:
        """How far stretches within the reference lie from the rest of it."""
        blocks, length = self._before, self._settings.window
        starts = range(0, len(blocks) - length + 1, self._settings.step)
        found = [self._distance(blocks[:at] + blocks[at + length :], blocks[at : at + length]) for at in starts]
        return math.sqrt(math.fsum(one * one for one in found) / len(found))
