"""What blocks say of each signal: one sample a block, comparable from block to block."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from monitors.block import Block, Column, VersionLoss
from monitors.detectors.base import Sample
from monitors.histogram import counts

_ZERO, _ONE = "0", next(iter(counts(np.ones(1))))
_ALIKE = 0.9
"""Two versions' losses compare where at least this share of the rows of one is there of the other."""


class Changes(NamedTuple):
    """promoted: another version scores since this block. broken: another's loss is known, without a comparison."""

    promoted: bool
    broken: bool


class Signals:
    """Reads a pipeline's blocks in their order; keeps what it takes to compare one model's loss with the next one's.

    The loss (and the errors) are those of the served version: the one that most labelled rows of the block were served
    by. When another takes over, the series goes on from where it was, less what the new one does better or worse on
    the blocks that both scored; so a promotion makes no step in it. Where there is no such block it begins anew.
    """

    def __init__(self) -> None:
        self._past: deque[Mapping[str, VersionLoss]] = deque(maxlen=60)
        self._scoring: str | None = None
        self._judged: str | None = None
        self._level = {"loss": 0.0, "errors": 0.0}

    def read(self, block: Block) -> Changes:
        """Takes a block in; what changed of the versions with it. Call once a block, before `sample`."""
        self._past.append(block.versions)
        scoring = _leader(block.served, self._scoring)
        promoted, self._scoring = scoring != self._scoring, scoring
        judged = _leader({name: loss.served for name, loss in block.versions.items()}, self._judged)
        broken = False
        if judged != self._judged:
            broken = self._judged is not None and not self._chain(self._judged, judged)
            if broken:
                self._level = {"loss": 0.0, "errors": 0.0}
            self._judged = judged
        return Changes(promoted, broken)

    def sample(self, block: Block, signal: str) -> Sample | None:
        """The signal in the block last read; None where it says nothing, or nothing finite."""
        what, _, name = signal.partition(".")
        if what == "score":
            found = _numbers(block.score)
        elif what == "label":
            found = _rate(block.labels.value, block.labels.n)
        elif what == "feature":
            found = _numbers(block.features.get(name))
        elif what == "null":
            column = block.features.get(name)
            total = 0 if column is None else column.n + column.nulls
            found = _rate(column.nulls / total, total) if column is not None and total else None
        else:
            found = self._loss(block, what)
        return found if found is not None and found.n > 0 and math.isfinite(found.value) else None

    def _loss(self, block: Block, what: str) -> Sample | None:
        version = block.versions.get(self._judged) if self._judged is not None else None
        if version is None:
            return None
        value = getattr(version, what) - self._level[what]
        return Sample(value, version.n) if what == "loss" else _rate(value, version.n)

    def _chain(self, old: str, new: str | None) -> bool:
        """Carries the levels over from one version to another; False where they never scored the same rows."""
        pairs = [(past[old], past[new]) for past in self._past if new is not None and old in past and new in past]
        pairs = [(a, b) for a, b in pairs if min(a.n, b.n) > _ALIKE * max(a.n, b.n)]
        total = sum(a.n for a, _ in pairs)
        for what in self._level:
            if total:
                self._level[what] += math.fsum((getattr(b, what) - getattr(a, what)) * a.n for a, b in pairs) / total
        return total > 0


def _leader(rows: Mapping[str, int], former: str | None) -> str | None:
    """The version with more than half of the rows; the former one where there is none."""
    total = sum(rows.values())
    return next((version for version, n in sorted(rows.items()) if 2 * n > total), former)


def _numbers(column: Column | None) -> Sample | None:
    return None if column is None else Sample(column.mean, column.n, column.bins)


def _rate(value: float, n: int) -> Sample:
    if not 0 <= value <= 1:
        return Sample(value, n)
    ones = round(value * n)
    return Sample(value, n, {_ZERO: n - ones, _ONE: ones})
