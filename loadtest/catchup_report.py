"""What a catch-up came to: its rate beside the peak, its memory early and late, how soon it was on time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from loadtest import charts
from loadtest.report import machine
from loadtest.soak import MOST_GROWTH

COLUMNS = ("catch-up", "")
LEAST_OF_PEAK = 0.9
MOST_S = 10.0
"""From the end of the backlog until predictions are on time; what came meanwhile is worked off in it."""

STEADY = (0.10, 0.95)
"""The share of the backlog between which the rate is taken."""

EARLY, LATE = (0.10, 0.30), (0.75, 0.95)
"""The shares of the backlog whose memory is compared."""


class Sample(NamedTuple):
    """`time_s` after the worker's start: how much of the backlog is committed, and its resident memory."""

    time_s: float
    done: int
    rss_mb: float


@dataclass(frozen=True)
class CatchUp:
    """peak_per_s: of a closed loop just before, with nothing else going on. per_s: payments that came meanwhile.

    started_s: from the worker's start to its first commit. left: how many payments that had come meanwhile were left
    when the backlog was gone, `ended_s` after the start. on_time_s: from then until every prediction came within
    `limit_ms` for two seconds, twice what was usual before. samples: every quarter of a second.
    """

    backlog: int
    per_s: float
    peak_per_s: float
    started_s: float
    ended_s: float
    left: int
    on_time_s: float
    limit_ms: int
    samples: tuple[Sample, ...]
    predictions: int
    lost: int
    duplicated: int

    @property
    def catch_up_per_s(self) -> float:
        """Payments of the backlog a second, between `STEADY` of it; where one sample finds both behind it, between the
        one before and that.
        """
        first, last = (self._reached(share) for share in STEADY)
        if first is last:
            first = self.samples[self.samples.index(last) - 1]
        return (last.done - first.done) / max(last.time_s - first.time_s, 1e-9)

    @property
    def of_peak(self) -> float:
        return self.catch_up_per_s / self.peak_per_s

    @property
    def memory_mb(self) -> tuple[float, float]:
        """Medians of the resident memory, early in the backlog and late."""
        return self._memory(EARLY), self._memory(LATE)

    @property
    def growth(self) -> float:
        early, late = self.memory_mb
        return late / early - 1

    @property
    def whole(self) -> bool:
        """Whether every payment has one prediction."""
        return self.lost == self.duplicated == 0

    @property
    def passed(self) -> bool:
        fast, flat = self.of_peak >= LEAST_OF_PEAK, self.growth <= MOST_GROWTH
        return self.whole and fast and flat and self.on_time_s <= MOST_S

    def as_json(self) -> dict[str, Any]:
        """The fields above, rate, memory and growth, and the machine."""
        early, late = self.memory_mb
        numbers = {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(self).items()}
        return {
            "mode": "catchup",
            **numbers,
            "samples": [sample._asdict() for sample in self.samples],
            "catch_up_per_s": round(self.catch_up_per_s),
            "of_peak": round(self.of_peak, 3),
            "memory_mb": {"early": early, "late": late, "most": self._most_mb, "growth": round(self.growth, 4)},
            "passed": self.passed,
            "machine": machine(),
        }

    def as_rows(self) -> list[tuple[str, str]]:
        """Name and value of each result."""
        early, late = self.memory_mb
        memory = f"{early:.0f} MB, then {late:.0f} MB: {self.growth:+.1%}; at most {self._most_mb:.0f} MB"
        return [
            ("backlog", f"{self.backlog:,} payments, and {self.per_s:,.0f} more a second all the time"),
            ("peak before", f"{self.peak_per_s:,.0f} records/s"),
            ("catching up", f"{self.catch_up_per_s:,.0f} records/s: {self.of_peak:.2f} of the peak"),
            ("resident memory", memory),
            ("backlog gone", f"{self.ended_s:.1f} s after the start ({self.started_s:.1f} s to the first commit)"),
            ("on time", f"{self.on_time_s:.1f} s later: {self.left:,} were left that had come meanwhile"),
            ("predictions", f"{self.predictions:,}; {self.lost} lost, {self.duplicated} twice"),
            ("passed", "yes" if self.passed else "no"),
        ]

    def plot(self, path: Path) -> None:
        """An SVG of records a second and of memory over time, with the end of the backlog and being on time."""
        marks = [(self.ended_s, "backlog gone"), (self.ended_s + self.on_time_s, "on time")]
        memory = [(sample.time_s, sample.rss_mb) for sample in self.samples]
        charts.write(
            path,
            [
                [charts.over_time("Records per second while catching up", self._rates(), "s", marks)],
                [charts.over_time("Resident memory of the worker, MB", memory, "s", marks)],
            ],
        )

    @property
    def _most_mb(self) -> float:
        return max(sample.rss_mb for sample in self.samples)

    def _reached(self, share: float) -> Sample:
        return next(sample for sample in self.samples if sample.done >= share * self.backlog)

    def _memory(self, shares: tuple[float, float]) -> float:
        low, high = (share * self.backlog for share in shares)
        mine = [sample.rss_mb for sample in self.samples if low <= sample.done <= high]
        return round(median(mine or [self._reached(shares[0]).rss_mb]), 1)

    def _rates(self) -> list[tuple[float, float]]:
        """Over a second each: commits come ten times in it."""
        found, before = [], self.samples[0]
        for sample in self.samples[1:]:
            if (took_s := sample.time_s - before.time_s) >= 1.0:
                found.append((sample.time_s, (sample.done - before.done) / took_s))
                before = sample
        return found or [(before.time_s, 0.0)]
