"""A round in the order of its arrival: the arrays that every kind's walk reads."""

from __future__ import annotations

from typing import Any

import numpy as np

from features.condition import Condition
from features.layout import Column, Layout
from features.matrix import FeatureError
from features.round import Round
from features.spec import Columns, FeatureSpec, Stream
from features.table import Events
from features.texts import numbers_of

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
            return {name: picked(column, scored) for name, column in columns.fields.items()}
    return {f.name: np.empty(0) if f.kind == "number" else [] for f in spec.streams[0].fields}


def scored_times(round: Round, scored: np.ndarray) -> np.ndarray:
    """Event times int64 [n] of the scored records."""
    for columns in round:
        if columns.stream == 0:
            return np.asarray(columns.times[scored])
    return np.empty(0, dtype=np.int64)


def picked(column: Any, records: np.ndarray) -> Any:
    """Some records of a field's column, in their order."""
    return [column[record] for record in records.tolist()] if isinstance(column, list) else column[records]


def events(spec: FeatureSpec, layout: Layout, round: Round, scored: np.ndarray) -> Events:
    """The round's events. Raises FeatureError where a field that is never null holds a null."""
    total = sum(map(len, round))
    made = Events(
        streams=np.empty(total, dtype=np.int8),
        offsets=np.empty(total, dtype=np.int64),
        times=np.empty(total, dtype=np.int64),
        values=np.empty((total, max(map(len, layout.columns), default=0))),
        places=np.full(total, -1, dtype=np.int32),
    )
    for columns, order in zip(round, orders(round), strict=True):
        made.streams[order] = columns.stream
        made.offsets[order] = columns.offsets
        made.times[order] = columns.times
        stream = spec.streams[columns.stream]
        holds: dict[Condition, np.ndarray] = {}
        for place, column in enumerate(layout.columns[columns.stream]):
            values = _values(column, stream, columns.fields, len(columns))
            if column.where is not None:
                if column.where not in holds:
                    holds[column.where] = column.where.holds(columns.fields, len(columns))
                values = np.where(holds[column.where], values, np.nan)
            made.values[order, place] = values
        if columns.stream == 0:
            made.places[scored if isinstance(order, slice) else order[scored]] = np.arange(len(scored))
    return made


def _values(column: Column, stream: Stream, fields: Columns, n: int) -> np.ndarray:
    """The numbers float64 [n] that a column takes of n events, wherever its condition holds."""
    if column.field is None:
        return np.ones(n)
    values = fields[column.field]
    if not column.text:
        field = stream.field(column.field)
        if field is not None and not field.nullable and np.isnan(values).any():
            raise FeatureError(f"field {column.field} of {stream.name} holds a null; declare it nullable")
        return np.asarray(values, dtype=np.float64)
    if column.encoding is None:
        return numbers_of(values)
    codes = column.encoding.encode(values).astype(np.float64)
    codes[[value is None for value in values]] = np.nan
    return codes


def in_arrival_order(columns: list[np.ndarray], round: Round) -> np.ndarray:
    """Arrays int32 [m] of each stream's records as one array of the round's."""
    arrived = np.empty(sum(map(len, round)), dtype=np.int32)
    for order, mine in zip(orders(round), columns, strict=True):
        arrived[order] = mine
    return arrived
