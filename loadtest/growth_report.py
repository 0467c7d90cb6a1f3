"""What a growth bench found: each point beside the base case of its axis, as rows, JSON and curves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from loadtest import charts, scrape
from loadtest.growth_points import Point, base_of
from loadtest.measure import Measured
from loadtest.report import machine

COLUMNS = (
    "axis", "", "records/s", "of base", "CPU µs/record", "of base", "inference µs", "records a round", "missed",
    "of them stored", "entities seen", "peak MB",
)  # fmt: skip


class Look(NamedTuple):
    """What a worker has counted since its start; hits and misses are at most a second old."""

    hits: float
    misses: float
    rounds: float
    records: float
    inference_s: float

    @classmethod
    def at(cls, page: str) -> Look:
        """Of the text of /metrics."""
        return cls(
            scrape.total(page, "weir_cache_hits_total"),
            scrape.total(page, "weir_cache_misses_total"),
            scrape.total(page, "weir_round_records_count"),
            scrape.total(page, "weir_round_records_sum"),
            scrape.total(page, "weir_stage_seconds_sum", 'stage="inference"'),
        )

    def __sub__(self, before: Look) -> Look:
        return Look(*(after - then for after, then in zip(self, before, strict=True)))


class Found(NamedTuple):
    """Of the measured part; peak_rss_mb and entities: since the start.

    inference_us: of wall time in inference, a record. missed: share of the records whose user was not in the cache, so
    that the store was asked; stored: share of those that the store had. entities: rows in the store.
    """

    records_per_s: float
    cpu_us_per_record: float
    peak_rss_mb: float
    inference_us: float
    round_records: float
    missed: float
    stored: float
    entities: float

    @classmethod
    def of(cls, measured: Measured, look: Look, entities: int, new_entities: int) -> Found:
        """look: what the worker counted meanwhile; new_entities: how many of `entities` came meanwhile."""
        lookups = look.hits + look.misses
        return cls(
            *measured,
            inference_us=1e6 * look.inference_s / max(look.records, 1.0),
            round_records=look.records / max(look.rounds, 1.0),
            missed=look.misses / max(lookups, 1.0),
            stored=min(1.0, max(0.0, 1.0 - new_entities / look.misses)) if look.misses else 0.0,
            entities=entities,
        )

    def spoken(self) -> str:
        return (
            f"{self.records_per_s:,.0f} records/s, {self.cpu_us_per_record:.1f} µs of CPU a record, "
            f"{self.peak_rss_mb:.0f} MB, {self.missed:.1%} missed of {self.entities:,.0f} entities"
        )


@dataclass(frozen=True)
class Growth:
    """`found` of each point, in the order of measuring; cache: the bound on rows in memory."""

    cache: int
    found: tuple[tuple[Point, Found], ...]

    def as_json(self) -> dict[str, Any]:
        """{"mode", "cache_entities", "results": [{axis, value, size, records_per_s, …, of_base}], "machine"}.

        of_base: records/s and CPU as shares of the base case's of the same axis; null where it was not measured.
        """
        return {
            "mode": "growth",
            "cache_entities": self.cache,
            "results": [
                {
                    "axis": point.axis,
                    "value": point.label,
                    "size": point.size,
                    "base": point.base,
                    **{name: round(value, 3) for name, value in found._asdict().items()},
                    "of_base": self._of_base(point, found),
                }
                for point, found in self.found
            ],
            "machine": machine(),
        }

    def as_rows(self) -> list[tuple[str, ...]]:
        """Under `COLUMNS`."""
        rows: list[tuple[str, ...]] = []
        for point, found in self.found:
            share = self._of_base(point, found)
            rows.append(
                (
                    point.axis,
                    f"{point.label}{' (base)' if point.base else ''}",
                    f"{found.records_per_s:,.0f}",
                    f"{share['records_per_s']:.2f}" if share else "",
                    f"{found.cpu_us_per_record:.1f}",
                    f"{share['cpu_us_per_record']:.2f}" if share else "",
                    f"{found.inference_us:.1f}",
                    f"{found.round_records:,.0f}",
                    f"{found.missed:.1%}",
                    f"{found.stored:.0%}" if found.missed else "",
                    f"{found.entities:,.0f}",
                    f"{found.peak_rss_mb:,.0f}",
                )
            )
        return rows

    def plot(self, path: Path) -> None:
        """An SVG: for each axis a curve of records a second, and beside it one of CPU µs a record."""
        rows = []
        for axis in dict.fromkeys(point.axis for point, _ in self.found):
            mine = [(point, found) for point, found in self.found if point.axis == axis]
            rates = [(point.size, found.records_per_s, point.label) for point, found in mine]
            costs = [(point.size, found.cpu_us_per_record, point.label) for point, found in mine]
            rows.append(
                [
                    charts.over_sizes(f"{axis}: records per second", rates),
                    charts.over_sizes(f"{axis}: CPU µs per record", costs),
                ]
            )
        charts.write(path, rows)

    def _of_base(self, point: Point, found: Found) -> dict[str, float] | None:
        of = dict(self.found)
        base = base_of(list(of), point)
        if base is None:
            return None
        names = ("records_per_s", "cpu_us_per_record")
        return {name: round(getattr(found, name) / getattr(of[base], name), 3) for name in names}
