"""A round in the order of its arrival: the arrays that every kind's walk reads."""

from __future__ import annotations

from typing import Any

import numpy as np

from features.layout import Layout
from features.matrix import FeatureError
from features.round import Round
from features.spec import Columns, FeatureSpec
from features.table import Events

Order = np.ndarray | slice
"""Where the records of one stream stand in the arrival order."""


def orders(round: Round) -> list[Order]:
    """One order a stream of the round."""
    if len(round) > 1 and any(columns.order is None for columns in round):
        raise FeatureError(
            "process: a round of several streams needs the order of their records; set StreamColumns.order"
        )
    return [slice(None) if columns.order is None else columns.order for columns in round]


def scored_records(round: Round) -> np.ndarray:
    """int64 [n]: which records of the scored stream get features; all, some, or none where the round lacks
    the stream.
    """
    for columns in round:
        if columns.stream == 0:
            return np.arange(len(columns)) if columns.scored is None else np.flatnonzero(columns.scored)
    return np.empty(0, dtype=np.int64)


def scored_fields(spec: FeatureSpec, round: Round, scored: np.ndarray) -> Columns:
    """The fields of the scored records alone; without any, empty columns."""
    for columns in round:
        if columns.stream == 0:
            if len(scored) == len(columns):
                return columns.fields
            return {name: _pick(column, scored) for name, column in columns.fields.items()}
    return {f.name: np.empty(0) if f.kind == "number" else [] for f in spec.streams[0].fields}


def _pick(column: Any, records: np.ndarray) -> Any:
    return [column[record] for record in records] if isinstance(column, list) else column[records]


def events(spec: FeatureSpec, layout: Layout, round: Round, scored: np.ndarray) -> Events:
    """The round's events. Raises FeatureError where a field that is never null holds a null."""
    total = sum(map(len, round))
    made = Events(
        streams=np.empty(total, dtype=np.int8),
        offsets=np.empty(total, dtype=np.int64),
        times=np.empty(total, dtype=np.int64),
        values=np.empty((total, max(map(len, layout.fields), default=0))),
        places=np.full(total, -1, dtype=np.int32),
    )
    for columns, order in zip(round, orders(round), strict=True):
        made.streams[order] = columns.stream
        made.offsets[order] = columns.offsets
        made.times[order] = columns.times
        stream = spec.streams[columns.stream]
        for place, name in enumerate(layout.fields[columns.stream]):
            field, values = stream.field(name), columns.fields[name]
            if field is not None and not field.nullable and np.isnan(values).any():
                raise FeatureError(f"field {name} of {stream.name} holds a null; declare it nullable")
            made.values[order, place] = values
        if columns.stream == 0:
            made.places[scored if isinstance(order, slice) else order[scored]] = np.arange(len(scored))
    return made


def in_arrival_order(columns: list[np.ndarray], round: Round) -> np.ndarray:
    """Arrays int32 [m] of each stream's records as one array of the round's."""
    arrived = np.empty(sum(map(len, round)), dtype=np.int32)
    for order, mine in zip(orders(round), columns, strict=True):
        arrived[order] = mine
    return arrived
