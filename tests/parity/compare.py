"""Two tables of feature values as a pair: how many of a million values differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from streams.offline.diff import KEYS, By, diff
from streams.offline.frames import PREFIX
from streams.pipeline import Pipeline
from tests.oracles.features import SKETCH_ERROR, sketches

ORACLE = "oracle"


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
    name: str, pipeline: Pipeline, sides: tuple[str, str], a: pl.LazyFrame, b: pl.LazyFrame, by: By = "place"
) -> list[Pair]:
    """One pair for each kind of feature that the pipeline has; a value is a row's of one feature.

    A sketch is the same wherever it is computed. Beside the oracle, who has every value, it may be off by its error.
    """
    rough = sketches(pipeline.spec) if ORACLE in sides else set()
    found = diff(pipeline, a, _near(a, b, rough, by) if rough else b, by)
    kinds = {f.feature: "sketch" if f.feature in rough else f.kind for f in found.features}
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


def _near(a: pl.LazyFrame, b: pl.LazyFrame, rough: set[str], by: By) -> pl.LazyFrame:
    """`b`, with the value of `a` where it is as near as a sketch promises."""
    columns = {f"{PREFIX}{name}": f"near.{name}" for name in sorted(rough)}
    near = a.select(*KEYS[by], *columns).rename(columns).unique(KEYS[by], keep="first")
    return b.join(near, on=KEYS[by], how="left").with_columns(
        pl.when(
            (pl.col(other).cast(pl.Float64) - pl.col(column).cast(pl.Float64)).abs()
            <= SKETCH_ERROR * pl.col(column).cast(pl.Float64).abs()
        )
        .then(pl.col(other))
        .otherwise(pl.col(column))
        .alias(column)
        for column, other in columns.items()
    )
