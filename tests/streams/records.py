"""Records as Kafka gives them, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from streams.batches import Headers, RecordBatch
from streams.decoded import DeadLetter, Decoded
from streams.rounds import ScoredRows

NOW = 1_760_000_000_000
"""The records' own timestamp, ms."""


class Record:
    """A record of a batch; `value`: bytes, None, or what is to be encoded as JSON."""

    def __init__(
        self, value: Any, key: bytes | None = b"u", headers: Headers | None = None, timestamp: int = NOW
    ) -> None:
        self.value = value if value is None or isinstance(value, bytes) else msgspec.json.encode(value)
        self.key, self.headers, self.timestamp = key, headers, timestamp


def watermark(time: int | bytes | None, *, value: bytes | None = None) -> Record:
    text = time if time is None or isinstance(time, bytes) else str(time).encode()
    return Record(value, headers=[("weir-watermark", text)])  # type: ignore[list-item]  # Kafka has null headers


def batch(records: Sequence[Record], *, first: int = 0, stream: int = 0, partition: int = 0) -> RecordBatch:
    headers = [r.headers for r in records]
    return RecordBatch(
        stream=stream,
        partition=partition,
        keys=[r.key for r in records],
        values=[r.value for r in records],
        offsets=np.arange(first, first + len(records)),
        timestamps=np.array([r.timestamp for r in records], dtype=np.int64),
        headers=headers if any(headers) else None,
        polled_ns=1,
        generation=1,
    )


def decoded(
    times: Sequence[int],
    *,
    offsets: Sequence[int] | None = None,
    stream: int = 0,
    partition: int = 0,
    dead: Sequence[int] = (),
    marks: Sequence[tuple[int, int]] = (),
    end: int | None = None,
) -> Decoded:
    """A decoded batch with one number field `x`, which is the offset; `dead`: offsets of dead letters."""
    where = np.array(range(len(times)) if offsets is None else offsets, dtype=np.int64)
    last = max([*where.tolist(), *dead, *(offset for offset, _ in marks)], default=-1)
    return Decoded(
        stream=stream,
        partition=partition,
        keys=[b"k%d" % o for o in where],
        ids=[f"{stream}-{partition}-{o}" for o in where],
        offsets=where,
        times=np.array(times, dtype=np.int64),
        fields={"x": where.astype(np.float64)},
        headers=None,
        next_offset=last + 1 if end is None else end,
        polled_ns=7,
        dead=[DeadLetter(stream, partition, o, None, b"", "decode", "empty", "empty value", "") for o in sorted(dead)],
        marks=list(marks),
    )


def scored(partitions: Sequence[int], keys: Sequence[bytes | None]) -> ScoredRows:
    """Rows whose ids, offsets and times are their places."""
    whole = np.arange(len(partitions))
    return ScoredRows([str(i) for i in whole], list(keys), whole, np.array(partitions), whole, None)
