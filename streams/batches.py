"""Records as they come from Kafka, by partition, with the Python objects of each taken once."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from confluent_kafka import Message

WATERMARK_HEADER = "weir-watermark"
Headers = list[tuple[str, bytes]]
_MS = itemgetter(1)
"""Of a timestamp, which comes with its type."""


@dataclass(slots=True)
class RecordBatch:
    """Consecutive records of one partition of one stream (offsets rise, gaps allowed).

    offsets, timestamps: int64 [n]; a timestamp is the record's own, in ms.
    headers: one entry a record, or None where no record has any.
    polled_ns: monotonic time at which the poll returned.
    generation: of the partition's reading: a batch of an earlier one is stale.
    """

    stream: int
    partition: int
    keys: list[bytes | None]
    values: list[bytes | None]
    offsets: np.ndarray
    timestamps: np.ndarray
    headers: list[Headers | None] | None
    polled_ns: int
    generation: int

    def __len__(self) -> int:
        return len(self.values)

    @property
    def next_offset(self) -> int:
        return int(self.offsets[-1]) + 1


@dataclass(frozen=True, slots=True)
class Poll:
    """What one poll brought: batches, and the partitions whose end was reached."""

    batches: list[RecordBatch]
    ends: list[End]


class End(NamedTuple):
    """A stream of a partition holds nothing at `offset` or after, for now."""

    stream: int
    partition: int
    offset: int
    generation: int


def by_place(messages: Sequence[Message], streams: Mapping[str, int]) -> dict[tuple[int, int], list[Message]]:
    """Messages by (stream, partition), in their order. They come from the client in runs of one place."""
    n = len(messages)
    partitions = np.fromiter(map(Message.partition, messages), np.int64, n)
    places = partitions
    if len(streams) > 1:
        number = np.fromiter(map(streams.__getitem__, map(Message.topic, messages)), np.int64, n)  # type: ignore[arg-type]
        places = number << 32 | partitions
    cuts = (np.flatnonzero(np.diff(places)) + 1).tolist()
    found: dict[tuple[int, int], list[Message]] = {}
    for start, stop in itertools.pairwise([0, *cuts, n]) if n else ():
        place = int(places[start])
        found.setdefault((place >> 32, place & 0xFFFFFFFF), []).extend(messages[start:stop])
    return found


def batch_of(stream: int, partition: int, records: Sequence[Any], polled_ns: int, generation: int) -> RecordBatch:
    """The batch of a partition's messages (confluent_kafka.Message), in offset order."""
    n = len(records)
    headers: list[Any] = list(map(Message.headers, records))
    return RecordBatch(
        stream=stream,
        partition=partition,
        keys=list(map(Message.key, records)),
        values=list(map(Message.value, records)),
        offsets=np.fromiter(map(Message.offset, records), np.int64, n),
        timestamps=np.fromiter(map(_MS, map(Message.timestamp, records)), np.int64, n),
        headers=headers if any(headers) else None,
        polled_ns=polled_ns,
        generation=generation,
    )
