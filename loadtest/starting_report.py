"""What starts and memory came to: each moment's median, the bytes of an entity."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

from loadtest import charts
from loadtest.report import machine

COLUMNS = ("kernels", "start", "process", "model", "group", "ready", "first prediction")
MEMORY_COLUMNS = ("cache bound", "entities seen", "rows in memory", "MB", "peak MB", "bytes an entity", "bytes a row")
MOST_S = 4.0
MOST_MB = 400.0

Kernels = Literal["cached", "compiled"]


class Start(NamedTuple):
    """Seconds since the process was started until it listens, its model is loaded, Kafka has given it all partitions,
    their state is there, and a consumer of committed records has its first prediction.
    """

    process_s: float
    model_s: float
    group_s: float
    ready_s: float
    first_s: float


class Memory(NamedTuple):
    """Of a worker with a cache bound of `bound` rows that has seen `entities`, of which `rows` are in memory."""

    bound: int
    entities: int
    rows: int
    rss_mb: float
    peak_mb: float


@dataclass(frozen=True)
class Starting:
    """starts: by whether the compiled kernels lay on disk. few: the memory with next to no entities."""

    starts: dict[Kernels, tuple[Start, ...]]
    few: Memory
    bounded: Memory
    unbounded: Memory

    def median(self, kernels: Kernels) -> Start:
        """Of each moment."""
        return Start(*(median(values) for values in zip(*self.starts[kernels], strict=True)))

    def bytes_per(self, memory: Memory, count: int) -> float:
        """What the memory beyond `few`'s is for each of `count`."""
        return (memory.rss_mb - self.few.rss_mb) * 2**20 / max(count, 1)

    @property
    def passed(self) -> bool:
        return self.median("cached").first_s < MOST_S and self.bounded.peak_mb < MOST_MB

    def as_json(self) -> dict[str, Any]:
        return {
            "mode": "start",
            "starts": {kernels: [_rounded(start) for start in starts] for kernels, starts in self.starts.items()},
            "medians": {kernels: _rounded(self.median(kernels)) for kernels in self.starts},
            "memory": {
                name: {
                    **_rounded(memory),
                    "bytes_per_entity": round(self.bytes_per(memory, memory.entities)),
                    "bytes_per_row": round(self.bytes_per(memory, memory.rows)),
                }
                for name, memory in (("few", self.few), ("bounded", self.bounded), ("unbounded", self.unbounded))
            },
            "first_prediction_within_s": MOST_S,
            "peak_below_mb": MOST_MB,
            "passed": self.passed,
            "machine": machine(),
        }

    def as_rows(self) -> list[tuple[str, ...]]:
        """Under `COLUMNS`: seconds since the start of the process."""
        rows = []
        for kernels, starts in self.starts.items():
            rows += [_row(kernels, str(number), start) for number, start in enumerate(starts, 1)]
            rows.append(_row(kernels, "median", self.median(kernels)))
        return rows

    def memory_rows(self) -> list[tuple[str, ...]]:
        """Under `MEMORY_COLUMNS`."""
        rows = []
        for memory in (self.few, self.bounded, self.unbounded):
            per = ["", ""]
            if memory is not self.few:
                per = [f"{self.bytes_per(memory, count):,.0f}" for count in (memory.entities, memory.rows)]
            numbers = (memory.bound, memory.entities, memory.rows, memory.rss_mb, memory.peak_mb)
            rows.append((*(f"{number:,.0f}" for number in numbers), *per))
        return rows

    def summary(self) -> str:
        first, peak = self.median("cached").first_s, self.bounded.peak_mb
        return (
            f"first prediction {first:.2f} s after the start, kernels cached: "
            f"{'within' if first < MOST_S else 'ABOVE'} {MOST_S:g} s; peak memory {peak:.0f} MB: "
            f"{'below' if peak < MOST_MB else 'NOT BELOW'} {MOST_MB:g} MB"
        )

    def plot(self, path: Path) -> None:
        """An SVG of two bar charts: seconds to the first prediction, and memory."""
        starts = [(f"kernels {kernels}", self.median(kernels).first_s) for kernels in self.starts]
        memories = [
            (f"{memory.entities:,} seen, bound {memory.bound:,}", memory.rss_mb)
            for memory in (self.few, self.bounded, self.unbounded)
        ]
        times = [(name, value, f"{value:.2f}") for name, value in starts]
        sizes = [(name, value, f"{value:,.0f}") for name, value in memories]
        charts.write(
            path,
            [
                [charts.bars("Seconds to the first prediction (less is better)", times, 270)],
                [charts.bars("Resident memory, MB (less is better)", sizes, 270)],
            ],
        )


def _row(kernels: str, name: str, start: Start) -> tuple[str, ...]:
    return kernels, name, *(f"{moment:.2f}" for moment in start)


def _rounded(values: Start | Memory) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in values._asdict().items()}
