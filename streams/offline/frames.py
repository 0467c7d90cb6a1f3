"""Features as the frames of a dataset: the columns of the monitor's archive, which training reads.

id, key, time, partition, offset, label, label_time, and `feature.<name>`: float32, or a category's text; missing and
infinite values are null, as in a prediction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import polars as pl

from features.matrix import Logged
from features.spec import Category, FeatureSpec

PREFIX = "feature."
LABELS: dict[str, Any] = {"label": pl.Float64, "label_time": pl.Int64}
ROW: dict[str, Any] = {"id": pl.String, "key": pl.String, "time": pl.Int64, "partition": pl.Int32, "offset": pl.Int64}


def feature_schema(spec: FeatureSpec, left_out: Collection[str] = ()) -> dict[str, Any]:
    """The columns of the features."""
    return {
        f"{PREFIX}{f.name}": pl.String if isinstance(f, Category) else pl.Float32
        for f in spec.features
        if f.name not in left_out
    }


def feature_columns(logged: Logged, left_out: Collection[str] = ()) -> dict[str, Any]:
    """What predictions would log, as columns."""
    return {f"{PREFIX}{name}": _column(values) for name, values in logged.items() if name not in left_out}


def frame(columns: Mapping[str, Any], schema: Mapping[str, Any]) -> pl.DataFrame:
    """Columns in the order and types of `schema`."""
    return pl.DataFrame({name: columns[name] for name in schema}, schema=dict(schema), nan_to_null=False)


def _column(values: np.ndarray | list[str | None]) -> Any:
    if isinstance(values, list):
        return values
    series = pl.Series(values, dtype=pl.Float32, nan_to_null=True)
    return series if np.isfinite(values).all() else pl.select(pl.when(series.is_finite()).then(series)).to_series()
