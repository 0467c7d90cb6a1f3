"""What a latency bench says: percentiles by system and rate, and what exactly once may cost."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from loadtest.report import machine

COLUMNS = (
    "records/s", "system", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "sent", "lost", "commit p99 ms", "engine p99 ms",
)  # fmt: skip
_OF_WEIR = ("commit_p99_ms", "engine_p99_ms")
ALLOWANCE_MS = 10.0
"""What exactly once may cost beyond its commits."""


class Latency(NamedTuple):
    """Milliseconds from the intended send time to the prediction in a consumer's hand."""

    p50: float
    p99: float
    p99_9: float
    max: float


class Turn(NamedTuple):
    """One system's run at one rate, in ms; the last two of Weir's own metrics, None for others.

    sent, received: records of the measured part. late_p99_ms: how late the sender itself was.
    """

    latency: Latency
    sent: int
    received: int
    duplicates: int
    late_p99_ms: float
    commit_p99_ms: float | None = None
    engine_p99_ms: float | None = None


class Result(NamedTuple):
    """All turns of a system at `rate` records per second."""

    system: str
    rate: int
    turns: tuple[Turn, ...]

    @property
    def latency(self) -> Latency:
        """Medians of the turns; the highest maximum."""
        p50, p99, p99_9, most = zip(*(turn.latency for turn in self.turns), strict=True)
        return Latency(statistics.median(p50), statistics.median(p99), statistics.median(p99_9), max(most))

    @property
    def sent(self) -> int:
        return sum(turn.sent for turn in self.turns)

    @property
    def received(self) -> int:
        return sum(turn.received for turn in self.turns)

    @property
    def lost(self) -> int:
        return self.sent - self.received

    def median(self, name: str) -> float | None:
        """Of the turns' values `name`; None where a turn has none."""
        values = [getattr(turn, name) for turn in self.turns]
        return None if None in values else statistics.median(values)


class Bound(NamedTuple):
    """The p99 that exactly once may have at `rate`: at least once's, and what its commits add."""

    rate: int
    exactly_once_p99_ms: float
    at_least_once_p99_ms: float
    commit_interval_ms: float
    commit_p99_ms: float
    allowance_ms: float = ALLOWANCE_MS

    @property
    def bound_ms(self) -> float:
        return self.at_least_once_p99_ms + self.commit_interval_ms + self.commit_p99_ms + self.allowance_ms

    @property
    def within(self) -> bool:
        return self.exactly_once_p99_ms <= self.bound_ms

    def __str__(self) -> str:
        return (
            f"exactly once at {self.rate:,} records/s: p99 {self.exactly_once_p99_ms:.1f} ms, "
            f"{'within' if self.within else 'ABOVE'} the bound of {self.bound_ms:.1f} ms = "
            f"{self.at_least_once_p99_ms:.1f} (at least once) + {self.commit_interval_ms:.0f} (commit interval) + "
            f"{self.commit_p99_ms:.1f} (p99 of a commit) + {self.allowance_ms:.0f}"
        )


def latency_of(seconds: np.ndarray) -> Latency:
    """Of float64 [n] seconds, NaN = lost and not among them; nearest rank, so that each figure was measured."""
    came = seconds[~np.isnan(seconds)] * 1e3
    if len(came) == 0:
        return Latency(math.nan, math.nan, math.nan, math.nan)
    return Latency(*np.percentile(came, (50, 99, 99.9, 100), method="inverted_cdf").tolist())


def bounds(results: Sequence[Result], commit_interval_ms: float) -> list[Bound]:
    """One for each rate at which both guarantees were measured and commits were seen."""
    by_rate: dict[int, dict[str, Result]] = {}
    for result in results:
        by_rate.setdefault(result.rate, {})[result.system] = result
    found = []
    for rate, of in by_rate.items():
        once, least = of.get("weir-exactly-once"), of.get("weir")
        commit_ms = once.median("commit_p99_ms") if once else None
        if once and least and commit_ms is not None:
            found.append(Bound(rate, once.latency.p99, least.latency.p99, commit_interval_ms, commit_ms))
    return found


def as_json(
    results: Sequence[Result], found: Sequence[Bound], *, warmup_s: float, seconds: float, load: Sequence[float]
) -> dict[str, Any]:
    """{"results", "exactly_once", "exactly_once_within_bound": bool or null if not measured, "machine", …}."""
    return {
        "mode": "latency",
        "warmup_s": warmup_s,
        "seconds": seconds,
        "results": [_result(result) for result in results],
        "exactly_once": [
            {**_rounded({**bound._asdict(), "bound_ms": bound.bound_ms}), "within": bound.within}
            for bound in found
        ],
        "exactly_once_within_bound": all(bound.within for bound in found) if found else None,
        "load_before": [round(value, 2) for value in load],
        "machine": machine(),
    }


def as_rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Rows under `COLUMNS`."""
    return [
        (
            f"{r.rate:,}",
            r.system,
            *(f"{value:,.1f}" for value in r.latency),
            f"{r.sent:,}",
            f"{r.lost:,}",
            *("" if (value := r.median(name)) is None else f"{value:.1f}" for name in _OF_WEIR),
        )
        for r in sorted(results, key=lambda r: r.rate)
    ]


def load() -> tuple[float, float, float]:
    """The machine's load averages: over 1, 5 and 15 minutes."""
    return os.getloadavg()


def _result(result: Result) -> dict[str, Any]:
    return {
        "system": result.system,
        "rate": result.rate,
        "latency_ms": _latency(result.latency),
        "sent": result.sent,
        "received": result.received,
        "lost": result.lost,
        **_rounded({name: result.median(name) for name in ("late_p99_ms", *_OF_WEIR)}),
        "rounds": [
            {"latency_ms": _latency(turn.latency), **_rounded(dict(zip(Turn._fields[1:], turn[1:], strict=True)))}
            for turn in result.turns
        ],
    }


def _latency(latency: Latency) -> dict[str, float | None]:
    """By the names that people use; null where nothing came."""
    return _rounded({name.replace("_", "."): value for name, value in latency._asdict().items()})


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers with two decimals; null for what was not measured."""
    return {name: _round(value) if isinstance(value, float) else value for name, value in values.items()}


def _round(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 2)
