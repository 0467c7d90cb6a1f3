"""What a pipeline says of its loop: its blocks, when it retrains, and how a new version comes into service.

All times are event time. What cannot be is refused here, with the field and the mend.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass

from models.gate import Gate
from models.promotion import Rules
from monitors.policy import Policy, matches
from streams.declared import duration_ms
from streams.errors import DeclarationError, did_you_mean

SIGNALS = ("score", "label", "loss", "errors")
"""What is watched beside the features: the score, the label, and the served versions' log loss and error rate."""


def signal_names(features: Iterable[str]) -> tuple[str, ...]:
    """All signals of a pipeline with these features: `SIGNALS`, `feature.<name>` and `null.<name>`."""
    names = list(features)
    return (*SIGNALS, *(f"feature.{name}" for name in names), *(f"null.{name}" for name in names))


def check_signals(where: str, patterns: Iterable[str], features: Iterable[str]) -> None:
    """Refuses a name or pattern (`*` stands for any part of a name) that no signal of the pipeline has."""
    known = signal_names(features)
    for pattern in patterns:
        if not any(matches(pattern, name) for name in known):
            found = did_you_mean(pattern, known) or f"; there is {', '.join(SIGNALS)}, feature.<name> and null.<name>"
            raise DeclarationError(f"{where}: no signal is called {pattern!r}{found}")


@dataclass(frozen=True)
class Blocks:
    """The stretches that statistics are taken over.

    every: their length in event time (blocks begin at its multiples since 1970), or a number of events.
    """

    every: str | int = "1d"

    def __post_init__(self) -> None:
        if isinstance(self.every, str):
            duration_ms(self.every, "blocks: every")
        else:
            _whole("blocks: every", self.every)

    @property
    def length_ms(self) -> int | None:
        return duration_ms(self.every, "blocks: every") if isinstance(self.every, str) else None

    @property
    def events(self) -> int | None:
        return None if isinstance(self.every, str) else self.every


@dataclass(frozen=True)
class Retrain:
    """When a new model is trained, and by what.

    function: "module:function", called as function(dataset: models.dataset.Dataset, out: Path, seed: int) ->
    models.trainer.Trained; None = the built-in network.
    on: the drifts that count, by signal (`*` stands for any part of a name).
    min_labels: labelled rows since the last retrain event (or since the beginning) that there must be.
    cooldown: how long after a retrain event none comes, whatever happens; None = not at all.
    max_age: a retrain event comes when there was none for so long. every: and at each multiple of this since 1970.
    budget: retrain events within any 24 hours at most. seed: of the training.
    """

    function: str | None = None
    _: KW_ONLY
    on: Sequence[str] = ("loss", "errors", "score", "label", "feature.*")
    min_labels: int = 1000
    cooldown: str | None = "7d"
    max_age: str | None = None
    every: str | None = None
    budget: int = 1
    seed: int = 7

    def __post_init__(self) -> None:
        if self.function is not None and not (
            isinstance(self.function, str) and re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", self.function)
        ):
            raise DeclarationError(f'retrain: {self.function!r} is not "module:function"')
        if isinstance(self.on, str) or not all(isinstance(signal, str) for signal in self.on):
            raise DeclarationError(f'retrain: on is a list of signals: on=["loss", "feature.*"], not {self.on!r}')
        object.__setattr__(self, "on", tuple(self.on))
        _whole("retrain: min_labels", self.min_labels)
        _whole("retrain: budget", self.budget)
        _whole("retrain: seed", self.seed, least=0)
        cooldown = self._ms("cooldown")
        for name in ("max_age", "every"):
            length = self._ms(name)
            if cooldown is not None and length is not None and length < cooldown:
                raise DeclarationError(
                    f"retrain: {name}={getattr(self, name)!r} is shorter than cooldown={self.cooldown!r}, which would "
                    f"hold it back; lengthen {name} or shorten the cooldown"
                )

    @property
    def policy(self) -> Policy:
        """When, as the fold over blocks takes it."""
        return Policy(
            on=tuple(self.on),
            min_labels=self.min_labels,
            cooldown_ms=self._ms("cooldown") or 0,
            max_age_ms=self._ms("max_age"),
            every_ms=self._ms("every"),
            budget=self.budget,
        )

    def _ms(self, name: str) -> int | None:
        text = getattr(self, name)
        return None if text is None else duration_ms(text, f"retrain: {name}")


@dataclass(frozen=True)
class Rollout:
    """How a new version becomes champion, and how it is taken back.

    rows: labelled rows that a candidate scores as a shadow before it is judged. It becomes champion when its mean log
    loss is, by the upper bound of the paired difference's interval, less than `margin` above the champion's; it is
    rejected when the lower bound is above `margin`. What is not certain after `most_rows` (default: four times rows)
    the mean decides.
    guard_rows: labelled rows after a promotion during which the former champion stays as a shadow, and comes back by
    itself when the new one is surely worse by more than `margin`, or at the end by the mean.
    confidence: of those intervals, two-sided.
    calibration: expected calibration error at most, 0 to 1. max_unscored: share of rows without a finite score at most.
    latency: of one batch of 512 rows at most.
    keep_first: the first champion stays as a shadow for ever, to compare with.
    """

    rows: int = 2000
    _: KW_ONLY
    most_rows: int | None = None
    guard_rows: int = 5000
    margin: float = 0.005
    confidence: float = 0.95
    calibration: float = 0.1
    max_unscored: float = 0.02
    latency: str = "50ms"
    keep_first: bool = False

    def __post_init__(self) -> None:
        _whole("rollout: rows", self.rows)
        _whole("rollout: guard_rows", self.guard_rows)
        if self.most_rows is not None:
            _whole("rollout: most_rows", self.most_rows)
            if self.most_rows < self.rows:
                raise DeclarationError(
                    f"rollout: most_rows={self.most_rows} is less than rows={self.rows}; make it at least as many"
                )
        _number("rollout: margin", self.margin, 0, 1, open_ended=False)
        _number("rollout: confidence", self.confidence, 0.5, 1, open_ended=True)
        _number("rollout: calibration", self.calibration, 0, 1, open_ended=False)
        _number("rollout: max_unscored", self.max_unscored, 0, 1, open_ended=False)
        duration_ms(self.latency, "rollout: latency")
        if not isinstance(self.keep_first, bool):
            raise DeclarationError(f"rollout: keep_first is True or False, not {self.keep_first!r}")

    @property
    def gate(self) -> Gate:
        """What a version must pass before it becomes a candidate."""
        return Gate(
            margin=self.margin,
            confidence=self.confidence,
            calibration=self.calibration,
            max_unscored=self.max_unscored,
            latency_s=duration_ms(self.latency, "rollout: latency") / 1000,
        )

    @property
    def rules(self) -> Rules:
        """How candidates and new champions are judged by blocks."""
        return Rules(
            rows=self.rows,
            most_rows=self.most_rows or 4 * self.rows,
            guard_rows=self.guard_rows,
            margin=self.margin,
            confidence=self.confidence,
            calibration=self.calibration,
            max_unscored=self.max_unscored,
        )


def _whole(what: str, value: object, *, least: int = 1) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise DeclarationError(f"{what} is a whole number from {least} on, not {value!r}")


def _number(what: str, value: object, low: float, high: float, *, open_ended: bool) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        fits = low < value < high if open_ended else low <= value <= high
        if fits:
            return
    between = f"a number above {low:g} and below {high:g}" if open_ended else f"a number from {low:g} to {high:g}"
    raise DeclarationError(f"{what} is {between}, not {value!r}")
