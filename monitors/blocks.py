"""Predictions and labels become blocks: each is added to the block of its event time, which closes by the watermark.

Only sums are kept, never rows, and all of them are integers: a block is the same to the last bit however its records
were cut into batches and however partitions took turns. What came after its block was closed depends on that, of
course; it counts in the lowest open block, and as late.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import TypeVar

import msgspec
import numpy as np

from monitors.block import Block, Positions, texts
from monitors.errors import RecordRefused
from monitors.join import Joined
from monitors.open_block import OpenBlock
from monitors.predictions import Kinds, Prediction
from monitors.statistics import Columns

FINISHED = 2**63
"""The watermark when nothing more will come: all blocks close."""

_R = TypeVar("_R", Prediction, Joined)
_LABELS = ("late", "missing", "unmatched", "duplicate", "conflicting")


_Sums = dict[str, list[int]]
_decode_sums = msgspec.json.Decoder(dict[int, tuple[_Sums, dict[str, _Sums]]]).decode


class _Saved(msgspec.Struct):
    """A snapshot. sums: of versions and pairs by block, as JSON: msgpack's integers end at 64 bits."""

    pipeline: str
    kinds: list[tuple[str, str]]
    every: tuple[int | None, int | None]
    lowest: int | None
    closed_ms: int | None
    blocks: dict[int, OpenBlock]
    sums: str
    columns: dict[int, tuple[bytes, bytes]]


