"""Values as of given times: rows of entities and times in, the features that an event then would have had out.

Each row is a read that stands in the order of the streams just before the events of its own time, and adds nothing. The
files are read as one partition, in their order. Rows come out in the order of time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from features.offline import OfflineEngine
from features.round import Round, Segment, StreamColumns
from features.spec import Aggregate, Calendar, Category, Computed, Ratio, Value
from streams.decoded import Decoded
from streams.errors import UsageError
from streams.offline.columns import Places
from streams.offline.files import Input
from streams.offline.frames import PREFIX, feature_columns, feature_schema, frame
from streams.offline.merging import merged
from streams.offline.reading import Chunk, chunks, scan
from streams.offline.rejects import Reject
from streams.offline.rows import Reading
from streams.offline.wanted import wanted_of
from streams.pipeline import Pipeline
from streams.rounds import assemble

_NEVER_ADDED = -1
"""Offset of a read: below what any row covers, so that it changes no state."""


class AtTimes:
    """The features of `pipeline` as of the rows of `times`: columns of the scored event's fields, as many as an entity
    needs, and of its time (by its name, or `time`). What needs a field that is not there is left out.

    rows: reads so far; left_out: features that are not in the dataset. behind_ms: how far the time of a scored event
    lies behind one that stands before it, at most: files are taken in their order.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        inputs: Mapping[str, Input],
        times: Input,
        reading: Reading,
        rejected: Callable[[list[Reject]], None],
    ) -> None:
        missing = [source.topic for source in pipeline.sources if source.topic not in inputs]
        if missing:
            raise UsageError(f"no files of {missing[0]}: give --input {missing[0]}=FILES, once for each source")
        if times.format == "jsonl" or len(times.paths) > 1:
            raise UsageError("--at takes one Parquet or CSV file")
        self._rejected, self._times = rejected, times
        # What remote groups keep is computed beside the rest: all events are of one partition here, as a group's are.
        spec = replace(pipeline.spec, given=frozenset())
        path = times.paths[0]
        lazy = scan(path, text=False) if times.format == "parquet" else pl.scan_csv(path, glob=False)
        schema = lazy.collect_schema()
        lead = pipeline.lead
        time = next((name for name in (lead.time, "time") if name in schema), None)
        if time is None:
            raise UsageError(f"--at {path}: there is no column {lead.time!r} or 'time'; it has {', '.join(schema)}")
        self._needed = wanted_of(lead, 0, spec)
        self._there = {f.name for f in lead.stream.fields if f.name in schema}
        self.left_out = _left_out(pipeline, self._there)
        if not {f.name for f in spec.features if not isinstance(f, Calendar)} - self.left_out:
            entities = " or ".join("(" + ", ".join(entity) + ")" for entity in spec.entities)
            raise UsageError(f"--at {path}: it names no entity; give the columns {entities}")
        self._lazy = lazy.with_columns(_ms(schema[time], time).alias(_TIME)).sort(_TIME, maintain_order=True)
        self._passed = {name: dtype for name, dtype in schema.items() if name != time and not name.startswith(PREFIX)}
        self.schema: dict[str, Any] = {"time": pl.Int64, **{n: d for n, d in self._passed.items() if n != "time"}}
        self.schema |= feature_schema(spec, self.left_out)
        self._waiting: list[pl.DataFrame] = []
        self._engine = OfflineEngine(spec)
        # Places are not looked at: an entity is asked for without its partition.
        plain = replace(reading, places=Places(reading.places.timestamp))
        self._streams = [self._reads(reading.rows)] + [
            chunks(wanted_of(source, stream, spec), stream + 1, inputs[source.topic], plain)
            for stream, source in enumerate(pipeline.sources)
        ]
        self.events = self.rows = 0
        self.behind_ms, self._newest = 0, 0

    def frames(self) -> Iterator[pl.DataFrame]:
        """The dataset, frame by frame, in the order of time."""
        for takes in merged(self._streams, self._rejected):
            work = assemble(takes, len(self._streams))
            self._look_at_order(work.columns)
            features = self._engine.process(_with_reads(work.columns))
            n = len(work.rows)
            self.events += work.records - n
            self.rows += n
            if n:
                columns = feature_columns(features.logged, self.left_out)
                yield frame({**self._passing(n).to_dict(), **columns}, self.schema)

    def _look_at_order(self, columns: Round) -> None:
        for lead in (c for c in columns if c.stream == 1 and len(c)):
            newest = np.maximum.accumulate(np.maximum(lead.times, self._newest))
            self.behind_ms = max(self.behind_ms, int((newest - lead.times).max()))
            self._newest = int(newest[-1])

    def _reads(self, rows: int) -> Iterator[Chunk]:
        """The rows of the file as events of a stream of their own."""
        start = 0
        try:
            batches = self._lazy.collect_batches(chunk_size=rows, maintain_order=True, engine="streaming")
            for batch in batches:
                if batch[_TIME].null_count():
                    raise UsageError(f"--at {self._times.paths[0]}: a row has no time")
                self._waiting.append(batch)
                n = len(batch)
                numbers, times = np.arange(start, start + n, dtype=np.int64), batch[_TIME].to_numpy()
                fields = self._fields(batch)
                piece = Decoded(0, 0, [None] * n, [""] * n, numbers, times, fields, None, start + n, 0)
                start += n
                yield Chunk([piece], [], n)
        except pl.exceptions.PolarsError as error:
            raise UsageError(f"--at {self._times.paths[0]}: {' '.join(str(error).split())[:200]}") from error

    def _fields(self, batch: pl.DataFrame) -> dict[str, Any]:
        """The fields that the features read; of those that are not there, none."""
        n = len(batch)
        fields: dict[str, Any] = {}
        for name in self._needed.texts:
            fields[name] = batch[name].cast(pl.String).to_list() if name in self._there else [None] * n
        for name, dtype in self._needed.numbers.items():
            if name not in self._there:
                fields[name] = np.zeros(n, dtype=dtype)
            elif dtype is np.int64:
                if batch[name].null_count():
                    raise UsageError(f"--at {self._times.paths[0]}: a row has no {name}, which names its entity")
                fields[name] = batch[name].cast(pl.Int64).to_numpy()
            else:
                fields[name] = batch[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
        return fields

    def _passing(self, n: int) -> pl.DataFrame:
        """The next `n` rows of the file, with their time in ms."""
        table = pl.concat(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        rest = table.slice(n)
        self._waiting = [rest] if len(rest) else []
        return table.head(n).select(pl.col(_TIME).alias("time"), *(n for n in self._passed if n != "time"))


_TIME = "_time"


def _left_out(pipeline: Pipeline, there: set[str]) -> set[str]:
    """Features that need a field which the rows lack."""
    every = {f.name for f in pipeline.lead.stream.fields}
    needs: dict[str, set[str]] = {}
    for feature in pipeline.spec.features:
        if isinstance(feature, Aggregate):
            needs[feature.name] = set(feature.entity)
        elif isinstance(feature, Value | Category):
            needs[feature.name] = {feature.field}
        elif isinstance(feature, Computed | Ratio):
            needs[feature.name] = {name for used in feature.uses for name in used.entity}
            if isinstance(feature, Computed):
                needs[feature.name] |= every - {pipeline.lead.time}
    return {name for name, fields in needs.items() if not fields <= there}


def _ms(dtype: pl.DataType, name: str) -> pl.Expr:
    if dtype.is_temporal():
        return pl.col(name).dt.epoch("ms")
    if dtype.is_integer():
        return pl.col(name).cast(pl.Int64)
    raise UsageError(f"--at: column {name!r} is {dtype}; a time is in ms since 1970, or a datetime")


def _with_reads(columns: Round) -> Round:
    """A round of reads (stream 0) and sources (from 1 on) as one of the spec's streams: the reads are scored beside the
    lead's events, which only update.
    """
    by_stream = {c.stream: c for c in columns}
    reads, lead = by_stream.pop(0, None), by_stream.pop(1, None)
    both = [c for c in (reads, lead) if c is not None]
    found: list[StreamColumns] = []
    if both:
        n = sum(map(len, both))
        found.append(
            StreamColumns(
                stream=0,
                segments=(Segment(0, 0, n),),
                offsets=np.concatenate([c.offsets if c is lead else np.full(len(c), _NEVER_ADDED) for c in both]),
                times=np.concatenate([c.times for c in both]),
                fields={name: _joined([c.fields[name] for c in both]) for name in both[0].fields},
                order=np.concatenate([_order(c) for c in both]),
                scored=np.concatenate([np.full(len(c), c is reads) for c in both]),
            )
        )
    return (*found, *(replace(c, stream=c.stream - 1) for c in by_stream.values()))


def _order(columns: StreamColumns) -> np.ndarray:
    assert columns.order is not None  # reads and a source are two streams at least
    return columns.order


def _joined(columns: list[Any]) -> Any:
    if isinstance(columns[0], list):
        return [value for column in columns for value in column]
    return np.concatenate(columns)


