"""Datasets of a backfill, by the names that commands take for them, as rows of features and of the events' fields."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from pathlib import Path

import polars as pl

from features.spec import Category, Value
from models import tables
from models.errors import DatasetError, one_line
from models.tables import Stored
from streams.errors import UsageError
from streams.offline.frames import PREFIX
from streams.offline.lineage import check_spec
from streams.pipeline import Pipeline

FIELD = "field."
"""Begins the columns of the scored event's fields."""


def find_dataset(pipeline: Pipeline, path: Path) -> Stored | None:
    """What a backfill wrote to `path`: FOLDER, FOLDER@VERSION as `weir train` notes it, or a Parquet file that says so.

    The newest version where none is named. None: something else. UsageError: a folder without a dataset, a version that
    is not there, other features than the pipeline's.
    """
    folder, version = _named(path)
    file = tables.is_parquet(folder)
    if not (folder.is_file() if file else folder.is_dir()):
        return None
    if not file and not tables.is_table(folder):
        raise UsageError(f"{path}: the folder holds no dataset; name one of weir features backfill, or single files")
    try:
        stored = tables.open_dataset(folder, version)
        if file and not stored.lineage:
            return None
        if not stored.files:  # a table is made first, as its version 0
            raise UsageError(f"{name_of(stored)} holds nothing yet; weir features backfill wrote {folder}@1 first")
        check_spec(pipeline, stored)
    except DatasetError as error:
        raise UsageError(str(error)) from error
    return stored


def name_of(stored: Stored) -> str:
    """FOLDER@VERSION, or the file."""
    return str(stored.path) if stored.version is None else f"{stored.path}@{stored.version}"


def dataset_rows(pipeline: Pipeline, stored: Stored) -> pl.DataFrame:
    """The rows in their order: `feature.NAME`, and `field.NAME` of the scored event's fields that can be told.

    A field that is a feature is the float32 that the feature is.
    """
    try:
        rows = pl.scan_parquet(sorted(stored.files), glob=False)
        there = rows.collect_schema()
        features = [name for name in (f"{PREFIX}{name}" for name in pipeline.spec.names) if name in there]
        fields = _fields(pipeline, there, at_times="left_out" in stored.lineage)
        return rows.select(*features, *(value.alias(f"{FIELD}{name}") for name, value in fields.items())).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UsageError(f"{name_of(stored)} cannot be read: {one_line(error, 200)}") from error


def _named(path: Path) -> tuple[Path, int | None]:
    found = None if path.exists() else re.fullmatch(r"(.+)@(\d+)", str(path))
    return (path, None) if found is None else (Path(found[1]), int(found[2]))


def _fields(pipeline: Pipeline, there: Collection[str], *, at_times: bool) -> dict[str, pl.Expr]:
    """By field. Rows at given times have columns of their own, and a time that is no event's."""
    source, spec = pipeline.lead, pipeline.spec
    declared = {field.name: field for field in source.stream.fields}
    found = {
        feature.field: pl.col(f"{PREFIX}{feature.name}")
        for feature in spec.features
        if isinstance(feature, Value | Category) and f"{PREFIX}{feature.name}" in there
        # What stands for a null there is a number as any other.
        if isinstance(feature, Category) or math.isnan(spec.missing) or not declared[feature.field].nullable
    }
    texts = {name for name, field in declared.items() if field.kind == "string"}
    if at_times:
        there_too = [name for name in declared if name in there and name != source.time]
        return found | {name: pl.col(name).cast(pl.String) if name in texts else pl.col(name) for name in there_too}
    named = {source.key: "key", **({source.id: "id"} if source.id is not None else {})}  # as texts, whatever they are
    found |= {f: pl.col(column) if f in texts else pl.col(column).cast(pl.Float64) for f, column in named.items()}
    return {**found, source.time: pl.col("time")}
