"""Two tables of feature values as a pair: how many of a million values differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from streams.offline.diff import KEYS, By, diff
from streams.offline.frames import PREFIX
from streams.pipeline import Pipeline
from tests.oracles.near import sketches

NEAR: dict[str, Any] = {"low": pl.Float64, "high": pl.Float64, "among": pl.List(pl.Float64)}
"""Columns of `tests.oracles.near.Near`; with a dot and a feature's name behind."""


@dataclass(frozen=True)
class Pair:
    """What `a` and `b` say of the same rows. rows: that both have; missing: that one of them has alone.

    worst: the features that differ, with their mismatches in a million rows.
    """

    pipeline: str
    a: str
    b: str
    kind: str
    rows: int
    missing: int
    mismatch_ppm: float
    worst: dict[str, float]

    @property
    def ok(self) -> bool:
        return self.rows > 0 and self.missing == 0 and (self.kind == "remote" or self.mismatch_ppm == 0)

    def as_json(self) -> dict[str, Any]:
        return {
            "pipeline": self.pipeline,
            "a": self.a,
            "b": self.b,
            "kind": self.kind,
            "rows": self.rows,
            "missing": self.missing,
            "mismatch_ppm": self.mismatch_ppm,
            "worst": self.worst,
        }


def pairs(
    name: str,
    pipeline: Pipeline,
    sides: tuple[str, str],
    a: pl.LazyFrame,
    b: pl.LazyFrame,
    by: By = "place",
    *,
    near: pl.LazyFrame | None = None,
    one_order: bool = False,
) -> list[Pair]:
    """One pair for each kind of feature that the pipeline has; a value is a row's of one feature.

    A sketch is the same wherever it is computed. Beside the oracle, who has every value, it may be off by its error:
    `near` says by row what of it is near enough to `b`. one_order: both took the events of remote groups in one
    order, so that these are judged as any other.
    """
    rough = set() if near is None else sketches(pipeline.spec)
    found = diff(pipeline, a, b if near is None or not rough else _near(a, b, near, rough), by)
    kinds = {f.feature: "sketch" if f.feature in rough else "exact" if one_order else f.kind for f in found.features}
    made = []
    for kind in dict.fromkeys(kinds.values()):
        features = [f for f in found.features if kinds[f.feature] == kind]
        values = found.rows * len(features)
        wrong = sum(f.mismatches for f in features)
        made.append(
            Pair(
                name,
                *sides,
                kind,
                found.rows,
                found.only_logged + found.only_recomputed,
                1e6 * wrong / values if values else 0.0,
                {f.feature: f.ppm for f in features if f.mismatches},
            )
        )
    return made


def _near(a: pl.LazyFrame, b: pl.LazyFrame, near: pl.LazyFrame, rough: set[str]) -> pl.LazyFrame:
    """`b`, with the value of `a` where it is near enough."""
    columns, keys = {f"{PREFIX}{name}": f"other.{name}" for name in sorted(rough)}, KEYS["place"]
    of_a = a.select(*keys, *columns).rename(columns).unique(keys, keep="first")
    both = b.join(of_a, on=keys, how="left").join(near, on=keys, how="left")
    return both.with_columns(
        pl.when(_is_near(pl.col(f"other.{name}").cast(pl.Float64), name))
        .then(pl.col(f"other.{name}"))
        .otherwise(pl.col(f"{PREFIX}{name}"))
        .alias(f"{PREFIX}{name}")
        for name in sorted(rough)
    )


def _is_near(value: pl.Expr, name: str) -> pl.Expr:
    low, high, among = (pl.col(f"{column}.{name}") for column in NEAR)
    between = value.is_between(low, high).fill_null(value=False)
    return between | among.list.contains(value, nulls_equal=True).fill_null(value=False)
