"""What goes through a group's topic: an event as it came, where it came from, and the aggregates that it has so far.

The value of such a record, little-endian:

    version     u8          1; 2 = an event of before the group began (`streams.filling`): it counts, and is not scored
    names       u32         CRC32 of the names of the aggregates that it carries; 0 = none
    numbers     u16         how many
    key, trace  u16, u16    bytes of these
    partition   i32         of the event's record in its source
    offset      i64
    timestamp   i64         ms
    numbers     f64 […]
    key         bytes       of the event's record
    trace       bytes       its traceparent
    event       bytes       the value of its record
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from streams.batches import RecordBatch
from streams.decoded import DeadLetter, Decoded
from streams.kafka import MAX_OUTPUT_BYTES

_HEAD = struct.Struct("<BIHHHiqq")
_VERSION, _PAST = 1, 2
_NOTHING = _HEAD.pack(_VERSION, 0, 0, 0, 0, 0, 0, 0)
MAX_EVENT_BYTES = MAX_OUTPUT_BYTES - 16_384
"""Of an event that goes through a group's topic; the rest is for what stands before it."""


@dataclass(slots=True)
class Origin:
    """Where m records came from first, and what they carry.

    partitions, offsets, timestamps (ms): int64 [m], of the event's record in its source. sent: int64 [m], the timestamp
    of the record at hand. carried: float64 [m, k]; NaN also where the sender carried other aggregates. past: bool [m],
    which only count, having been scored before. values: bytes.
    """

    partitions: np.ndarray
    offsets: np.ndarray
    timestamps: np.ndarray
    sent: np.ndarray
    carried: np.ndarray
    past: np.ndarray
    values: list[bytes]

    def __len__(self) -> int:
        return len(self.values)

    def cut(self, start: int, stop: int) -> Origin:
        return self.at(slice(start, stop))

    def at(self, places: slice | np.ndarray) -> Origin:
        """Those at `places` alone."""
        if isinstance(places, slice):
            values = self.values[places]
        else:
            values = [self.values[place] for place in places.tolist()]
        partitions, offsets, timestamps = self.partitions[places], self.offsets[places], self.timestamps[places]
        of_each = self.sent[places], self.carried[places], self.past[places]
        return Origin(partitions, offsets, timestamps, *of_each, values)

    @classmethod
    def joined(cls, parts: Sequence[Origin]) -> Origin:
        return cls(
            np.concatenate([part.partitions for part in parts]),
            np.concatenate([part.offsets for part in parts]),
            np.concatenate([part.timestamps for part in parts]),
            np.concatenate([part.sent for part in parts]),
            np.concatenate([part.carried for part in parts]),
            np.concatenate([part.past for part in parts]),
            [value for part in parts for value in part.values],
        )


def digest_of(names: Sequence[str]) -> int:
    """Tells one set of carried aggregates from another."""
    return zlib.crc32("\n".join(names).encode()) if names else 0


def framed(
    origin: Origin,
    keys: Sequence[bytes | None],
    traces: Sequence[bytes | None] | None,
    carried: np.ndarray,
    names: Sequence[str],
) -> list[bytes]:
    """The values of n records. carried: float64 [n, len(names)]."""
    count, digest, width = len(names), digest_of(names), 8 * len(names)
    numbers = np.ascontiguousarray(carried, dtype="<f8").tobytes()
    own = [key or b"" for key in keys]
    trails = [b""] * len(own) if traces is None else [trace or b"" for trace in traces]
    head, versions = _HEAD.pack, np.where(origin.past, _PAST, _VERSION)
    columns = [column.tolist() for column in (versions, origin.partitions, origin.offsets, origin.timestamps)]
    rows = zip(
        *columns, own, trails, origin.values, range(0, width * len(own) or len(own), width or 1), strict=True,
    )  # fmt: skip
    return [
        b"".join((head(version, digest, count, len(key), len(trace), partition, offset, timestamp),
                  numbers[at : at + width], key, trace, value))
        for version, partition, offset, timestamp, key, trace, value, at in rows
    ]  # fmt: skip


