"""Events on their way to the groups of others: the records of a round, for each topic that they go to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from features.codec import entity_keys
from features.spec import Columns
from monitors.metrics import Metrics
from streams.groups import Group
from streams.hop import framed
from streams.outputs import Outputs
from streams.parts import Part
from streams.rounds import ScoredRows


class Onward(NamedTuple):
    """Records of one group's topic."""

    group: str
    topic: str
    keys: list[bytes]
    values: list[bytes]


class SendingOn:
    """Makes and sends what `part` sends on."""

    def __init__(self, part: Part, metrics: Metrics) -> None:
        self._part, self._metrics = part, metrics

    def records(
        self,
        rows: ScoredRows,
        fields: Columns,
        aggregates: np.ndarray,
        traces: Sequence[bytes | None] | None,
    ) -> list[Onward]:
        """Of n scored events. aggregates: float64 [n, a], of the spec.

        An event that names no entity goes on to be scored, but adds to no group that is only read.
        """
        if rows.origin is None:
            return []
        return [self._of(group, rows, fields, aggregates, traces) for group in self._part.sends_to]

    def send(self, onward: list[Onward], outputs: Outputs) -> None:
        """Hands them over without waiting."""
        for group, topic, keys, values in onward:
            if values:
                outputs.forward(topic, keys, values)
                self._metrics.inc("weir_forwarded_total", len(values), group=group)

    def _of(
        self,
        group: Group,
        rows: ScoredRows,
        fields: Columns,
        aggregates: np.ndarray,
        traces: Sequence[bytes | None] | None,
    ) -> Onward:
        part = self._part
        texts = entity_keys([fields[name] for name in group.entity])
        carries = part.carries
        carried = self._carried(rows, aggregates) if carries else np.empty((len(rows), 0))
        if part.hop is None and None in texts:
            named = np.array([i for i, text in enumerate(texts) if text is not None], dtype=np.int64)
            rows, carried = rows.at(named), carried[named]
            traces = None if traces is None else [traces[i] for i in named.tolist()]
            texts = [text for text in texts if text is not None]
        assert rows.origin is not None
        keys = [
            (key or b"") if text is None else text.encode("utf-8", "surrogatepass")
            for text, key in zip(texts, rows.keys, strict=True)
        ]
        values = framed(rows.origin, rows.keys, traces, carried, carries)
        return Onward(group.name, group.topic(part.declared.name), keys, values)

    def _carried(self, rows: ScoredRows, aggregates: np.ndarray) -> np.ndarray:
        """float64 [n, carries]: what came along, and what is kept here."""
        assert rows.origin is not None
        spec = self._part.pipeline.spec
        mine = [spec.aggregates.index(aggregate) for aggregate in spec.kept]
        return np.concatenate([rows.origin.carried, aggregates[:, mine]], axis=1)
