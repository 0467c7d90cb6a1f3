"""What a GPU is worth: the product's runner on the CPU and on CUDA, by model and batch size.

    python -m loadtest.gpu [--json]        # or: weir bench gpu

Where there is no CUDA device it says so, and is done. On CUDA, rows and scores go by IOBinding, as when serving: the
copies to the device and back are in the figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from examples.payments import model as payments_model
from loadtest.report import machine
from models.runner import CPU, CUDA, Runner, available_providers, starts

COLUMNS = ("model", "rows a call", "CPU µs", "CUDA µs", "CPU rows/s", "CUDA rows/s", "CUDA is", "scores differ by")
BATCHES = (64, 512, 4096, 16_384)
SECONDS = 1.0
"""How long each of them is called, after a warm-up."""
_LEAST = 5


class Size(NamedTuple):
    """A model: its name, the units of its hidden layers, and the inputs that it has beyond the eight."""

    name: str
    hidden: tuple[int, int]
    more: int


SIZES = (Size("10 kB", (64, 32), 0), Size("1 MB", (480, 512), 0), Size("50 MB", (3500, 3500), 56))


class Timed(NamedTuple):
    """The median call, in µs, and rows a second at it."""

    call_us: float
    rows_per_s: float


@dataclass(frozen=True)
class Row:
    """One model at one number of rows, on the `base` provider and on the `other`; difference: of their scores, at most.
    """

    model: str
    model_bytes: int
    rows: int
    base: Timed
    other: Timed
    difference: float

    @property
    def times(self) -> float:
        """How many times as fast the other is."""
        return self.base.call_us / self.other.call_us

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "model_bytes": self.model_bytes,
            "rows": self.rows,
            "cpu_us": round(self.base.call_us, 1),
            "cuda_us": round(self.other.call_us, 1),
            "cpu_rows_per_s": round(self.base.rows_per_s),
            "cuda_rows_per_s": round(self.other.rows_per_s),
            "times": round(self.times, 3),
            "difference": float(f"{self.difference:.2g}"),
        }

    def as_row(self) -> tuple[str, ...]:
        """Under COLUMNS."""
        calls = (f"{self.base.call_us:,.0f}", f"{self.other.call_us:,.0f}")
        rates = (f"{self.base.rows_per_s:,.0f}", f"{self.other.rows_per_s:,.0f}")
        return (self.model, f"{self.rows:,}", *calls, *rates, f"{self.times:.2f} × as fast", f"{self.difference:.1e}")


def why_not() -> str:
    """Why CUDA cannot be measured here; empty where it can."""
    if CUDA not in available_providers():
        return "no CUDA device: this ONNX Runtime is built without CUDA (install onnxruntime-gpu in its place)"
    return "" if starts(CUDA) else "no CUDA device: ONNX Runtime has CUDA, but it does not start here"


def run(
    say: Callable[[str], None],
    *,
    base: str = CPU,
    other: str = CUDA,
    sizes: Sequence[Size] = SIZES,
    batches: Sequence[int] = BATCHES,
    seconds: float = SECONDS,
    threads: int = 1,
) -> list[Row]:
    """Each model at each number of rows, on two of ONNX Runtime's providers in turns."""
    found = []
    for size in sizes:
        model = payments_model.build(7, size.hidden, size.more).SerializeToString()
        names = [f"f{i}" for i in range(len(payments_model.FEATURES) + size.more)]
        for rows in batches:
            runners = [Runner(model, names, threads=threads, sizes=(rows,), providers=[p]) for p in (base, other)]
            matrix = np.random.default_rng(7).lognormal(3.2, 1.1, (rows, len(names))).astype(np.float32)
            calls_us, scores = _timed(runners, matrix, seconds)
            for runner in runners:
                runner.release()
            timed = [Timed(us, rows / us * 1e6) for us in map(statistics.median, calls_us)]
            difference = float(np.abs(scores[0] - scores[1]).max())
            found.append(Row(size.name, len(model), rows, timed[0], timed[1], difference))
            say(f"{size.name}, {rows:,} rows: {timed[0].call_us:,.0f} µs on {base}, {timed[1].call_us:,.0f} on {other}")
    return found


def _timed(
    runners: Sequence[Runner], matrix: np.ndarray, seconds: float
) -> tuple[list[list[float]], list[np.ndarray]]:
    """µs of each runner's calls, in turns, and its scores."""
    scores = [runner.run(matrix) for runner in runners]
    calls_us: list[list[float]] = [[] for _ in runners]
    end_s = time.perf_counter() + seconds * len(runners)
    while time.perf_counter() < end_s or len(calls_us[-1]) < _LEAST:
        for runner, mine in zip(runners, calls_us, strict=True):
            began_ns = time.perf_counter_ns()
            runner.run(matrix)
            mine.append((time.perf_counter_ns() - began_ns) / 1e3)
    return calls_us, scores


def report(say: Callable[[str], None], *, seconds: float = SECONDS) -> tuple[dict[str, Any], list[Row]]:
    """{"mode": "gpu", "skipped": why or null, "results": […], "machine"}, and the rows; none where it was skipped."""
    skipped = why_not()
    rows = [] if skipped else run(say, seconds=seconds)
    found = {
        "mode": "gpu",
        "skipped": f"{skipped}: skipped" if skipped else None,
        "providers": available_providers(),
        "results": [row.as_json() for row in rows],
        "machine": machine(),
    }
    return found, rows


def text_of(found: dict[str, Any], rows: Sequence[Row]) -> str:
    """For people."""
    from streams.cli.output import table

    return str(found["skipped"]) if found["skipped"] else table(COLUMNS, [row.as_row() for row in rows])


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 also where there is nothing to measure."""
    from streams.cli.output import progress

    parser = argparse.ArgumentParser(description="The runner on the CPU and on CUDA, by model and batch size.")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="each of the measurements takes")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    given = parser.parse_args(arguments)
    found, rows = report(progress, seconds=given.seconds)
    print(json.dumps(found) if given.json else text_of(found, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
