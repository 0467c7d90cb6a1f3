"""What a bench says: rows with bars, a plot, one JSON object."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

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
    charts = [
        _bars(
            "Records per second (more is better)",
            [(r.system, r.records_per_s, f"{r.records_per_s:,.0f}") for r in results],
        ),
        _bars(
            "CPU µs per record (less is better)",
            [(r.system, r.cpu_us_per_record, f"{r.cpu_us_per_record:.1f}") for r in results],
        ),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    height = 60 + 30 * len(results)
    body = "".join(f'<g transform="translate(0,{i * height})">{chart}</g>' for i, chart in enumerate(charts))
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height * len(charts)}" '
        f'font-family="sans-serif" font-size="14">{body}</svg>\n'
    )


def _bars(title: str, rows: Sequence[tuple[str, float, str]]) -> str:
    longest = max((value for _, value, _ in rows), default=1.0)
    parts = [f'<text x="10" y="25" font-weight="bold">{escape(title)}</text>']
    for i, (name, value, label) in enumerate(rows):
        y, width = 40 + 30 * i, max(1.0, 480 * value / longest)
        parts.append(
            f'<text x="120" y="{y + 16}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="130" y="{y}" width="{width:.1f}" height="22" fill="#3b6ea5"/>'
            f'<text x="{136 + width:.1f}" y="{y + 16}">{escape(label)}</text>'
        )
    return "".join(parts)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        lines = []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
