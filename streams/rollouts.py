"""Roll-outs: what blocks say of a candidate and of a new champion, carried out. models.promotion decides."""

from __future__ import annotations

from typing import Any, NamedTuple

import structlog

from models import rollout
from models.promotion import Decision, RolloutFold, Rules
from models.rollout import Deployment
from monitors.block import Block, Column, Paired, VersionLoss
from monitors.metrics import Metrics
from streams.pipeline import Pipeline
from streams.routing import Routing, fitting, patiently

log = structlog.get_logger(__name__)

_KINDS = {"promote": "promoted", "reject": "rejected", "roll_back": "rolled_back", "retire": "retired"}
"""What an alert calls a decision."""


class _Seen(NamedTuple):
    """What a roll-out looks at of a block: all of them are kept, to be folded anew when the routing has changed."""

    number: int
    end: int
    predictions: int
    unscored: int
    served: dict[str, int]
    score: Column
    versions: dict[str, VersionLoss]
    paired: tuple[Paired, ...]


class Rollouts:
    """Folds committed blocks in their order, and changes the routing as they say. Not for several threads.

    After a start, or when another hand has changed the routing, all blocks are folded anew (`anew`): the same blocks
    after the same deployment give the same decisions.
    """

    def __init__(self, pipeline: Pipeline, routing: Routing, metrics: Metrics) -> None:
        self._pipeline, self._routing, self._metrics = pipeline, routing, metrics
        declared = pipeline.rollout
        self._rules = declared.rules if declared else Rules()
        self._keep_first = bool(declared and declared.keep_first)
        self._blocks: list[_Seen] = []
        self._folded = 0
        self._fold = RolloutFold(self._rules, routing.current)
        self._of = routing.current

    @property
    def open(self) -> bool:
        """Whether a candidate, or a new champion under guard, is watched."""
        current = self._routing.current
        return current.champion is not None and (current.candidate is not None or current.previous is not None)

    @property
    def progress(self) -> dict[str, int]:
        """Labelled rows so far, of `candidate` and of `guard`."""
        return self._fold.progress

    @property
    def last_block(self) -> int | None:
        """The number of the last block that was dealt with."""
        return self._blocks[self._folded - 1].number if self._folded else None

    @property
    def last_end(self) -> int:
        """Where that block ends, ms of event time; −1 before the first."""
        return self._blocks[self._folded - 1].end if self._folded else -1

    def take(self, block: Block) -> None:
        """A committed block; one that is not newer than the last is left out: a monitor on the embedded broker may
        write one twice.
        """
        if self._blocks and block.number <= self._blocks[-1].number:
            return
        self._blocks.append(
            _Seen(
                block.number, block.end, block.predictions, block.unscored, block.served, block.score,
                block.versions, block.paired,
            )
        )  # fmt: skip

    def anew(self) -> None:
        """Begins again with the first block: the routing is another one."""
        self._of, self._folded = self._routing.current, 0
        self._fold = RolloutFold(self._rules, self._of)

    def decide(self) -> bool:
        """Folds the blocks that are left, up to the first that changes the routing; True when one did.

        Raises RegistryError or WeirError: call `anew` when the routing is settled, and again.
        """
        if self._of.id != self._routing.current.id:
            self._fold.deployed(self._routing.current)
            self._of = self._routing.current
        while self._folded < len(self._blocks):
            block = self._blocks[self._folded]
            decision = self._fold.update(block)
            if decision is not None:
                self._carry_out(decision, block)
            self._folded += 1
            if decision is not None:
                return True
        return False

    def _carry_out(self, decision: Decision, block: _Seen) -> None:
        kind = _KINDS[decision.action]
        following = fitting(self._following(decision), self._pipeline.spec.hash)
        self._routing.change(
            following, kind, block.end,
            version=decision.version, retrain=self._retrain_of(decision.version),
            reasons=list(decision.reasons), evidence=decision.evidence,
        )  # fmt: skip
        log.info("roll-out", decision=kind, version=decision.version, block=block.number, why=decision.reasons[0])
        if kind != "retired":
            self._metrics.inc("weir_rollouts_total", decision=kind)
        self._fold.deployed(following, block.number)
        self._of = following

    def _following(self, decision: Decision) -> Deployment:
        current = self._routing.current
        said: dict[str, Any] = {"cause": _KINDS[decision.action], "evidence": decision.evidence}
        if decision.action == "promote":
            return rollout.promote_candidate(current, **said, keep_first=self._keep_first)
        if decision.action == "reject":
            return rollout.drop(current, decision.version, **said)
        if decision.action == "roll_back":
            return rollout.roll_back_to_previous(current, **said)
        return rollout.retire_previous(current, **said)

    def _retrain_of(self, version: str) -> str | None:
        """The retrain event that a version came of."""
        for found in patiently(lambda: self._routing.registry.versions(self._pipeline.model)):
            if found.version.version == version:
                return found.lineage.get("retrain")
        return None
