"""One partition of a pipeline: its buffers in every stream, its recovery, and what may go into the next round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from streams.decoded import DeadLetter, Decoded
from streams.merge import NO_WATERMARK, merge_order


class Position(NamedTuple):
    """How far a stream of a partition has come.

    watermark: the last one before `next_offset`; time: the newest event time before it. Both in ms, -1 = none.
    """

    next_offset: int
    watermark: int = NO_WATERMARK
    time: int = -1


@dataclass(slots=True)
class Take:
    """What a lane gives to a round, without removing it: events by stream in order, dead letters, new positions.

    pieces: Decoded pieces of each stream; replayed: those that only update features (they were scored before).
    places: per stream, the place of its events in the partition's order, int64.
    """

    partition: int
    pieces: list[list[Decoded]]
    replayed: list[list[Decoded]]
    places: list[np.ndarray]
    dead: list[DeadLetter]
    positions: dict[int, Position]

    @property
    def records(self) -> int:
        return sum(len(d) for pieces in (*self.pieces, *self.replayed) for d in pieces)

    def replay(self) -> Take | None:
        """What it replays, alone; None if nothing. What it scores comes with a later take."""
        if not any(self.replayed):
            return None
        nothing = [np.empty(0, np.int64)] * len(self.places)
        return Take(self.partition, [[] for _ in self.pieces], self.replayed, nothing, [], {})


class _Buffer:
    """One stream of the partition: batches not yet in a round."""

    __slots__ = ("ahead", "chunks", "end", "position", "replay", "target")

    def __init__(self, position: Position, target: int) -> None:
        self.chunks: list[Decoded] = []
        self.replay: list[Decoded] = []
        self.position = position  # acknowledged
        self.target = target  # records below were scored before; the lane is recovered when all streams are there
        self.end = position.next_offset  # received
        self.ahead = position.watermark  # the last watermark received

    def __len__(self) -> int:
        return sum(map(len, self.chunks))

    def times(self) -> np.ndarray:
        if len(self.chunks) == 1:
            return self.chunks[0].times
        return np.concatenate([np.empty(0, np.int64), *(c.times for c in self.chunks)])


class Lane:
    """Buffers, merges and hands out the events of one partition.

    start: per stream, where reading begins; committed: per stream, up to where its events were scored before.
    generation: of this reading of the partition; batches of another one are not for this lane.
    """

    def __init__(self, partition: int, start: Sequence[int], committed: Sequence[Position], generation: int) -> None:
        self.partition = partition
        self.generation = generation
        self._buffers = [
            _Buffer(c._replace(next_offset=s), c.next_offset) for s, c in zip(start, committed, strict=True)
        ]
        self._waits = any(c.watermark != NO_WATERMARK for c in committed)
        self._left = [0] * len(self._buffers)  # records that the last take had to leave

    @property
    def recovered(self) -> bool:
        """Whether every stream has been read up to where it was committed."""
        return all(b.end >= b.target and not b.replay for b in self._buffers)

    @property
    def buffered(self) -> list[int]:
        """Records waiting, by stream."""
        return [len(b) + sum(map(len, b.replay)) for b in self._buffers]

    @property
    def held(self) -> bool:
        """Whether there are records, and the last take found that all of them wait until another stream says more."""
        return any(self._left) and self._left == self.buffered

    @property
    def positions(self) -> list[Position]:
        """What has been acknowledged, by stream."""
        return [b.position for b in self._buffers]

    def received(self, stream: int) -> int:
        """The offset that comes next in a stream."""
        return self._buffers[stream].end

    def add(self, batch: Decoded) -> None:
        """Takes in a decoded batch; records that were scored before are kept apart, to update features only."""
        buffer = self._buffers[batch.stream]
        if batch.next_offset <= buffer.end:
            return  # read again
        batch = batch.since(buffer.end)
        buffer.end = batch.next_offset
        self._left = [0] * len(self._buffers)
        for _, time in batch.marks:
            buffer.ahead = max(buffer.ahead, time)
            self._waits = True
        if old := int(batch.offsets.searchsorted(buffer.target)):
            buffer.replay.append(batch.cut(0, old))
        if batch.next_offset > buffer.target:
            rest = batch.since(buffer.target)
            buffer.chunks.append(rest if rest is batch else replace(rest, marks=batch.marks))
        self._settle()

    def reached(self, stream: int, offset: int) -> None:
        """The stream has no record below `offset` that has not been added (its end, say)."""
        buffer = self._buffers[stream]
        buffer.end = max(buffer.end, offset)
        self._settle()

    def take(self) -> Take | None:
        """What may go now; None if nothing. The same again until `drop`."""
        buffers = self._buffers
        if not any(b.chunks or b.replay for b in buffers):  # most lanes of a round that has few records
            return None
        replayed = [b.replay for b in buffers]
        if not self._caught_up:
            if not any(replayed):
                return None
            nothing = [np.empty(0, np.int64)] * len(buffers)
            return Take(self.partition, [[] for _ in buffers], replayed, nothing, [], {})
        counts, places = merge_order([b.times() for b in buffers], [b.ahead for b in buffers], waits=self._waits)
        self._left = [len(b) - count for b, count in zip(buffers, counts, strict=True)]
        take = Take(self.partition, [], replayed, places, [], {})
        for stream, (buffer, count) in enumerate(zip(buffers, counts, strict=True)):
            pieces, position = _prefix(buffer, count, take.dead)
            take.pieces.append(pieces)
            if position != buffer.position:
                take.positions[stream] = position
        return take if take.positions or take.records else None

    def drop(self, take: Take) -> None:
        """The round with `take` is done: its records leave the buffers and count as acknowledged."""
        for stream, buffer in enumerate(self._buffers):
            buffer.replay = buffer.replay[len(take.replayed[stream]) :]
            if stream in take.positions:
                buffer.position = take.positions[stream]
                _advance(buffer)
        self._settle()

    def _settle(self) -> None:
        """Once recovered, the lane stands where it was committed, whether or not a record lay just before."""
        if self.recovered:
            for buffer in self._buffers:
                if buffer.position.next_offset < buffer.target:
                    buffer.position = buffer.position._replace(next_offset=buffer.target)

    @property
    def _caught_up(self) -> bool:
        return all(b.end >= b.target for b in self._buffers)


def _prefix(buffer: _Buffer, count: int, dead: list[DeadLetter]) -> tuple[list[Decoded], Position]:
    """The first `count` records as pieces, and the position after them; adds the dead letters before it."""
    pieces: list[Decoded] = []
    position = buffer.position
    for chunk in buffer.chunks:
        stop = min(count, len(chunk))
        count -= stop
        next_offset = chunk.next_offset if stop == len(chunk) else int(chunk.offsets[stop])
        dead += [d for d in chunk.dead if position.next_offset <= d.offset < next_offset]
        marks = [time for offset, time in chunk.marks if offset < next_offset]
        newest = position.time
        if stop:
            pieces.append(chunk.cut(0, stop))
            newest = max(newest, int(np.maximum.reduce(chunk.times[:stop])))
        position = Position(max(next_offset, position.next_offset), max([position.watermark, *marks]), newest)
        if stop < len(chunk):
            break
    return pieces, position


def _advance(buffer: _Buffer) -> None:
    """Removes what the buffer's position covers."""
    done = buffer.position.next_offset
    buffer.chunks = [chunk.since(done) for chunk in buffer.chunks if chunk.next_offset > done]