class BlockBuilder:
    """The open blocks of a pipeline.

    every_ms: length of a block in event time; block k is [k · every_ms, (k + 1) · every_ms). every_events: instead,
    a block is closed once it holds so many predictions; it is numbered from 0, covers the event times that it holds,
    and depends on when `close` is called. Exactly one of them is given (else ValueError).
    within_ms: how long a label is waited for; a prediction that stays without one counts in the block that holds its
    time + within_ms, where this is known.
    """

    def __init__(
        self,
        pipeline: str,
        kinds: Kinds,
        *,
        every_ms: int | None = None,
        every_events: int | None = None,
        within_ms: int = 0,
    ) -> None:
        given = [every for every in (every_ms, every_events) if every is not None]
        if len(given) != 1 or given[0] <= 0:
            raise ValueError("blocks have a length, in time or in events, above 0")
        self._pipeline, self._kinds, self._within = pipeline, dict(kinds), within_ms
        self._every_ms, self._every_events = every_ms, every_events
        self._open: dict[int, OpenBlock] = {}
        self._columns = Columns(sum(kind == "number" for kind in kinds.values()) + 2)
        self._lowest = None if every_events is None else 0
        self._closed_ms: int | None = None

    @property
    def closed_ms(self) -> int | None:
        """The end of the last closed block; None before."""
        return self._closed_ms

    def predictions(self, found: Sequence[Prediction]) -> None:
        """Takes predictions in, each source record once (see SeenOffsets)."""
        times = _times(found, "time")
        for number, part in self._by_block(found, times):
            self._block(number).add_predictions(part, self._kinds, self._columns.of(number))
        self._note(times, times)

    def joined(self, found: Sequence[Joined]) -> None:
        """Takes pairs in; they count in the block of the later of the two times.

        One counts as late where that is the label's time: a late prediction was counted before.
        """
        labelled = [pair for pair in found if pair[1] is not None]
        labels = _times(labelled, "label.time")
        predictions = _times(labelled, "prediction.time")
        times = np.maximum(labels, predictions)
        for number, part in self._by_block(labelled, times):
            self._block(number).add_labelled(part, self._columns.of(number))
        self._note(times, labels[labels > predictions])
        if len(labelled) < len(found):
            missing = [pair for pair in found if pair[1] is None]
            for number, part in self._by_block(missing, _times(missing, "prediction.time") + self._within):
                self._add_counts(number, {"missing": len(part)})

    def counts(
        self, *, late: int = 0, unmatched: int = 0, duplicate: int = 0, conflicting: int = 0, time_ms: int
    ) -> None:
        """Counts labels that made no pair, at event time `time_ms`."""
        counts = {"late": late, "unmatched": unmatched, "duplicate": duplicate, "conflicting": conflicting}
        if any(counts.values()):
            self._add_counts(self._number(time_ms), counts)

    def close(self, watermark_ms: int, positions: Positions) -> list[Block]:
        """The blocks that end at or before the watermark, in order; they are forgotten.

        positions: from which to read on after them.
        """
        return [self._close(number, positions) for number in sorted(self._open) if self._ends(number, watermark_ms)]

    def resume(self, last: Block) -> None:
        """Begins after a block that was closed before: what belongs there or earlier is late."""
        self._lowest, self._closed_ms = last.number + 1, last.end

    def snapshot(self) -> bytes:
        """The open sums. Restored, they go on to the same blocks."""
        sums = {number: [block.versions, block.paired] for number, block in self._open.items()}
        bare = {n: msgspec.structs.replace(block, versions={}, paired={}) for n, block in self._open.items()}
        return msgspec.msgpack.encode(
            _Saved(
                self._pipeline,
                list(self._kinds.items()),
                (self._every_ms, self._every_events),
                self._lowest,
                self._closed_ms,
                bare,
                json.dumps(sums, sort_keys=True),
                self._columns.snapshot(),
            ),
        )

    def restore(self, data: bytes) -> None:
        """Raises RecordRefused for what is no snapshot of a builder like this one, and stays as it was."""
        try:
            saved = msgspec.msgpack.decode(data, type=_Saved)
            mine = (self._pipeline, list(self._kinds.items()), (self._every_ms, self._every_events))
            if (saved.pipeline, saved.kinds, saved.every) != mine:
                raise ValueError("it is of other blocks or features")
            for number, (versions, paired) in _decode_sums(saved.sums).items():
                saved.blocks[number].versions, saved.blocks[number].paired = versions, paired
            self._columns.restore(saved.columns)
        except (msgspec.MsgspecError, ValueError, KeyError) as error:
            raise RecordRefused(f"not a snapshot of open blocks: {error}") from None
        self._open, self._lowest, self._closed_ms = saved.blocks, saved.lowest, saved.closed_ms

    def _block(self, number: int) -> OpenBlock:
        return self._open.setdefault(number, OpenBlock())

    def _add_counts(self, number: int, counts: Mapping[str, int]) -> None:
        block = self._block(number)
        for name, n in counts.items():
            block.counts[name] = block.counts.get(name, 0) + n

    def _number(self, time_ms: int) -> int:
        if self._every_ms is None:
            return self._lowest or 0
        number = time_ms // self._every_ms
        return number if self._lowest is None else max(number, self._lowest)

    def _by_block(self, found: Sequence[_R], times: np.ndarray) -> Iterator[tuple[int, Sequence[_R]]]:
        """The records by the number of their block. times: int64 [n] ms."""
        if not found:
            return
        first, last = self._number(int(times.min())), self._number(int(times.max()))
        if first == last or self._every_ms is None:
            yield first, found
            return
        numbers = times // self._every_ms
        if self._lowest is not None:
            np.maximum(numbers, self._lowest, out=numbers)
        order = np.argsort(numbers, kind="stable")
        starts: list[int] = np.flatnonzero(np.diff(numbers[order], prepend=numbers[order[0]] - 1)).tolist()
        for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
            yield int(numbers[order[start]]), [found[row] for row in order[start:stop].tolist()]

    def _note(self, times: np.ndarray, fresh: np.ndarray) -> None:
        """Notes which event times the open block of events covers; of blocks of time, what came too late."""
        if self._every_ms is None:
            if len(times):
                self._block(self._number(0)).cover(int(times.min()), int(times.max()))
        elif self._closed_ms is not None and self._lowest is not None:
            late = int((fresh < self._closed_ms).sum())
            if late:
                self._block(self._lowest).late += late

    def _ends(self, number: int, watermark_ms: int) -> bool:
        if watermark_ms >= FINISHED:
            return True
        if self._every_ms is not None:
            return (number + 1) * self._every_ms <= watermark_ms
        return self._open[number].predictions >= (self._every_events or 1)

    def _close(self, number: int, positions: Positions) -> Block:
        block, cells = self._open.pop(number), self._columns.pop(number)
        if self._every_ms is not None:
            start, end = number * self._every_ms, (number + 1) * self._every_ms
        else:
            start = block.first if block.first is not None else self._closed_ms or 0
            end = block.last + 1 if block.last is not None else start
        self._lowest = number + 1
        self._closed_ms = end if self._closed_ms is None else max(self._closed_ms, end)
        features, score = block.columns(self._kinds, cells)
        return Block(
            f"{self._pipeline}-{number}",
            self._pipeline,
            number,
            start,
            end,
            block.predictions,
            block.unscored,
            block.late,
            dict(sorted(block.served.items())),
            features,
            score,
            block.labels(cells),
            block.losses(),
            block.pairs(),
            texts(positions),
        )


def _times(found: Sequence[Prediction] | Sequence[Joined], name: str) -> np.ndarray:
    return np.array(list(map(attrgetter(name), found)), dtype=np.int64)
