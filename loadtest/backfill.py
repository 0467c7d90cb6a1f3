"""How fast features come from files: `weir features backfill` beside polars' own windows and pandas'.

All read one Parquet file of payments and compute the eight features of the payments example: over 1 h and 24 h per user
the number, sum and mean of the amounts before, and the seconds since the last. polars and pandas slide their windows by
the instant, Weir by panes (5 min and 1 h). They take turns in one process; what counts is their ratio.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from examples.payments.generate import Payments
from examples.payments.pipeline import pipeline
from loadtest.report import machine
from streams.offline.backfill import Backfill
from streams.offline.files import inputs_of
from streams.offline.rows import Reading

COLUMNS = ("system", "rows/s", "Weir is")
WINDOWS = ("1h", "24h")


@dataclass(frozen=True)
class Turn:
    """What a system made of the file: its rows, and the sum of the seconds since the last payment: equal for all."""

    rows: int
    since_last_s: float


@dataclass(frozen=True)
class Compared:
    """Rows per second of each system, medians of its rounds."""

    records: int
    rounds: int
    rows_per_s: dict[str, float]

    @property
    def ratios(self) -> dict[str, float]:
        """How many times as fast Weir is."""
        return {name: self.rows_per_s["weir"] / rate for name, rate in self.rows_per_s.items() if name != "weir"}

    def as_json(self) -> dict[str, Any]:
        return {
            "records": self.records,
            "rounds": self.rounds,
            "threads": pl.thread_pool_size(),
            "results": [
                {"system": name, "rows_per_s": round(rate), "weir_ratio": round(self.rows_per_s["weir"] / rate, 3)}
                for name, rate in self.rows_per_s.items()
            ],
            "machine": {**machine(), "usable_cores": len(os.sched_getaffinity(0))},
        }

    def as_rows(self) -> list[tuple[str, str, str]]:
        return [
            (name, f"{rate:,.0f}", "" if name == "weir" else f"{self.rows_per_s['weir'] / rate:.2f} times as fast")
            for name, rate in self.rows_per_s.items()
        ]


def run(say: Callable[[str], None], *, records: int, rounds: int) -> Compared:
    """Each system `rounds` times, in turn, after one turn that is not counted. AssertionError if they disagree."""
    with TemporaryDirectory(prefix="weir-backfill-") as folder:
        path = write_payments(Path(folder) / "payments.parquet", records)
        say(f"{records:,} payments, {path.stat().st_size / 1e6:.0f} MB")
        seconds: dict[str, list[float]] = {name: [] for name in SYSTEMS}
        for round_ in range(rounds + 1):
            turns = {}
            for name, system in SYSTEMS.items():
                gc.collect()
                began = time.perf_counter()
                turns[name] = system(path)
                took = time.perf_counter() - began
                if round_:
                    seconds[name].append(took)
                    say(f"round {round_}: {name} {records / took:,.0f} rows/s")
            agreed(turns, records)
    return Compared(records, rounds, {name: records / statistics.median(took) for name, took in seconds.items()})


def agreed(turns: dict[str, Turn], records: int) -> None:
    """All had every row, and the same data."""
    for name, turn in turns.items():
        assert turn.rows == records, f"{name}: {turn.rows} rows of {records}"
        wanted = turns["weir"].since_last_s
        assert abs(turn.since_last_s - wanted) <= 1e-3 * wanted, f"{name}: {turn.since_last_s} s in all, not {wanted}"


def write_payments(path: Path, records: int) -> Path:
    """The first payments of the example as Parquet."""
    made = Payments().records(records)
    lines = b"\n".join([record.value for record in made])
    pl.read_ndjson(BytesIO(lines)).write_parquet(path)
    return path


def weir(path: Path) -> Turn:
    """The backfill, its rows in frames as they are written to a dataset."""
    work = Backfill(pipeline, inputs_of([f"payments={path}"], ["payments"]), Reading(), lambda _: None)
    frames = pl.concat(work.frames())
    return Turn(len(frames), float(frames["feature.user_id_since_last"].cast(pl.Float64).sum()))


def polars_rolling(path: Path) -> Turn:
    """`rolling(…, group_by=…)`, once a window."""
    payments = pl.scan_parquet(path).with_columns(at=pl.from_epoch("ts", time_unit="ms"))
    made = payments.with_columns(_since_last()).collect()
    for window in WINDOWS:
        amount = pl.col("amount")
        rolled = payments.sort("user_id", "at", maintain_order=True).rolling(
            "at", period=window, closed="left", group_by="user_id"
        )
        columns = {"count": pl.len(), "sum": amount.sum(), "mean": amount.mean()}
        values = rolled.agg(expr.alias(f"{what}_{window}") for what, expr in columns.items())
        made = made.sort("user_id", "at", maintain_order=True).hstack(values.drop("user_id", "at").collect())
    made = made.sort("at", maintain_order=True)
    return Turn(len(made), float(made["since_last"].sum()))


def polars_over(path: Path) -> Turn:
    """`rolling_…_by(…).over(…)`: one expression a feature."""
    amount = pl.col("amount")
    columns = [_since_last()]
    for window in WINDOWS:
        columns += [
            pl.col("one").rolling_sum_by("at", window, closed="left").over("user_id").alias(f"count_{window}"),
            amount.rolling_sum_by("at", window, closed="left").over("user_id").alias(f"sum_{window}"),
            amount.rolling_mean_by("at", window, closed="left").over("user_id").alias(f"mean_{window}"),
        ]
    payments = pl.scan_parquet(path).with_columns(at=pl.from_epoch("ts", time_unit="ms"), one=pl.lit(1.0))
    made = payments.with_columns(columns).collect()
    return Turn(len(made), float(made["since_last"].sum()))


def pandas_rolling(path: Path) -> Turn:
    """`groupby(…).rolling(…)`, once a window."""
    import pandas as pd

    columns = pl.read_parquet(path)
    payments = pd.DataFrame({name: columns[name].to_numpy() for name in columns.columns})
    payments["at"] = pd.to_datetime(payments["ts"], unit="ms")
    payments["since_last"] = payments.groupby("user_id")["ts"].diff() / 1000.0
    ordered = payments.sort_values(["user_id", "at"], kind="stable")
    for window in WINDOWS:
        rolled = ordered.set_index("at").groupby("user_id")["amount"].rolling(window, closed="left")
        for what in ("count", "sum", "mean"):
            ordered[f"{what}_{window}"] = getattr(rolled, what)().to_numpy()
    made = ordered.sort_index()
    return Turn(len(made), float(made["since_last"].sum()))


def _since_last() -> pl.Expr:
    return (pl.col("ts").diff().over("user_id") / 1000.0).alias("since_last")


SYSTEMS: dict[str, Callable[[Path], Turn]] = {
    "weir": weir,
    "polars rolling": polars_rolling,
    "polars over": polars_over,
    "pandas": pandas_rolling,
}
