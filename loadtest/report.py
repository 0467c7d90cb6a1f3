"""What a bench says: rows with bars, a plot, one JSON object."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from loadtest import charts
from loadtest.jars import VERSION

BAR = 30
COLUMNS = ("system", "records/s", "CPU µs/record", "peak MB", "")


class Result(NamedTuple):
    """A system's medians: records per second, CPU µs (user + system) a record, peak resident memory in MB."""

    system: str
    records_per_s: float
    cpu_us_per_record: float
    peak_rss_mb: float


def as_json(results: Sequence[Result]) -> dict[str, Any]:
    """{"results": [{system, records_per_s, cpu_us_per_record, peak_rss_mb}], "machine": {…}}."""
    return {
        "results": [
            {
                "system": r.system,
                "records_per_s": round(r.records_per_s),
                "cpu_us_per_record": round(r.cpu_us_per_record, 2),
                "peak_rss_mb": round(r.peak_rss_mb, 1),
            }
            for r in results
        ],
        "machine": machine(),
    }


def machine() -> dict[str, Any]:
    """Where the figures come from; the broker runs on the same machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "kafka": VERSION,
    }


def as_rows(results: Sequence[Result]) -> list[tuple[str, str, str, str, str]]:
    """Rows under `COLUMNS`, the last a bar as long as the system is fast."""
    fastest = max(r.records_per_s for r in results)
    return [
        (
            r.system,
            f"{r.records_per_s:,.0f}",
            f"{r.cpu_us_per_record:.1f}",
            f"{r.peak_rss_mb:,.0f}",
            "█" * max(1, round(BAR * r.records_per_s / fastest)),
        )
        for r in results
    ]


def write_plot(results: Sequence[Result], path: Path) -> None:
    """An SVG of two bar charts: records per second, CPU µs a record."""
    rates = [(r.system, r.records_per_s, f"{r.records_per_s:,.0f}") for r in results]
    costs = [(r.system, r.cpu_us_per_record, f"{r.cpu_us_per_record:.1f}") for r in results]
    charts.write(
        path,
        [
            [charts.bars("Records per second (more is better)", rates)],
            [charts.bars("CPU µs per record (less is better)", costs)],
        ],
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        lines = []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
