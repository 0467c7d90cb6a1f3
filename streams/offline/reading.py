"""Files as a stream: chunks of decoded events by partition, in the order of the file, and what could not be used.

Parquet and CSV come as whole columns (`streams.offline.columns`), JSON lines through the stream's own decoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from features.arrivals import picked
from streams.decoded import Decoded
from streams.errors import UsageError
from streams.offline.columns import OFFSET, PARTITION, TIMESTAMP, Columns, fields_of
from streams.offline.files import Input
from streams.offline.json_lines import json_rows
from streams.offline.rejects import Reject
from streams.offline.rows import TIME, Reading, Rows
from streams.offline.wanted import EXACT, Wanted


class Chunk(NamedTuple):
    """Consecutive rows of a stream: the usable ones by partition, and the others."""

    pieces: list[Decoded]
    rejects: list[Reject]
    rows: int


def chunks(wanted: Wanted, stream: int, files: Input, reading: Reading) -> Iterator[Chunk]:
    """The events of a stream. Offsets rise within a partition: those of the file, or the numbers of its rows."""
    following: dict[int, int] = {}
    for path in files.paths:
        for rows in rows_of(wanted, path, files.format, reading):
            yield Chunk(_pieces(wanted, stream, rows, following, path), rows.rejects, rows.rows)


def rows_of(wanted: Wanted, path: Path, format_: str, reading: Reading) -> Iterator[Rows]:
    """One file's rows, `reading.rows` at a time."""
    if format_ == "jsonl":
        return json_rows(wanted, path, reading)
    return _column_rows(wanted, path, reading, text=format_ == "csv")


def scan(path: Path, *, text: bool) -> pl.LazyFrame:
    """A Parquet or CSV file; of CSV all columns as text."""
    return pl.scan_csv(path, infer_schema=False, glob=False) if text else pl.scan_parquet(path, glob=False)


def _column_rows(wanted: Wanted, path: Path, reading: Reading, *, text: bool) -> Iterator[Rows]:
    try:
        frames = scan(path, text=text)
        schema = frames.collect_schema()
        columns = Columns(wanted, schema, path, reading.found(schema), text=text)
        frames = _sorted(frames, reading.sort, schema, path, text=text)
        row = 1
        for frame in frames.collect_batches(chunk_size=reading.rows, maintain_order=True, engine="streaming"):
            typed, rejects = columns.check(frame, row)
            yield Rows(_arrays(wanted, typed), rejects, len(frame))
            row += len(frame)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UsageError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error


def _sorted(frames: pl.LazyFrame, by: str | None, schema: pl.Schema, path: Path, *, text: bool) -> pl.LazyFrame:
    if by is None:
        return frames
    if by not in schema:
        raise UsageError(f"--sort {by}: {path} has no such column; it has {', '.join(schema)}")
    return frames.sort(pl.col(by).cast(pl.Float64, strict=False) if text else by, maintain_order=True)


def _arrays(wanted: Wanted, typed: pl.DataFrame) -> dict[str, Any]:
    columns = fields_of(wanted, typed)
    whole = [TIMESTAMP, PARTITION, OFFSET, *([wanted.time] if wanted.time else [])]
    columns |= {_time_of(wanted, name): typed[name].to_numpy() for name in whole if name in typed.columns}
    return columns


def _time_of(wanted: Wanted, name: str) -> str:
    return TIME if name == wanted.time else name


def _pieces(wanted: Wanted, stream: int, rows: Rows, following: dict[int, int], path: Path) -> list[Decoded]:
    """The rows as the stream would hand them on: partition by partition. `following`: the next offset of each."""
    columns = rows.columns
    n = len(columns[TIME])
    partitions = columns.get(PARTITION)
    if partitions is None:
        return [_piece(wanted, stream, 0, columns, following, path)] if n else []
    return [
        _piece(wanted, stream, partition, _taken(columns, np.flatnonzero(partitions == partition)), following, path)
        for partition in np.unique(partitions).tolist()
    ]


def _taken(columns: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
    if len(rows) == len(columns[TIME]):
        return columns
    return {name: picked(values, rows) for name, values in columns.items()}


def _piece(
    wanted: Wanted, stream: int, partition: int, columns: dict[str, Any], following: dict[int, int], path: Path
) -> Decoded:
    times = columns[TIME]
    start = following.get(partition, 0)
    offsets = columns.get(OFFSET)
    if offsets is None:
        offsets = np.arange(start, start + len(times), dtype=np.int64)
    elif (offsets[0] < start) or (np.diff(offsets) <= 0).any():
        raise UsageError(f"{path}: offsets do not rise in partition {partition}; sort the file by them (--sort)")
    following[partition] = int(offsets[-1]) + 1
    ids = columns.get(EXACT + wanted.id, columns[wanted.id]) if wanted.id is not None else None
    if ids is None:
        ids = [f"{wanted.topic}-{partition}-{offset}" for offset in offsets.tolist()]
    elif not isinstance(ids, list):
        ids = list(map(str, ids.tolist()))
    exact = [EXACT + name for name in wanted.exact]
    fields = {name: columns[name] for name in (*wanted.texts, *wanted.numbers, *exact)}
    return Decoded(
        stream=stream,
        partition=partition,
        keys=[None] * len(times),
        ids=ids,
        offsets=offsets,
        times=times,
        fields=fields,
        headers=None,
        next_offset=int(offsets[-1]) + 1,
        polled_ns=0,
    )
