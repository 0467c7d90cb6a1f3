"""The engine's input: the columns of one round of events, with the order in which they arrived."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from features.spec import Columns


class Segment(NamedTuple):
    """Records [start, stop) of a stream's columns: those of one partition, in offset order."""

    partition: int
    start: int
    stop: int


@dataclass(frozen=True)
class StreamColumns:
    """The m records that one stream brings to a round, partition by partition.

    stream: index into the spec's streams.
    segments: they tile [0, m); a partition has at most one.
    offsets: int64 [m], rising within a segment.
    times: int64 [m], event time in ms.
    fields: the stream's fields: float64 [m] (NaN = null, in nullable fields alone) or list[str | None].
        A number that names an entity may come as int64 [m]: float64 holds integers exactly only to 2**53.
    order: int64 [m], the place of each record in the round's arrival order, or None where that is the
        columns' own order (a round of one stream).
    scored: bool [m], or None for all: which records of the scored stream get features. Every record updates
        the state of the aggregates that its stream feeds, scored or not; other streams ignore this.
    """

    stream: int
    segments: tuple[Segment, ...]
    offsets: np.ndarray
    times: np.ndarray
    fields: Columns
    order: np.ndarray | None = None
    scored: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.times)


Round = tuple[StreamColumns, ...]
"""At most one StreamColumns a stream; the `order`s together are a permutation of the round's records."""