def unframed(batch: RecordBatch, names: Sequence[str]) -> tuple[RecordBatch, Origin, list[DeadLetter]]:
    """The events in a batch of a group's topic, as the records that they came in, but for offsets.

    names: of the aggregates that they are to carry. What is no such record is a dead letter.
    """
    count, digest, width = len(names), digest_of(names), 8 * len(names)
    framed_values, dead = _whole(batch)
    heads = [_HEAD.unpack_from(value) for value in framed_values]
    keys: list[bytes | None] = []
    values: list[bytes] = []
    headers: list[Any] = []
    numbers: list[bytes] = []
    for (_, of, many, key_size, trace_size, *_), value in zip(heads, framed_values, strict=True):
        key_at = _HEAD.size + 8 * many
        trace_at = key_at + key_size
        event_at = trace_at + trace_size
        keys.append(value[key_at:trace_at])
        headers.append([("traceparent", value[trace_at:event_at])] if trace_size else None)
        values.append(value[event_at:])
        numbers.append(value[_HEAD.size : key_at] if of == digest and many == count else b"")
    carried = np.full((len(values), count), np.nan)
    if whole := [i for i, found in enumerate(numbers) if len(found) == width]:
        joined = b"".join([numbers[i] for i in whole])
        carried[whole] = np.frombuffer(joined, dtype="<f8").reshape(len(whole), count)
    places = np.array([head[5:] for head in heads], dtype=np.int64).reshape(len(heads), 3)
    past = np.array([head[0] == _PAST for head in heads], dtype=np.bool_)
    origin = Origin(places[:, 0], places[:, 1], places[:, 2], batch.timestamps, carried, past, values)
    inner = replace(
        batch, keys=keys, values=list(values), timestamps=origin.timestamps, headers=headers if any(headers) else None
    )
    return inner, origin, dead


def beginning(batch: RecordBatch) -> tuple[RecordBatch, Origin, list[DeadLetter]]:
    """The same of a batch of the source itself: its records carry nothing yet. Events too long to go on are dead."""
    dead: list[DeadLetter] = []
    if max((len(value) for value in batch.values if value is not None), default=0) > MAX_EVENT_BYTES:
        long = [i for i, value in enumerate(batch.values) if value is not None and len(value) > MAX_EVENT_BYTES]
        dead = [_too_long(batch, i) for i in long]
        batch = replace(batch, values=[b"" if i in set(long) else value for i, value in enumerate(batch.values)])
    n = len(batch)
    partitions = np.full(n, batch.partition, dtype=np.int64)
    values = [value or b"" for value in batch.values]
    nothing, past = np.empty((n, 0)), np.zeros(n, dtype=np.bool_)
    origin = Origin(partitions, batch.offsets, batch.timestamps, batch.timestamps, nothing, past, values)
    return batch, origin, dead


def is_past(value: bytes) -> bool:
    """Whether a value of a group's topic is an event of before the group began."""
    return value[:1] == bytes([_PAST])


def with_origin(decoded: Decoded, batch: RecordBatch, origin: Origin, dead: Sequence[DeadLetter]) -> Decoded:
    """`decoded` with the origins of its records; batch and origin: what it was decoded from, one for one.

    dead: of records whose events were emptied, and are dead by now for that reason.
    """
    if len(decoded) < len(origin):
        origin = origin.at(np.searchsorted(batch.offsets, decoded.offsets))
    decoded.origin = origin
    if dead:
        mine = {letter.offset for letter in dead}
        others = [letter for letter in decoded.dead if letter.offset not in mine]
        decoded.dead = sorted([*others, *dead], key=lambda letter: letter.offset)
    return decoded


def _whole(batch: RecordBatch) -> tuple[list[bytes], list[DeadLetter]]:
    """The values; of what was not sent by a worker an empty event, and a dead letter."""
    known = _VERSION, _PAST
    good = [value is not None and len(value) >= _HEAD.size and value[0] in known for value in batch.values]
    values = [value if fine else _NOTHING for value, fine in zip(batch.values, good, strict=True)]
    dead = [] if all(good) else [_letter(batch, i) for i, fine in enumerate(good) if not fine]
    return values, dead  # type: ignore[return-value]


def _letter(batch: RecordBatch, i: int) -> DeadLetter:
    return _dead(batch, i, "malformed", "not a record that a worker of this pipeline sent: write nothing to this topic")


def _too_long(batch: RecordBatch, i: int) -> DeadLetter:
    size = len(batch.values[i] or b"")
    return _dead(batch, i, "too_long", f"{size} bytes; with remote groups an event has at most {MAX_EVENT_BYTES}")


def _dead(batch: RecordBatch, i: int, code: str, reason: str) -> DeadLetter:
    return DeadLetter.of(batch, i, "decode", code, reason, "")
