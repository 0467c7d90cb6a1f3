"""Datasets on disk: a Delta Lake table (a folder), or one Parquet file, with where it came from written into it.

A table's data files are written first and come into it with one commit, so that a version is whole or not there; what
is written over stays readable under its earlier version. The driver `deltalake` is imported here alone.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from models.errors import DatasetError, one_line

PART_ROWS = 1_000_000
"""Rows of one data file."""

_LINEAGE = "weir.lineage"
_NO_DELTA = "Delta tables need deltalake: install weir with the extra datasets, or name a file that ends in .parquet"
_PRIMITIVES: dict[Any, str] = {
    pl.String: "string", pl.Float32: "float", pl.Float64: "double", pl.Int32: "integer", pl.Int64: "long",
    pl.Int16: "short", pl.Int8: "byte", pl.Boolean: "boolean", pl.Date: "date",
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """A dataset as it lies on disk. version: of the Delta table; None of a Parquet file."""

    path: Path
    files: tuple[Path, ...]
    version: int | None
    lineage: Mapping[str, Any]


def is_parquet(path: Path) -> bool:
    """Whether a dataset of this name is one Parquet file, not a table."""
    return path.suffix == ".parquet"


def is_table(path: Path) -> bool:
    """Whether a Delta table lies in this folder."""
    return (path / "_delta_log").is_dir()


def check_target(path: Path) -> None:
    """Raises DatasetError where a dataset cannot be written to `path`, before any work is done."""
    if is_parquet(path):
        if path.is_dir():
            raise DatasetError(f"{path} is a folder; a name that ends in .parquet is for one file")
        return
    _delta()
    if path.is_file():
        raise DatasetError(f"{path} is a file; name a folder for a Delta table, or a file that ends in .parquet")
    if path.is_dir() and any(path.iterdir()) and not is_table(path):
        raise DatasetError(f"{path} holds something else than a Delta table; name another folder")


def write(path: Path, frames: Iterable[pl.DataFrame], schema: Mapping[str, Any], lineage: Mapping[str, Any]) -> Stored:
    """Writes frames of `schema` to `path`, over what is there. `lineage` is read when all frames have come.

    Memory holds one data file's rows at most. Raises DatasetError; whatever is raised, the dataset is as before.
    """
    check_target(path)
    write_to = _write_file if is_parquet(path) else _write_table
    return write_to(path, frames, schema, lineage)


def open_dataset(path: Path, version: int | None = None) -> Stored:
    """A dataset that is there. version: an earlier one of a table. Raises DatasetError."""
    if is_parquet(path) and path.is_file():
        if version is not None:
            raise DatasetError(f"{path} is a Parquet file, which has no versions")
        try:
            found = pl.read_parquet_metadata(path)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DatasetError(f"{path} cannot be read: {one_line(error, 160)}") from error
        return Stored(path, (path,), None, json.loads(found.get(_LINEAGE, "{}")))
    if not path.is_dir():
        raise DatasetError(f"there is no dataset at {path}")
    table, errors = _delta().DeltaTable, _delta().exceptions
    try:
        opened = table(path)
        if version is not None and version > opened.version():
            raise DatasetError(f"{path} has no version {version}; the newest is {opened.version()}")
        if version is not None:
            opened.load_as_version(version)
        files = tuple(path / uri.rsplit("/", 1)[-1] for uri in opened.file_uris())
    except (errors.DeltaError, OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as a Delta table: {one_line(error, 160)}") from error
    return Stored(path, files, opened.version(), _lineage(path, opened.version()))


def _lineage(path: Path, version: int) -> dict[str, Any]:
    """What a version's commit says, as the log has it; nothing where the table's history has been cleaned."""
    log = path / "_delta_log" / f"{version:020d}.json"
    for line in log.read_text().splitlines() if log.is_file() else ():
        written = json.loads(line).get("commitInfo", {}).get(_LINEAGE)
        if written is not None:
            found: dict[str, Any] = json.loads(written)
            return found
    return {}


def _write_file(
    path: Path, frames: Iterable[pl.DataFrame], schema: Mapping[str, Any], lineage: Mapping[str, Any]
) -> Stored:
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    work.mkdir()
    try:
        parts = [part for part, _ in _parts(work, frames, schema)]
        whole = work / "whole.parquet"
        metadata = {_LINEAGE: json.dumps(dict(lineage))}
        pl.scan_parquet(parts, glob=False).sink_parquet(whole, compression="zstd", metadata=metadata)
        whole.replace(path)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Stored(path, (path,), None, dict(lineage))


def _write_table(
    path: Path, frames: Iterable[pl.DataFrame], schema: Mapping[str, Any], lineage: Mapping[str, Any]
) -> Stored:
    delta = _delta()
    fields = [delta.schema.Field(name, _delta_type(name, dtype)) for name, dtype in schema.items()]
    fresh = not is_table(path)
    path.mkdir(parents=True, exist_ok=True)
    written: list[tuple[Path, int]] = []
    try:
        written += _parts(path, frames, schema)
        table = (
            delta.DeltaTable.create(path, delta.schema.Schema(fields), name=str(lineage.get("pipeline", "")))
            if fresh
            else delta.DeltaTable(path)
        )
        now_ms = time.time_ns() // 1_000_000
        table.create_write_transaction(
            [
                delta.transaction.AddAction(
                    part.name, part.stat().st_size, {}, now_ms, True, json.dumps({"numRecords": rows})
                )
                for part, rows in written
            ],
            "overwrite",
            delta.schema.Schema(fields),
            commit_properties=delta.CommitProperties(custom_metadata={_LINEAGE: json.dumps(dict(lineage))}),
        )
    except delta.exceptions.DeltaError as error:
        _remove(written)
        raise DatasetError(f"{path} could not be written: {one_line(error, 200)}") from error
    except BaseException:
        _remove(written)
        if fresh and not any(path.iterdir()):
            path.rmdir()
        raise
    version = delta.DeltaTable(path).version()
    return Stored(path, tuple(part for part, _ in written), version, dict(lineage))


def _parts(folder: Path, frames: Iterable[pl.DataFrame], schema: Mapping[str, Any]) -> list[tuple[Path, int]]:
    """The data files of the frames, with their rows; one at least. What was begun is removed if a frame fails."""
    written: list[tuple[Path, int]] = []
    waiting: list[pl.DataFrame] = []
    rows = 0
    run = uuid.uuid4().hex[:12]

    def put() -> None:
        part = folder / f"part-{len(written):05d}-{run}.parquet"
        written.append((part, rows))
        table = pl.concat(waiting) if waiting else pl.DataFrame(schema=dict(schema))
        table.write_parquet(part, compression="zstd")

    try:
        for frame in frames:
            waiting.append(frame)
            rows += len(frame)
            if rows >= PART_ROWS:
                put()
                waiting, rows = [], 0
        if waiting or not written:
            put()
    except BaseException:
        _remove(written)
        raise
    return written


def _remove(written: Iterable[tuple[Path, int]]) -> None:
    for part, _ in written:
        part.unlink(missing_ok=True)


def _delta_type(name: str, dtype: Any) -> Any:
    dtype = dtype if isinstance(dtype, type) else type(dtype)
    if dtype is pl.Datetime:
        return _delta().schema.PrimitiveType("timestamp_ntz")
    if dtype not in _PRIMITIVES:
        raise DatasetError(f"column {name}: a Delta table holds no {dtype.__name__}; cast it, or name a .parquet file")
    return _delta().schema.PrimitiveType(_PRIMITIVES[dtype])


def _is_table(path: Path) -> bool:
    return (path / "_delta_log").is_dir()


def _delta() -> Any:
    try:
        import deltalake
        import deltalake.exceptions
        import deltalake.schema
        import deltalake.transaction
    except ModuleNotFoundError as error:
        if error.name != "deltalake":
            raise
        raise DatasetError(_NO_DELTA) from error
    return deltalake
