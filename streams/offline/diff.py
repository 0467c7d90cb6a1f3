"""Two tables of feature values beside each other: which values of the same events differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from features.spec import Aggregate
from models.errors import one_line
from streams.errors import UsageError
from streams.offline.frames import PREFIX, feature_schema
from streams.pipeline import Pipeline

Kind = Literal["exact", "remote"]
By = Literal["place", "id"]
KEYS: dict[By, list[str]] = {"place": ["partition", "offset", "time"], "id": ["id", "time"]}
"""What makes two rows one event: where its record lay, or its id; and its time, for a broker made anew counts anew."""


@dataclass(frozen=True)
class Difference:
    """One feature. worst: the largest difference of two numbers. example: of one event, what both say.

    kind: exact, or remote: read from another owner, as of what had come there by then.
    """

    feature: str
    kind: Kind
    rows: int
    mismatches: int
    worst: float | None
    example: dict[str, Any] | None

    @property
    def ppm(self) -> float:
        """Mismatches in a million rows."""
        return 1e6 * self.mismatches / self.rows if self.rows else 0.0


@dataclass(frozen=True)
class Diff:
    """rows: events that both have; only_logged, only_recomputed: those that one has; copies: rows that were left out,
    for their event had come before.
    """

    rows: int
    only_logged: int
    only_recomputed: int
    copies: int
    features: tuple[Difference, ...]

    @property
    def exact(self) -> bool:
        """Whether nothing that should be equal differs, of one event at least."""
        return self.rows > 0 and not any(f.mismatches for f in self.features if f.kind == "exact")


def kind_of(pipeline: Pipeline, feature: Any) -> Kind:
    """A group that the source's key does not name is kept by another owner."""
    remote = isinstance(feature, Aggregate) and pipeline.lead.key not in feature.entity
    return "remote" if remote else "exact"


def diff(pipeline: Pipeline, logged: pl.LazyFrame, recomputed: pl.LazyFrame, by: By) -> Diff:
    """Compares float32 with float32 and text with text; missing equals missing. Memory: the keys of both sides."""
    keys, names = KEYS[by], pipeline.spec.names
    columns = [f"{PREFIX}{name}" for name in names]
    other = {column: f"other.{column}" for column in columns}
    left = logged.select(*keys, *columns).unique(keys, keep="first")
    right = recomputed.select(*keys, *columns).rename(other).unique(keys, keep="first")
    both = left.join(right, on=keys, how="inner")
    try:
        sizes = [_rows(table) for table in (logged, recomputed, left, right)]
        found = both.select(pl.len().alias("rows"), *_compared(pipeline, columns, other)).collect(engine="streaming")
        row = found.row(0, named=True)
        features = tuple(
            Difference(
                feature.name,
                kind_of(pipeline, feature),
                row["rows"],
                row[f"n.{column}"],
                row.get(f"worst.{column}"),
                _example(both, keys, column, other[column]) if row[f"n.{column}"] else None,
            )
            for feature, column in zip(pipeline.spec.features, columns, strict=True)
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UsageError(f"the values cannot be compared: {one_line(error, 200)}") from error
    all_logged, all_recomputed, once_logged, once_recomputed = sizes
    return Diff(
        row["rows"],
        once_logged - row["rows"],
        once_recomputed - row["rows"],
        all_logged - once_logged + all_recomputed - once_recomputed,
        features,
    )


def _compared(pipeline: Pipeline, columns: list[str], other: dict[str, str]) -> list[pl.Expr]:
    numbers = {name for name, dtype in feature_schema(pipeline.spec).items() if dtype == pl.Float32}
    made = [pl.col(c).ne_missing(pl.col(other[c])).sum().alias(f"n.{c}") for c in columns]
    made += [
        (pl.col(c).cast(pl.Float64) - pl.col(other[c]).cast(pl.Float64)).abs().max().alias(f"worst.{c}")
        for c in columns
        if c in numbers
    ]
    return made


def _rows(table: pl.LazyFrame) -> int:
    rows: int = table.select(pl.len()).collect(engine="streaming").item()
    return rows


def _example(both: pl.LazyFrame, keys: list[str], column: str, other: str) -> dict[str, Any]:
    differs = both.filter(pl.col(column).ne_missing(pl.col(other)))
    first = differs.select(*keys, pl.col(column).alias("logged"), pl.col(other).alias("recomputed")).head(1)
    return first.collect(engine="streaming").row(0, named=True)
