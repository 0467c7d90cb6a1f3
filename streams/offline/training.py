"""Training data from a backfilled dataset."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from models import tables
from models.dataset import Dataset
from models.errors import DatasetError
from streams.offline.lineage import check_spec
from streams.pipeline import Pipeline
from streams.training import Lineage, read_dataset


def read_backfilled(pipeline: Pipeline, path: Path, **within: int | None) -> tuple[Dataset, Lineage]:
    """The labelled rows of the dataset at `path`, and what the registry keeps of where they are from.

    Raises DatasetError where it is of other features than the pipeline's, or has no labels.
    """
    stored = tables.open_dataset(path)
    check_spec(pipeline, stored)
    there = pl.scan_parquet(list(stored.files), glob=False).collect_schema()
    wanted = ("id", "time", "partition", "offset", "label", *(f"feature.{name}" for name in pipeline.spec.names))
    if missing := [name for name in wanted if name not in there]:
        raise DatasetError(f"{path} has no column {missing[0]!r}: training takes rows of events, made without --at")
    if not stored.lineage.get("labels"):
        topic = pipeline.labels.topic if pipeline.labels else "its labels"
        raise DatasetError(f"{path} has no labels: give weir features backfill --input {topic}=FILES too")
    version = "" if stored.version is None else f"@{stored.version}"
    found: Lineage = {"dataset": f"{path.resolve()}{version}", "dataset_code": str(stored.lineage.get("code", ""))}
    return read_dataset(pipeline, path, stored.files, **within), found
