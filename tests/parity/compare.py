"""Two tables of feature values as a pair: how many of a million values differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from streams.offline.diff import By, diff
from streams.pipeline import Pipeline


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
        return self.rows > 0 and self.missing == 0 and (self.kind != "exact" or self.mismatch_ppm == 0)

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
    """One pair for each kind of feature that the pipeline has; a value is a row's of one feature."""
    found = diff(pipeline, a, b, by)
    made = []
    for kind in dict.fromkeys(f.kind for f in found.features):
        features = [f for f in found.features if f.kind == kind]
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
