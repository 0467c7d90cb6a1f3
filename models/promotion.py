"""How a candidate becomes champion and how a new champion is taken back: decided by blocks of labelled rows.

A candidate scores the champion's rows in the background; the former champion, after a promotion, its successor's.
Both are compared row by row, by the sums that blocks carry. The fold is pure: the same blocks after the same
deployment give the same decision at the same block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from models.paired import Bias, Labelled, Sums
from models.rollout import Deployment

ONE_BLOCK = 10
"""How many times the margin one block alone must show."""
LEAST_ROWS = 100
"""Labelled rows below which nothing is decided by loss."""

_NOTHING = Bias()

Action = Literal["wait", "promote", "reject", "keep", "roll_back", "retire"]


class Pair(Protocol):
    """Sums over the rows that a shadow and the served version both scored: of loss(shadow) − loss(served)."""

    @property
    def shadow(self) -> str: ...
    @property
    def served(self) -> str: ...
    @property
    def n(self) -> int: ...
    @property
    def difference(self) -> float: ...
    @property
    def squares(self) -> float: ...


class Scores(Protocol):
    """The served scores: how many, the least and the most."""

    @property
    def n(self) -> int: ...
    @property
    def least(self) -> float: ...
    @property
    def most(self) -> float: ...


class Seen(Protocol):
    """A block of the pipeline, as far as a roll-out looks at it."""

    @property
    def number(self) -> int: ...
    @property
    def predictions(self) -> int: ...
    @property
    def unscored(self) -> int: ...
    @property
    def served(self) -> Mapping[str, int]: ...
    @property
    def score(self) -> Scores: ...
    @property
    def versions(self) -> Mapping[str, Labelled]: ...
    @property
    def paired(self) -> Sequence[Pair]: ...


@dataclass(frozen=True)
class Rules:
    """When it is decided, as streams.Rollout says it. Differences are log loss a row."""

    rows: int = 2000
    most_rows: int = 8000
    guard_rows: int = 5000
    margin: float = 0.005
    confidence: float = 0.95
    calibration: float = 0.1
    max_unscored: float = 0.02


@dataclass(frozen=True)
class Decision:
    """What comes of it. version: the candidate, or the champion under guard; reasons: in words, with numbers.

    `wait` and `keep`: nothing yet. evidence: the numbers, with the block's under `block`.
    """

    action: Action
    version: str
    reasons: tuple[str, ...]
    evidence: dict[str, Any] = field(default_factory=dict)


def decide(rules: Rules, candidate: str, sums: Sums, ours: Bias = _NOTHING, theirs: Bias = _NOTHING) -> Decision:
    """wait, promote or reject. sums: loss(candidate) − loss(champion); ours, theirs: of candidate and champion.

    From `rows` rows on it is promoted where the interval's upper bound is below `margin`, rejected where the lower one
    is not, or its scores lie off the labels. What is not certain after `most_rows` the mean decides: the gate has
    found it as good before, and the guard comes after.
    """
    if sums.n < rules.rows:
        return Decision("wait", candidate, (f"{sums.n} of {rules.rows} labelled rows",))
    low, high = sums.interval(rules.confidence)
    said = _said(sums, low, high, rules.confidence, "the champion's")
    evidence = _evidence(sums, low, high, rules.margin)
    off = _off(rules, ours, theirs, "the champion's")
    if off:
        return Decision("reject", candidate, (off,), evidence)
    if high < rules.margin:
        return Decision("promote", candidate, (f"log loss {said}, surely less than {rules.margin:+.4f}",), evidence)
    if low >= rules.margin:
        return Decision("reject", candidate, (f"worse: log loss {said}; {rules.margin:+.4f} is borne",), evidence)
    if sums.n >= rules.most_rows:
        action: Action = "promote" if sums.mean < rules.margin else "reject"
        return Decision(action, candidate, (f"by the mean, for it is not certain: log loss {said}",), evidence)
    return Decision("wait", candidate, (f"not certain yet: log loss {said}",), evidence)


def guard(rules: Rules, champion: str, sums: Sums, ours: Bias = _NOTHING, theirs: Bias = _NOTHING) -> Decision:
    """keep, roll_back or retire. sums: loss(champion) − loss(previous); ours, theirs: of champion and previous.

    It is rolled back as soon as it is surely worse by `margin`, or its scores lie off the labels; after `guard_rows`
    the mean decides, and one of the two leaves. A single block does not say how blocks differ (a stormy day can make
    the better of two models the worse one): by one alone it must be worse by `ONE_BLOCK` times the margin.
    """
    if sums.n < min(LEAST_ROWS, rules.guard_rows):
        return Decision("keep", champion, (f"{sums.n} of {rules.guard_rows} labelled rows",))
    low, high = sums.lasting(rules.confidence, max(LEAST_ROWS, rules.guard_rows // 10))
    said = _said(sums, low, high, rules.confidence, "the former champion's")
    evidence = _evidence(sums, low, high, rules.margin)
    if low > rules.margin * (ONE_BLOCK if sums.blocks < 2 else 1):
        return Decision("roll_back", champion, (f"worse: log loss {said}; {rules.margin:+.4f} is borne",), evidence)
    off = _off(rules, ours, theirs, "the former champion's")
    if off:
        return Decision("roll_back", champion, (off,), evidence)
    if sums.n >= rules.guard_rows:
        if sums.mean > rules.margin:
            why = f"worse by the mean of the guard's rows: log loss {said}; {rules.margin:+.4f} is borne"
            return Decision("roll_back", champion, (why,), evidence)
        return Decision("retire", champion, (f"not shown to be worse: log loss {said}",), evidence)
    return Decision("keep", champion, (f"{sums.n} of {rules.guard_rows} labelled rows",), evidence)


class RolloutFold:
    """Blocks in the order of their numbers → what becomes of the candidate, and of the champion under guard.

    The pairs of two versions are in the blocks that they were deployed in, so the fold may begin with the first block
    there is. A block brings one decision at most: a rollback before all, then the candidate's, then the end of the
    guard. After a decision nothing comes until `deployed` tells what was made of it.

    since: the number of the block after which the deployment holds; None = its evidence's `block`, where it has one.
    """

    def __init__(self, rules: Rules, deployment: Deployment, since: int | None = None) -> None:
        self._rules = rules
        self._number: int | None = None
        self._deployment: Deployment | None = None
        self.deployed(deployment, since)

    def deployed(self, deployment: Deployment, since: int | None = None) -> None:
        """The routing is now this. What was counted stays for versions that kept their roles."""
        before, self._deployment = self._deployment, deployment
        champion = deployment.champion.version if deployment.champion else None
        served = before.champion.version if before and before.champion else None
        if before is None or (served, before.candidate) != (champion, deployment.candidate):
            self._candidate, self._candidate_bias = Sums(), (Bias(), Bias())
        if before is None or (served, before.previous) != (champion, deployment.previous):
            self._guard, self._guard_bias = Sums(), (Bias(), Bias())
            told = (deployment.evidence or {}).get("block")
            self._since = since if since is not None else told if isinstance(told, int) else None
            self._served = False
        self._decided = False

    @property
    def progress(self) -> dict[str, int]:
        """Labelled rows so far, of `candidate` and of `guard`, those that there are."""
        found = {}
        if self._deployment and self._deployment.candidate:
            found["candidate"] = self._candidate.n
        if self._deployment and self._deployment.previous:
            found["guard"] = self._guard.n
        return found

    def update(self, block: Seen) -> Decision | None:
        """What `block` brings, if anything; never `wait` or `keep`. One that is not newer than the last is left out."""
        deployment = self._deployment
        if deployment is None or (self._number is not None and block.number <= self._number):
            return None
        self._number = block.number
        if deployment.champion is None:
            return None
        champion = deployment.champion.version
        decisions = []
        if deployment.previous is not None:
            decisions.append(self._guarded(block, champion, deployment.previous))
        if deployment.candidate is not None:
            decisions.insert(0, self._judged(block, champion, deployment.candidate))
        if self._decided:
            return None
        for action in ("roll_back", "promote", "reject", "retire"):
            for decision in decisions:
                if decision.action == action:
                    self._decided = True
                    evidence = decision.evidence | {"block": block.number}
                    return Decision(decision.action, decision.version, decision.reasons, evidence)
        return None

    def _judged(self, block: Seen, champion: str, candidate: str) -> Decision:
        pair = _pair(block, candidate, champion)
        if pair is not None:
            self._candidate = self._candidate.add(pair.n, pair.difference, pair.squares)
            self._candidate_bias = _biases(self._candidate_bias, block, candidate, champion)
        return decide(self._rules, candidate, self._candidate, *self._candidate_bias)

    def _guarded(self, block: Seen, champion: str, previous: str) -> Decision:
        pair = _pair(block, previous, champion)
        if pair is not None:
            self._guard = self._guard.add(pair.n, -pair.difference, pair.squares)
            self._guard_bias = _biases(self._guard_bias, block, champion, previous)
        self._served = self._served or bool(block.served.get(champion))
        counts = self._served if self._since is None else block.number > self._since
        broken = _broken(self._rules, block, champion) if counts else None
        if broken:
            evidence = {"predictions": block.predictions, "unscored": block.unscored}
            return Decision("roll_back", champion, (broken,), evidence)
        return guard(self._rules, champion, self._guard, *self._guard_bias)


def _broken(rules: Rules, block: Seen, champion: str) -> str | None:
    """What is wrong with the scores of a block, whatever the labels."""
    if block.predictions < LEAST_ROWS:
        return None
    share = block.unscored / block.predictions
    if share > rules.max_unscored:
        return (
            f"{share:.1%} of the {block.predictions} rows of block {block.number} went out unscored; "
            f"{rules.max_unscored:.1%} are borne"
        )
    alone = set(block.served) == {champion}
    if alone and block.score.n >= LEAST_ROWS and block.score.least == block.score.most:
        return f"all {block.score.n} rows of block {block.number} got the score {block.score.least:.4f}"
    return None


def _pair(block: Seen, shadow: str, served: str) -> Pair | None:
    return next((p for p in block.paired if (p.shadow, p.served) == (shadow, served)), None)


def _biases(before: tuple[Bias, Bias], block: Seen, ours: str, theirs: str) -> tuple[Bias, Bias]:
    return before[0].add(block.versions.get(ours)), before[1].add(block.versions.get(theirs))


def _off(rules: Rules, ours: Bias, theirs: Bias, whose: str) -> str:
    if ours.n < LEAST_ROWS or ours.size <= max(rules.calibration, theirs.size):
        return ""
    return (
        f"its scores lie off the labels: mean {ours.score / ours.n:.3f}, label rate {ours.label / ours.n:.3f}; "
        f"{rules.calibration:.3f} apart is borne, {whose} are {theirs.size:.3f} apart"
    )


def _said(sums: Sums, low: float, high: float, confidence: float, whose: str) -> str:
    return (
        f"{sums.mean:+.4f} a row against {whose} on {sums.n} rows, {confidence:.0%} interval {low:+.4f} to {high:+.4f}"
    )


def _evidence(sums: Sums, low: float, high: float, margin: float) -> dict[str, Any]:
    numbers = {"difference": sums.mean, "low": low, "high": high}
    return {"rows": sums.n, "blocks": sums.blocks, **{k: round(v, 6) for k, v in numbers.items()}, "margin": margin}
