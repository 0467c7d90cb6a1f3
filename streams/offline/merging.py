"""Several streams of files in the order in which a worker takes them: what a replay with watermarks gives.

The buffers and the merge are a worker's own (`streams.lane`). Of the streams that are not yet at their end, the one
that has come the least far is read on, so that no more is held than the streams are apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from streams.decoded import Decoded
from streams.lane import Lane, Position, Take
from streams.offline.reading import Chunk
from streams.offline.rejects import Reject

END_MS = 2**62
"""Watermark of a stream that has ended."""


def merged(streams: Sequence[Iterator[Chunk]], rejected: Callable[[list[Reject]], None]) -> Iterator[list[Take]]:
    """What may go next, of each partition; `rejected` gets the rows that cannot be used, as they are read."""
    lanes: dict[int, Lane] = {}
    reached = [-1] * len(streams)
    while min(reached) < END_MS:
        stream = reached.index(min(reached))
        chunk = next(streams[stream], None)
        if chunk is None:
            reached[stream] = END_MS
            for lane in lanes.values():
                lane.add(_end(stream, lane))
        else:
            if chunk.rejects:
                rejected(chunk.rejects)
            for piece in chunk.pieces:
                reached[stream] = max(reached[stream], int(piece.times.max()))
                if piece.partition not in lanes:
                    lanes[piece.partition] = _lane(piece.partition, reached)
                lanes[piece.partition].add(piece)
        takes = [take for lane in lanes.values() if (take := lane.take()) is not None]
        for take in takes:
            lanes[take.partition].drop(take)
        if any(take.records for take in takes):
            yield takes


def _lane(partition: int, reached: Sequence[int]) -> Lane:
    """With a watermark on every stream the merge waits for all of them."""
    marks = [Position(0, END_MS if end == END_MS else 0) for end in reached]
    return Lane(partition, [0] * len(marks), marks, 0)


def _end(stream: int, lane: Lane) -> Decoded:
    """Nothing, and the watermark that nothing will follow."""
    end = lane.received(stream)
    nothing = np.empty(0, dtype=np.int64)
    return Decoded(
        stream, lane.partition, [], [], nothing, nothing, {}, None, end + 1, 0, marks=[(end, END_MS)]
    )
