"""What is declared to be watched for drift: signals, a detector for them, and when it may speak."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from monitors.detectors import DETECTORS
from monitors.detectors.base import Settings, SettingsError, Takes, whole
from monitors.predictions import Kinds

PLAIN: dict[str, Takes] = {"score": "number", "label": "rate", "loss": "mean", "errors": "rate"}
"""Signals that every pipeline has; the others are `feature.<name>` and `null.<name>`."""


class WatchError(ValueError):
    """A watch that cannot be: the message names the field and the mend."""


@dataclass(frozen=True, init=False)
class Watch:
    """Signals that one detector watches, each for itself.

    signals: `score`, `label` (mean label), `loss` and `errors` (of the served model), `feature.<name>`, `null.<name>`
    (share of missing values); `*` stands for any part of a name. A later watch takes the place of an earlier one with
    the same signal and detector. What a pattern matches and the detector cannot take is left out.
    detector: a name of `monitors.detectors.DETECTORS`; parameters: its own settings.
    warm_up: blocks at the beginning that bring no drift. confirm: so many blocks in a row must say it. cooldown: blocks
    after a drift that bring no other one of this signal. min_events: blocks with fewer are passed over.

    Raises WatchError.
    """

    signals: tuple[str, ...]
    detector: str
    warm_up: int
    confirm: int
    cooldown: int
    min_events: int
    settings: Settings

    def __init__(
        self,
        *signals: str,
        detector: str = "shift",
        warm_up: int = 0,
        confirm: int = 3,
        cooldown: int = 14,
        min_events: int = 50,
        **parameters: Any,
    ) -> None:
        for name, value in (
            ("signals", signals),
            ("detector", detector),
            ("warm_up", warm_up),
            ("confirm", confirm),
            ("cooldown", cooldown),
            ("min_events", min_events),
        ):
            object.__setattr__(self, name, value)
        self._check_signals()
        try:
            whole("warm_up", warm_up, 0)
            whole("confirm", confirm, 1)
            whole("cooldown", cooldown, 0)
            whole("min_events", min_events, 1)
            object.__setattr__(self, "settings", self._settings(parameters))
        except SettingsError as error:
            raise WatchError(f"{self._where}: {error}") from None
        for signal in signals:
            self._check_taken(signal)

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """All that is declared but the signals, as plain values: what an event's id is made of."""
        own = asdict(self.settings)  # type: ignore[call-overload]  # Settings are dataclasses
        return {"warm_up": self.warm_up, "confirm": self.confirm, "cooldown": self.cooldown} | {
            "min_events": self.min_events,
            **own,
        }

    @property
    def _where(self) -> str:
        return f"watch {', '.join(map(str, self.signals))}"

    def _settings(self, parameters: dict[str, Any]) -> Settings:
        made = DETECTORS.get(self.detector) if isinstance(self.detector, str) else None
        if made is None:
            raise SettingsError(
                f"detector={self.detector!r}: {_nearest(str(self.detector), DETECTORS)}; "
                f"there are {', '.join(DETECTORS)}"
            )
        known = [field.name for field in fields(made)]  # type: ignore[arg-type]  # Settings are dataclasses
        for name in parameters:
            if name not in known:
                raise SettingsError(f"{name} is no setting of {self.detector}: {_nearest(name, known)}")
        return made(**parameters)

    def _check_signals(self) -> None:
        if not self.signals:
            raise WatchError('a watch without signals: name some, like Watch("score", "feature.*")')
        for signal in self.signals:
            if not isinstance(signal, str):
                raise WatchError(f"{self._where}: signals={signal!r}: a signal is a text, like 'feature.*'")
            if not signal.startswith(("feature.", "null.")) and not _matching(signal, PLAIN):
                known = (*PLAIN, "feature.*", "null.*")
                raise WatchError(f"{self._where}: signals={signal!r}: {_nearest(signal, known)}")

    def _check_taken(self, signal: str) -> None:
        takes = "rate" if signal.startswith("null.") and "*" not in signal else PLAIN.get(signal)
        if takes is not None and takes not in self.settings.takes:
            fit = ", ".join(name for name, made in DETECTORS.items() if takes in made.takes)
            raise WatchError(f"{self._where}: detector={self.detector!r} cannot take {signal}; these can: {fit}")


def kind_of(signal: str, kinds: Kinds) -> Takes:
    """What a detector finds in a signal of a pipeline with the features `kinds`."""
    if signal.startswith("null."):
        return "rate"
    if signal.startswith("feature."):
        return kinds[signal.removeprefix("feature.")]
    return PLAIN[signal]


def watched(watches: Iterable[Watch], kinds: Kinds) -> dict[tuple[str, str], Watch]:
    """By signal and detector, the watch that holds, for a pipeline with the features `kinds`.

    Raises WatchError for a signal that names no feature, or one that its detector cannot take.
    """
    known = [*PLAIN, *(f"{what}.{name}" for what in ("feature", "null") for name in kinds)]
    found: dict[tuple[str, str], Watch] = {}
    for watch in watches:
        for pattern in watch.signals:
            signals = _matching(pattern, known)
            if not signals and "*" not in pattern:
                raise WatchError(f"{watch._where}: signals={pattern!r}: {_nearest(pattern, known)}")
            for signal in signals:
                takes = kind_of(signal, kinds)
                if takes in watch.settings.takes:
                    found[signal, watch.detector] = watch
                elif "*" not in pattern:
                    fit = ", ".join(name for name, made in DETECTORS.items() if takes in made.takes)
                    raise WatchError(
                        f"{watch._where}: detector={watch.detector!r} cannot take {signal}, a {takes}; these can: {fit}"
                    )
    return found


def _matching(pattern: str, known: Iterable[str]) -> list[str]:
    form = re.compile(".*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
    return [name for name in known if form.fullmatch(name)]


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else "there is no such one"


DEFAULT_WATCHES: Sequence[Watch] = (
    Watch("score", "feature.*", detector="psi", confirm=7),
    Watch("null.*", detector="psi", threshold=0.25),
    Watch("label", detector="shift", window=14, times=3.0, confirm=7),
    Watch("loss", detector="shift", window=14, reference_blocks=28, times=3.0, confirm=7),
)
"""What is watched where nothing is declared; how it was chosen: docs/drift.md."""
