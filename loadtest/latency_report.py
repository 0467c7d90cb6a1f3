"""What a latency bench says: percentiles by system and rate, and what exactly once may cost."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from loadtest import stages
from loadtest.distribution import chart, hgrm, write_plot
from loadtest.report import machine

COLUMNS = (
    "records/s", "system", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "sent", "lost", "commit p99 ms", "engine p99 ms",
)  # fmt: skip
_OF_WEIR = ("commit_p99_ms", "engine_p99_ms")
_FIGURES = ("sent", "received", "duplicates", "late_p99_ms", "commit_p99_ms", "engine_p99_ms", "commit_p50_ms")
STALE_COLUMNS = ("records/s", "system", "lag p50 ms", "lag p99 ms", "age p50 ms", "age p99 ms")
"""What is told of a turn beside its latency."""
ALLOWANCE_MS = 10.0
"""What exactly once may cost beyond its commits."""


class Latency(NamedTuple):
    """Milliseconds from the intended send time to the prediction in a consumer's hand."""

    p50: float
    p99: float
    p99_9: float
    max: float


class Staleness(NamedTuple):
    """How old a remote group's state was for the events that read it, in ms: by event time (lag), the clock (age)."""

    lag_p50: float
    lag_p99: float
    age_p50: float
    age_p99: float


class Turn(NamedTuple):
    """One system's run at one rate, in ms; commit and engine of Weir's own metrics, None for others; stale: None where
    no remote group is read.

    sent, received: records of the measured part that can be scored. late_p99_ms: how late the sender itself was.
    came_ms: float32 [received], the latency of each; parts: of the traced ones, stage by stage, None for others.
    """

    latency: Latency
    sent: int
    received: int
    duplicates: int
    late_p99_ms: float
    commit_p99_ms: float | None = None
    engine_p99_ms: float | None = None
    commit_p50_ms: float | None = None
    stale: Staleness | None = None
    came_ms: np.ndarray = np.empty(0, np.float32)
    parts: stages.Parts | None = None


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

    @property
    def came_ms(self) -> np.ndarray:
        """float32 [received]: the latencies of all turns."""
        return np.concatenate([turn.came_ms for turn in self.turns])

    @property
    def stale(self) -> Staleness | None:
        """Medians of the turns; None where a turn has none."""
        found = [turn.stale for turn in self.turns if turn.stale is not None]
        if len(found) < len(self.turns):
            return None
        return Staleness(*map(statistics.median, zip(*found, strict=True)))

    @property
    def parts(self) -> stages.Parts | None:
        """Of the traced records of all turns, stage by stage; None where a turn has none."""
        found = [turn.parts for turn in self.turns if turn.parts is not None]
        return stages.merged(found) if len(found) == len(self.turns) else None

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
    results: Sequence[Result],
    found: Sequence[Bound],
    *,
    warmup_s: float,
    seconds: float,
    load: Sequence[float],
    shape: str = "steady",
) -> dict[str, Any]:
    """{"results", "latency_ms": {system: {rate: {"p50", "p99", "p99_9", "max"}}}, "exactly_once",
    "exactly_once_within_bound": bool or null if not measured, "machine", …}. load: the machine's, before.
    """
    return {
        "mode": "latency",
        "shape": shape,
        "warmup_s": warmup_s,
        "seconds": seconds,
        "results": [_result(result) for result in results],
        "latency_ms": {
            system: {str(r.rate): _rounded(r.latency._asdict()) for r in results if r.system == system}
            for system in dict.fromkeys(r.system for r in results)
        },
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


def stage_rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Rows under `stages.COLUMNS` of each system that was traced, and what a commit took by its metrics."""
    rows = []
    for result in sorted(results, key=lambda r: r.rate):
        if result.parts is None:
            continue
        rows += stages.as_rows(result.rate, result.system, result.parts)
        p50, p99 = result.median("commit_p50_ms"), result.median("commit_p99_ms")
        if p50 is not None and p99 is not None:
            rows.append((f"{result.rate:,}", result.system, "a commit (metrics)", f"{p50:,.2f}", f"{p99:,.2f}", ""))
    return rows


def stale_rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """Rows under `STALE_COLUMNS` of each system that read a remote group."""
    return [
        (f"{result.rate:,}", result.system, *(f"{value:,.0f}" for value in result.stale))
        for result in sorted(results, key=lambda r: r.rate)
        if result.stale is not None
    ]


def plot(results: Sequence[Result], path: Path) -> list[Path]:
    """Writes the distributions: to `path` if it ends with .svg, else to latency.svg in that folder, a chart by
    percentile for each rate; beside it, a .hgrm file for each system and rate. Returns what was written.
    """
    picture = path if path.suffix == ".svg" else path / "latency.svg"
    by_rate: dict[int, list[Result]] = {}
    for result in results:
        by_rate.setdefault(result.rate, []).append(result)
    write_plot(
        [
            chart(f"Latency by percentile at {rate:,} records/s", [(r.system, r.came_ms) for r in of])
            for rate, of in sorted(by_rate.items())
        ],
        picture,
    )
    written = [picture]
    for result in results:
        text = picture.with_name(f"{picture.stem}-{result.system}-{result.rate}.hgrm")
        text.write_text(hgrm(result.came_ms))
        written.append(text)
    return written


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
        **_rounded({name: result.median(name) for name in ("late_p99_ms", *_OF_WEIR, "commit_p50_ms")}),
        "stale_ms": None if result.stale is None else _rounded(result.stale._asdict()),
        "stages": None if result.parts is None else stages.as_json(result.parts),
        "rounds": [
            {"latency_ms": _latency(turn.latency), **_rounded({name: getattr(turn, name) for name in _FIGURES})}
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
