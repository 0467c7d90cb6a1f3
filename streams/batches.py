"""Records as they come from Kafka, by partition, with the Python objects of each taken once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

WATERMARK_HEADER = "weir-watermark"
Headers = list[tuple[str, bytes]]


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


def batch_of(stream: int, partition: int, records: Sequence[Any], polled_ns: int, generation: int) -> RecordBatch:
    """The batch of a partition's messages (confluent_kafka.Message), in offset order."""
    headers = [r.headers() for r in records]
    return RecordBatch(
        stream=stream,
        partition=partition,
        keys=[r.key() for r in records],
        values=[r.value() for r in records],
        offsets=np.array([r.offset() for r in records], dtype=np.int64),
        timestamps=np.array([r.timestamp()[1] for r in records], dtype=np.int64),
        headers=headers if any(headers) else None,
        polled_ns=polled_ns,
        generation=generation,
    )
