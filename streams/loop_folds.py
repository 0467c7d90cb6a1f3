"""What follows from blocks: drifts and retrain events. A fold over `<pipeline>.blocks`, made anew at a start."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple

from monitors.block import Block
from monitors.drift import DriftFold, Statistic
from monitors.loop import Drift, RetrainEvent
from monitors.policy import RetrainFold
from streams.loop_state import feature_kinds
from streams.pipeline import Pipeline


class Outcome(NamedTuple):
    """What a block brought. known: the block itself was published before."""

    block: Block
    drifts: tuple[Drift, ...] = ()
    retrains: tuple[RetrainEvent, ...] = ()
    known: bool = False


class LoopFolds:
    """Blocks in the order of their numbers → outcomes. A block that is not newer than the last changes nothing."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._drift = DriftFold(pipeline.name, pipeline.drift, feature_kinds(pipeline))
        self._retrain = (
            RetrainFold(pipeline.name, pipeline.spec.hash, pipeline.retrain.policy) if pipeline.retrain else None
        )
        self.last: Block | None = None

    def update(self, block: Block) -> Outcome:
        if self.last is not None and block.number <= self.last.number:
            return Outcome(block)
        self.last = block
        drifts = tuple(self._drift.update(block))
        return Outcome(block, drifts, tuple(self._retrain.update(block, drifts)) if self._retrain else ())

    def requested(self, event: RetrainEvent) -> None:
        """Somebody asked for a new model (reason `manual`)."""
        if self._retrain is not None:
            self._retrain.requested(event)

    def replay(
        self, found: Iterable[Block], published: Sequence[RetrainEvent], drifts: Container[str]
    ) -> Outcome | None:
        """Takes up what was published: blocks in their order, retrain events, ids of drifts. The declaration may have
        changed since: what it makes of the past counts only where it was published then.

        Returns what the last block brings by now, published or not.
        """
        ids = {event.id for event in published}
        ahead = sorted(published, key=lambda event: (event.range.to, event.id))
        blocks = list(found)
        last = None
        for block in blocks:
            if self.last is not None and block.number <= self.last.number:
                continue
            while ahead and ahead[0].range.to < block.end:
                self.requested(ahead.pop(0))
            newest = block.number == blocks[-1].number
            self.last = block
            seen = tuple(d for d in self._drift.update(block) if newest or d.id in drifts)
            retrains = self._retrain.update(block, seen, None if newest else ids) if self._retrain else ()
            last = Outcome(block, seen, tuple(retrains), known=True)
        for event in ahead:
            self.requested(event)
        return last

    def statistics(self) -> Mapping[tuple[str, str], Statistic]:
        """The latest statistic of each signal and detector."""
        return self._drift.statistics()
