"""Feature values that were logged or made before, as one lazy table, whatever they lie in.

An archive of the monitor (a folder of Parquet files), a dataset (a Delta table or a .parquet file), or predictions as
they stand on their topic, one JSON object a line (.jsonl). Columns: id, time, partition, offset, and `feature.<name>`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from features.spec import Category, FeatureSpec
from models import tables
from models.errors import one_line
from streams.errors import UsageError
from streams.offline.files import SUFFIXES
from streams.offline.frames import PREFIX, ROW, feature_schema
from streams.offline.lineage import check_spec
from streams.pipeline import Pipeline

_KEYS = ("id", "time", "partition", "offset")


def logged(pipeline: Pipeline, path: Path, version: int | None = None) -> pl.LazyFrame:
    """The table at `path`. A dataset that says which features it holds must hold the pipeline's: else DatasetError.

    UsageError where there is nothing, or nothing of the kind.
    """
    spec = pipeline.spec
    if path.is_dir() and not (path / "_delta_log").is_dir():
        files = sorted(path.glob("*.parquet"))
        lines = sorted(p for p in path.iterdir() if SUFFIXES.get(p.suffix) == "jsonl")
        if not files and not lines:
            raise UsageError(f"{path}: the folder holds no Parquet files and no predictions (.jsonl)")
        return _columns(spec, files, path) if files else _predictions(spec, lines, path)
    if SUFFIXES.get(path.suffix) == "jsonl" and path.is_file():
        return _predictions(spec, [path], path)
    stored = tables.open_dataset(path, version)
    if stored.lineage:
        check_spec(pipeline, stored)
    return _columns(spec, stored.files, path)


def _columns(spec: FeatureSpec, files: Sequence[Path], path: Path) -> pl.LazyFrame:
    wanted = {**{name: ROW[name] for name in _KEYS}, **feature_schema(spec)}
    try:
        frames = pl.scan_parquet(list(files), glob=False, missing_columns="raise", extra_columns="ignore")
        there = frames.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UsageError(f"{path} cannot be read: {one_line(error, 160)}") from error
    if missing := [name for name in wanted if name not in there]:
        raise UsageError(f"{path}: there is no column {missing[0]!r}; is it of the pipeline's present features?")
    return frames.select(pl.col(name).cast(dtype) for name, dtype in wanted.items())


def _predictions(spec: FeatureSpec, files: Sequence[Path], path: Path) -> pl.LazyFrame:
    features = {f.name: pl.String if isinstance(f, Category) else pl.Float64 for f in spec.features}
    schema: dict[str, Any] = {
        "id": pl.String,
        "time": pl.Int64,
        "source": pl.Struct({"partition": pl.Int32, "offset": pl.Int64}),
        "features": pl.Struct(features),
    }
    source, values = pl.col("source").struct, pl.col("features").struct
    try:
        frames = pl.scan_ndjson(list(files), schema=schema)
        return frames.select(
            "id",
            "time",
            source.field("partition"),
            source.field("offset"),
            *(values.field(name).cast(dtype).alias(f"{PREFIX}{name}") for name, dtype in _narrow(spec).items()),
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UsageError(f"{path} cannot be read: {one_line(error, 160)}") from error


def _narrow(spec: FeatureSpec) -> dict[str, Any]:
    return {f.name: pl.String if isinstance(f, Category) else pl.Float32 for f in spec.features}
