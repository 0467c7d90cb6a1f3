"""What decoding gives: the usable records of a batch as columns, and the others as dead letters."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from features.arrivals import picked
from streams.batches import Headers, RecordBatch

if TYPE_CHECKING:
    from streams.hop import Origin


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that cannot be used: where it stood, its raw bytes, and why.

    code: the reason as one of a few words, for counting; reason: for a person.
    """

    stream: int
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    stage: str
    code: str
    reason: str
    field: str

    @classmethod
    def of(cls, batch: RecordBatch, i: int, stage: str, code: str, reason: str, field: str) -> DeadLetter:
        """Record `i` of a batch."""
        offset = int(batch.offsets[i])
        return cls(
            batch.stream, batch.partition, offset, batch.keys[i], batch.values[i], stage, code, reason, field
        )


@dataclass(slots=True)
class Decoded:
    """The usable records of a batch as columns, and what else stood between them.

    keys, ids, offsets, times, fields: of the m usable records; `fields` as features.spec.Columns.
    headers: list [m] or None.
    dead: records that are not usable; marks: (offset, time) of watermark records; both in offset order.
    next_offset: the offset after the batch, usable or not.
    bits: int64 [m], the rules of the source that each record breaks (monitors.conditions); None where it has no rules.
    origin: where the records came from first, in a pipeline with remote groups.
    """

    stream: int
    partition: int
    keys: list[bytes | None]
    ids: list[str]
    offsets: np.ndarray
    times: np.ndarray
    fields: dict[str, Any]
    headers: list[Headers | None] | None
    next_offset: int
    polled_ns: int
    dead: list[DeadLetter] = field(default_factory=list)
    marks: list[tuple[int, int]] = field(default_factory=list)
    bits: np.ndarray | None = None
    origin: Origin | None = None

    def __len__(self) -> int:
        return len(self.times)

    def cut(self, start: int, stop: int) -> Decoded:
        """Records [start, stop) alone, without dead letters and marks."""
        if start == 0 and stop == len(self):
            return self
        return Decoded(
            self.stream,
            self.partition,
            self.keys[start:stop],
            self.ids[start:stop],
            self.offsets[start:stop],
            self.times[start:stop],
            {name: column[start:stop] for name, column in self.fields.items()},
            None if self.headers is None else self.headers[start:stop],
            self.next_offset,
            self.polled_ns,
            bits=None if self.bits is None else self.bits[start:stop],
            origin=None if self.origin is None else self.origin.cut(start, stop),
        )

    def only(self, places: np.ndarray) -> Decoded:
        """The records at `places` alone; what else stood between them stays."""
        return replace(
            self,
            keys=picked(self.keys, places),
            ids=picked(self.ids, places),
            offsets=self.offsets[places],
            times=self.times[places],
            fields={name: picked(column, places) for name, column in self.fields.items()},
            headers=None if self.headers is None else picked(self.headers, places),
            bits=None if self.bits is None else self.bits[places],
            origin=None if self.origin is None else self.origin.at(places),
        )

    def alone(self, start: int, stop: int) -> Decoded:
        """`cut`, with copies of its own: while it waits, the records beside it need not stay."""
        piece = self.cut(start, stop)
        piece.offsets, piece.times = piece.offsets.copy(), piece.times.copy()
        piece.fields = {n: c.copy() if isinstance(c, np.ndarray) else c for n, c in piece.fields.items()}
        piece.bits = None if piece.bits is None else piece.bits.copy()
        return piece

    @property
    def _first(self) -> int:
        """The offset of the first that stands in it; `next_offset` where nothing does."""
        firsts = [letter.offset for letter in self.dead[:1]] + [offset for offset, _ in self.marks[:1]]
        if len(self.offsets):
            firsts.append(int(self.offsets[0]))
        return min(firsts, default=self.next_offset)

    def since(self, offset: int) -> Decoded:
        """What stands at `offset` or after, dead letters and marks too."""
        if self._first >= offset:
            return self
        rest = self.cut(int(self.offsets.searchsorted(offset)), len(self))
        dead, marks = [d for d in self.dead if d.offset >= offset], [m for m in self.marks if m[0] >= offset]
        return replace(rest, dead=dead, marks=marks)
