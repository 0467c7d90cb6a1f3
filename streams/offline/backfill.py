"""One row for each event of the scored stream, with its features as of just before it: what the stream logs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import polars as pl

from features.offline import OfflineEngine
from streams.errors import UsageError
from streams.offline.files import Input
from streams.offline.frames import LABELS, ROW, feature_columns, feature_schema, frame
from streams.offline.groups import GroupEngines
from streams.offline.labels import LabelTable
from streams.offline.merging import merged
from streams.offline.reading import chunks
from streams.offline.rejects import Reject
from streams.offline.rows import Reading
from streams.offline.wanted import EXACT, wanted_of
from streams.pipeline import Pipeline
from streams.rounds import Work, assemble


class Backfill:
    """The features of `pipeline` from the files of its sources (by topic). labels: joined to the rows, if given.

    events: rows of all streams that were computed; rows: of the scored one; labelled: those that have a label, None
    without labels; compute_failures: events by computed feature.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        inputs: Mapping[str, Input],
        reading: Reading,
        rejected: Callable[[list[Reject]], None],
        labels: LabelTable | None = None,
    ) -> None:
        missing = [source.topic for source in pipeline.sources if source.topic not in inputs]
        if missing:
            raise UsageError(f"no files of {missing[0]}: give --input {missing[0]}=FILES, once for each source")
        self._pipeline, self._labels, self._rejected = pipeline, labels, rejected
        self._engine, self._groups = OfflineEngine(pipeline.spec), GroupEngines(pipeline)
        self._streams = [
            chunks(wanted_of(source, stream, pipeline.spec), stream, inputs[source.topic], reading)
            for stream, source in enumerate(pipeline.sources)
        ]
        self.schema: dict[str, Any] = {**ROW, **LABELS, **feature_schema(pipeline.spec)}
        self.events = self.rows = 0
        self.labelled: int | None = None if labels is None else 0
        self.compute_failures: dict[str, int] = {}

    @property
    def late(self) -> dict[str, int]:
        """By windowed aggregate, the events that came too late for it."""
        late = {**self._engine.late, **self._groups.late}
        return {name: count for name, count in late.items() if count}

    @property
    def entities(self) -> dict[str, int]:
        return {**self._engine.entities, **self._groups.entities}

    def frames(self) -> Iterator[pl.DataFrame]:
        """The dataset, frame by frame, in the order of the stream."""
        for takes in merged(self._streams, self._rejected):
            work = assemble(takes, len(self._streams))
            lead = next((columns for columns in work.columns if columns.stream == 0), None)
            features = self._engine.process(work.columns, None if lead is None else self._groups.values(lead))
            self.events += work.records
            for name, failure in features.failed.items():
                self.compute_failures[name] = self.compute_failures.get(name, 0) + failure.events
            if len(work.rows):
                self.rows += len(work.rows)
                made = frame({**self._row(work), **feature_columns(features.logged)}, self.schema)
                if self.labelled is not None:
                    self.labelled += len(made) - made["label"].null_count()
                yield made

    def _row(self, work: Work) -> dict[str, Any]:
        rows, lead = work.rows, work.columns[0]
        name = self._pipeline.lead.key
        key = lead.fields.get(EXACT + name, lead.fields[name])
        found: dict[str, Any] = {
            "id": rows.ids,
            "key": key if isinstance(key, list) else list(map(str, key.tolist())),
            "time": rows.times,
            "partition": rows.partitions,
            "offset": rows.offsets,
        }
        n = len(rows)
        nothing = {name: pl.Series(values=[None] * n, dtype=dtype) for name, dtype in LABELS.items()}
        return {**found, **(nothing if self._labels is None else self._labels.of(rows.ids, rows.times))}
