"""The features of remote groups from files: what both of their forms in the stream approximate.

A group's value for an event is of all events of the scored stream before it, by event time; equal times go by
partition and offset. In the stream an event meets what has come to the group's topic by then, so the values of some
events differ, as they do between two runs of a replay.
"""

from __future__ import annotations

import numpy as np

from features.arrivals import picked
from features.offline import OfflineEngine
from features.round import Segment, StreamColumns
from features.spec import FeatureSpec
from streams.pipeline import Pipeline

_ALL = 0
"""The one partition of a group: in which of its topic's an event would lie does not matter."""


class GroupEngines:
    """One engine for each remote group of a pipeline."""

    def __init__(self, pipeline: Pipeline) -> None:
        spec = pipeline.spec
        kept = [tuple(a for a in spec.aggregates if a.entity == group.entity) for group in pipeline.groups]
        self._engines = [OfflineEngine(FeatureSpec(spec.streams[:1], aggregates)) for aggregates in kept]
        self._seen = 0

    @property
    def late(self) -> dict[str, int]:
        """By windowed aggregate, the events that came too late for it."""
        return {name: count for engine in self._engines for name, count in engine.late.items()}

    @property
    def entities(self) -> dict[str, int]:
        """Rows held, by entity kind."""
        return {kind: rows for engine in self._engines for kind, rows in engine.entities.items()}

    def values(self, lead: StreamColumns) -> dict[str, np.ndarray]:
        """Values float64 [n] by aggregate, for the n events of the scored stream that a round brings."""
        if not self._engines:
            return {}
        partitions = np.repeat([s.partition for s in lead.segments], [s.stop - s.start for s in lead.segments])
        order = np.lexsort((lead.offsets, partitions, lead.times))
        n = len(order)
        fields = {name: picked(column, order) for name, column in lead.fields.items()}
        offsets = np.arange(self._seen, self._seen + n)
        self._seen += n
        columns = StreamColumns(0, (Segment(_ALL, 0, n),), offsets, lead.times[order], fields)
        found: dict[str, np.ndarray] = {}
        for engine in self._engines:
            aggregates = np.empty((n, len(engine.spec.aggregates)))
            aggregates[order] = engine.process((columns,)).aggregates
            found |= {a.name: aggregates[:, place] for place, a in enumerate(engine.spec.aggregates)}
        return found
