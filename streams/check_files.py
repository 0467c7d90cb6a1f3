"""A pipeline's data contract, checked over files: the types of the events and the rules, as the worker checks them.

Files hold events of one source, or features (an archive), by their columns' names: Parquet, CSV, or JSON lines. All
files of a call are one data set. What a backfill wrote says itself that it holds features; the rules of the scored
source are checked as well, over the fields that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.spec import Category
from models.tables import Stored
from monitors.conditions import Condition
from streams.errors import UsageError
from streams.offline.datasets import FIELD, dataset_rows, find_dataset, name_of
from streams.offline.frames import PREFIX
from streams.pipeline import Pipeline
from streams.source import Source

_EXAMPLES = 3
_READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    ".csv": lambda path: pl.read_csv(path, infer_schema_length=None),
    ".jsonl": lambda path: pl.read_ndjson(path, infer_schema_length=None),
    ".ndjson": lambda path: pl.read_ndjson(path, infer_schema_length=None),
}


@dataclass(frozen=True)
class Finding:
    """One rule, or one type, that `rows` of the rows break. examples: [row, value] of the first ones."""

    of: str
    rule: str
    asks: str
    rows: int
    share: float
    action: str
    examples: list[list[Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """What was found in `rows` rows. checked: rules that were looked at; unchecked: rule → why not."""

    files: list[str]
    rows: int
    kind: str
    findings: list[Finding]
    checked: list[str]
    unchecked: dict[str, str]

    @property
    def ok(self) -> bool:
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok}


def check_files(pipeline: Pipeline, source: Source, paths: Sequence[Path]) -> Report:
    """The report on `paths`. UsageError: a file that cannot be read, or that holds neither events nor features."""
    datasets = {path: stored for path in paths if (stored := find_dataset(pipeline, path)) is not None}
    if datasets:
        if others := [path for path in paths if path not in datasets]:
            raise UsageError(f"{others[0]} is no dataset of weir features backfill; check it by itself")
        if source.topic != pipeline.lead.topic:
            raise UsageError(f"--source {source.topic}: a dataset's rows are of {pipeline.lead.topic}; leave it out")
        return _check_datasets(pipeline, [datasets[path] for path in paths])
    frame = _read(paths)
    names = [str(path) for path in paths]
    if {source.key, source.time} <= set(frame.columns):
        return _check_events(source, frame, names)
    features = {n: c for n in pipeline.spec.names for c in (f"feature.{n}", n) if c in frame.columns}
    if features:
        return _check_features(pipeline, frame, features, names)
    raise UsageError(
        f"{names[0]}: no events of {source.topic} (columns {source.key} and {source.time} are missing) and no features "
        f"of {pipeline.name}; it has {', '.join(frame.columns[:12])}"
    )


def _read(paths: Sequence[Path]) -> pl.DataFrame:
    frames = []
    for path in paths:
        reader = _READERS.get(path.suffix)
        if reader is None:
            raise UsageError(f"{path}: a file ends in {', '.join(_READERS)}; a dataset is a folder, and there is none")
        try:
            frames.append(reader(path))
        except (OSError, pl.exceptions.PolarsError) as error:
            raise UsageError(f"{path}: {' '.join(str(error).split())[:300]}") from error
    return _joined(frames)


def _joined(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    try:
        return pl.concat(frames, how="diagonal_relaxed")
    except pl.exceptions.PolarsError as error:
        raise UsageError(f"the files do not fit together: {' '.join(str(error).split())[:300]}") from error


def _check_events(source: Source, frame: pl.DataFrame, files: list[str]) -> Report:
    findings: list[Finding] = []
    columns: dict[str, Any] = {}
    for known in source.stream.fields:
        if known.name not in frame.columns:
            if known.name not in source.optional:
                findings.append(_finding(known.name, "missing", "must be there", np.ones(len(frame), bool), None))
            column = pl.Series(known.name, [None] * len(frame))
        else:
            column = frame[known.name]
        columns[known.name], wrong = _column(column, known.kind)
        if wrong.any():
            findings.append(_finding(known.name, "type", f"must be a {known.kind}", wrong, column))
        absent = column.is_null().to_numpy()
        if known.name in frame.columns and not known.nullable and absent.any():
            findings.append(_finding(known.name, "not_null", "must not be null", absent, column))
    kind, times = f"events of {source.topic}", columns[source.time]
    return _report(source.conditions, columns, frame, files, kind, findings, times)


def _check_datasets(pipeline: Pipeline, datasets: Sequence[Stored]) -> Report:
    """What one of several lacks is not checked: its rows would count as nulls."""
    rows = [dataset_rows(pipeline, stored) for stored in datasets]
    shared = [name for name in rows[0].columns if all(name in one.columns for one in rows)]
    frame = _joined([one.select(shared) for one in rows])
    files = [name_of(stored) for stored in datasets]
    names = {name: f"{PREFIX}{name}" for name in pipeline.spec.names if f"{PREFIX}{name}" in shared}
    features = _check_features(pipeline, frame, names, files)
    findings: list[Finding] = []
    columns: dict[str, Any] = {}
    for known in pipeline.lead.stream.fields:
        if (name := f"{FIELD}{known.name}") in shared:
            precision = np.float32 if frame[name].dtype == pl.Float32 else np.float64
            columns[known.name], wrong = _column(frame[name], known.kind, precision)
            if wrong.any():
                findings.append(_finding(known.name, "type", f"must be a {known.kind}", wrong, frame[name]))
    times = columns.get(pipeline.lead.time)
    fields = _report(pipeline.lead.conditions, columns, frame, files, features.kind, findings, times)
    return replace(
        features,
        kind=f"{features.kind}, {', '.join(files)}",
        findings=fields.findings + features.findings,
        checked=fields.checked + features.checked,
        unchecked=fields.unchecked | features.unchecked,
    )


def _check_features(pipeline: Pipeline, frame: pl.DataFrame, names: dict[str, str], files: list[str]) -> Report:
    findings: list[Finding] = []
    columns: dict[str, Any] = {}
    for feature in pipeline.spec.features:
        if feature.name in names:
            kind = "string" if isinstance(feature, Category) else "number"
            columns[feature.name], wrong = _column(frame[names[feature.name]], kind, np.float32)
            if wrong.any():
                findings.append(_finding(feature.name, "type", f"must be a {kind}", wrong, frame[names[feature.name]]))
    return _report(pipeline.rules, columns, frame, files, f"features of {pipeline.name}", findings, None)


def _report(
    conditions: Iterable[Condition],
    columns: dict[str, Any],
    frame: pl.DataFrame,
    files: list[str],
    kind: str,
    findings: list[Finding],
    times: np.ndarray | None,
) -> Report:
    checked: list[str] = []
    unchecked: dict[str, str] = {}
    for condition in conditions:
        if condition.name == "behind":
            unchecked[condition.label] = "files have no record timestamps"
            continue
        if condition.of not in columns:
            unchecked[condition.label] = "the files have no such column"
            continue
        checked.append(condition.label)
        if condition.name == "silence":
            assert times is not None
            broken, column = _gaps(times, condition.limit)
        else:
            broken, column = condition.broken(columns[condition.of], None), columns[condition.of]
        share = float(broken.mean()) if len(broken) else 0.0
        if broken.any() and (condition.name != "nulls" or share > condition.limit):
            findings.append(_finding(condition.of, condition.name, condition.words, broken, column, condition.action))
    return Report(files, len(frame), kind, findings, checked, unchecked)


def _column(column: pl.Series, kind: str, dtype: type[np.floating[Any]] = np.float64) -> tuple[Any, np.ndarray]:
    """The values as the rules take them, and which are of another type: bool [n]. They count as null.

    dtype: of numbers, as a worker compares them: 0.1 as a float32 is above 0.1 as a float64.
    """
    found, wrong = column.dtype, np.zeros(len(column), dtype=bool)
    if kind == "string":
        fits = found in (pl.String, pl.Categorical, pl.Enum, pl.Null)
    else:
        fits = found.is_numeric() or found in (pl.Boolean, pl.Null)
    if not fits:
        wrong = column.is_not_null().to_numpy()
        column = pl.Series(column.name, [None] * len(column))
    if kind == "string":
        return column.cast(pl.String()).to_list(), wrong
    with np.errstate(over="ignore"):
        values = column.cast(pl.Float64()).to_numpy().astype(dtype)
    infinite = np.isinf(values)
    return np.where(infinite, np.nan, values), wrong | infinite


def _gaps(times: np.ndarray, limit_ms: float) -> tuple[np.ndarray, np.ndarray]:
    """Which events follow the one before, in event time, by more than `limit_ms`; and by how many seconds."""
    order = np.argsort(times, kind="stable")
    gaps = np.zeros(len(times))
    gaps[order[1:]] = np.diff(times[order])
    return gaps > limit_ms, gaps / 1000


def _finding(of: str, rule: str, asks: str, broken: np.ndarray, column: Any, action: str = "dead_letter") -> Finding:
    rows = np.flatnonzero(broken)[:_EXAMPLES].tolist()
    examples = [[row, _plain(column[row])] for row in rows] if column is not None else []
    return Finding(of, rule, asks, int(broken.sum()), float(broken.mean()), action, examples)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and value != value else value
