"""Records as they come from Kafka, by partition, with the Python objects of each taken once."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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

    @property
    def place(self) -> tuple[int, int, int]:
        """Where it was read: stream, partition, and the generation of that reading."""
        return self.stream, self.partition, self.generation


@dataclass(frozen=True, slots=True)
class Poll:
    """What one poll brought, or several that followed each other: batches, and the partitions whose end was reached."""

    batches: list[RecordBatch]
    ends: list[End]

    @property
    def size(self) -> int:
        """What it counts for where work in hand is bounded; above 0."""
        return sum(map(len, self.batches)) + len(self.ends)

    def take_in(self, later: Poll) -> None:
        """Adds the poll that came next, for both to be one round; `join` follows the last of them."""
        self.batches.extend(later.batches)
        self.ends.extend(later.ends)

    def join(self) -> None:
        """Makes one batch of those of the same place, polled with the first of them."""
        places: dict[tuple[int, int, int], list[RecordBatch]] = {}
        for batch in self.batches:
            places.setdefault(batch.place, []).append(batch)
        if len(places) < len(self.batches):
            self.batches[:] = [one_after_the_other(batches) for batches in places.values()]


class Waiting:
    """Puts polls together that wait for the same round, up to `most` in size: a round has its price, and a poll that
    waited for several of them would be late.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._last: Poll | None = None

    def takes_in(self, poll: Poll) -> bool:
        """Whether the last one that waits takes it in; else it is the last one."""
        if self._last is not None and self._last.size + poll.size <= self._most:
            self._last.take_in(poll)
            return True
        self._last = poll
        return False

    def taken(self, poll: Poll) -> None:
        """It waits no more, and takes nothing in."""
        if poll is self._last:
            self._last = None
        poll.join()


class End(NamedTuple):
    """A stream of a partition holds nothing at `offset` or after, for now."""

    stream: int
    partition: int
    offset: int
    generation: int


def changes(column: np.ndarray) -> list[int]:
    """Where a value is another than the one before it. On few values np.diff takes three times as long."""
    found: list[int] = ((column[1:] != column[:-1]).nonzero()[0] + 1).tolist()
    return found


def by_place(messages: Sequence[Message], streams: Mapping[str, int]) -> dict[tuple[int, int], list[Message]]:
    """Messages by (stream, partition), in their order. They come from the client in runs of one place."""
    n = len(messages)
    partitions = np.fromiter(map(Message.partition, messages), np.int64, n)
    places = partitions
    if len(streams) > 1:
        number = np.fromiter(map(streams.__getitem__, map(Message.topic, messages)), np.int64, n)  # type: ignore[arg-type]
        places = number << 32 | partitions
    cuts = changes(places)
    found: dict[tuple[int, int], list[Message]] = {}
    for start, stop in itertools.pairwise([0, *cuts, n]) if n else ():
        place = int(places[start])
        found.setdefault((place >> 32, place & 0xFFFFFFFF), []).extend(messages[start:stop])
    return found


def one_after_the_other(batches: Sequence[RecordBatch]) -> RecordBatch:
    """The records of batches in one, which is of the place and the poll of the first."""
    if len(batches) == 1:
        return batches[0]
    headers = None
    if any(batch.headers is not None for batch in batches):
        headers = [of_one for batch in batches for of_one in batch.headers or [None] * len(batch)]
    return replace(
        batches[0],
        keys=[key for batch in batches for key in batch.keys],
        values=[value for batch in batches for value in batch.values],
        offsets=np.concatenate([batch.offsets for batch in batches]),
        timestamps=np.concatenate([batch.timestamps for batch in batches]),
        headers=headers,
    )


def batch_of(stream: int, partition: int, records: Sequence[Any], polled_ns: int, generation: int) -> RecordBatch:
    """The batch of a partition's messages (confluent_kafka.Message), in offset order."""
    n = len(records)
    headers: list[Any] = list(map(Message.headers, records))
    return RecordBatch(
        stream=stream,
        partition=partition,
        keys=list(map(Message.key, records)),
        values=list(map(Message.value, records)),
        offsets=_offsets(records),
        timestamps=np.fromiter(map(_MS, map(Message.timestamp, records)), np.int64, n),
        headers=headers if any(headers) else None,
        polled_ns=polled_ns,
        generation=generation,
    )


def _offsets(records: Sequence[Any]) -> np.ndarray:
    """int64 [n]. They rise, so where the last one says that none is missing, each need not be asked."""
    n = len(records)
    if n and records[-1].offset() - records[0].offset() == n - 1:
        return np.arange(records[0].offset(), records[0].offset() + n)
    return np.fromiter(map(Message.offset, records), np.int64, n)
