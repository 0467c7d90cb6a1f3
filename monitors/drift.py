"""The fold from blocks to drift events: each watched signal goes through its detector, block by block."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import NamedTuple

from monitors.block import Block
from monitors.detectors.base import Detector, Sample, Verdict
from monitors.loop import Drift, event_id
from monitors.predictions import Kinds
from monitors.signals import Signals
from monitors.watch import Watch, kind_of, watched


class Statistic(NamedTuple):
    """What a detector said after the latest block that it took."""

    statistic: float
    threshold: float


class DriftFold:
    """Folds a pipeline's blocks, in their order, into drift events. Pure: the same blocks bring the same events.

    Its state is that of its detectors and nothing else; after a restart, give it the blocks from the first one on.
    A block that is not newer than the latest one brings nothing.

    kinds: the pipeline's features. Raises WatchError for watches that do not fit them.
    """

    def __init__(self, pipeline: str, watches: Iterable[Watch], kinds: Kinds) -> None:
        self._pipeline = pipeline
        self._signals = Signals()
        self._latest: int | None = None
        self._watched = [
            _Watched(pipeline, signal, watch, categories=kind_of(signal, kinds) == "category")
            for (signal, _), watch in watched(watches, kinds).items()
        ]

    def update(self, block: Block) -> list[Drift]:
        """The drifts that the block confirms, in the order of the watches."""
        if self._latest is not None and block.number <= self._latest:
            return []
        self._latest = block.number
        changes = self._signals.read(block)
        found = []
        for one in self._watched:
            if one.signal in ("loss", "errors"):
                if changes.broken:
                    one.begin()
            elif changes.promoted:
                one.promoted()
            sample = self._signals.sample(block, one.signal)
            drift = one.update(block, sample) if sample is not None else None
            if drift is not None:
                found.append(drift)
        return found

    def statistics(self) -> dict[tuple[str, str], Statistic]:
        """By signal and detector, the latest statistic and threshold of those that know enough to tell."""
        return {
            (one.signal, one.watch.detector): Statistic(one.verdict.statistic, one.verdict.threshold)
            for one in self._watched
            if one.verdict is not None
        }


class _Watched:
    """One signal under one detector: warm-up, confirmation, cooldown."""

    def __init__(self, pipeline: str, signal: str, watch: Watch, *, categories: bool) -> None:
        self.signal = signal
        self.watch = watch
        self.verdict: Verdict | None = None
        self._pipeline = pipeline
        self._categories = categories
        self._quiet = watch.warm_up
        self.begin()

    def begin(self) -> None:
        """What was seen says nothing of what comes."""
        self._detector: Detector = self.watch.settings.build(self._categories)
        self._said: list[int] = []
        self.verdict = None

    def promoted(self) -> None:
        """Another model scores: the scores are others, the features are compared with what it was trained on."""
        if self.signal == "score":
            self.begin()
        elif self.signal != "label":
            self._detector.promoted()
            self._said = []

    def update(self, block: Block, sample: Sample) -> Drift | None:
        if sample.n < self.watch.min_events:
            return None
        self.verdict = self._detector.update(sample)
        if self._quiet > 0:
            self._quiet -= 1
            return None
        if self.verdict is None or not self.verdict.beyond:
            self._said = []
            return None
        self._said.append(block.number)
        if len(self._said) < self.watch.confirm:
            return None
        drift = self._drift(block, self.verdict, self._said[-self.watch.confirm], block.number)
        self._detector.restart()
        self._quiet = self.watch.cooldown
        self._said = []
        return drift

    def _drift(self, block: Block, verdict: Verdict, first: int, last: int) -> Drift:
        watch = self.watch
        settings = json.dumps(watch.parameters, sort_keys=True)
        return Drift(
            id=event_id(self._pipeline, self.signal, watch.detector, settings, first, last),
            pipeline=self._pipeline,
            time=block.end,
            signal=self.signal,
            detector=watch.detector,
            statistic=verdict.statistic,
            threshold=verdict.threshold,
            before=verdict.before,
            after=verdict.after,
            first=first,
            last=last,
            severity=severity(verdict),
        )


def severity(verdict: Verdict) -> float:
    """0 at the threshold, 0.5 at twice the threshold, 1 infinitely beyond: 1 − threshold / statistic."""
    if not verdict.statistic > verdict.threshold or not math.isfinite(verdict.statistic):
        return 0.0
    return 1 - verdict.threshold / verdict.statistic
