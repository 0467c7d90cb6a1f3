"""The order of co-partitioned streams by brute force: head against head, one event at a time, from the definition.

stream 0:  3  9 |            of the heads 3 and 5 the smallest goes first: 3, 5, 7 — then 9 waits, since
stream 1:  5  7 |  mark 8    stream 1 may still bring an 8: its watermark says only that nothing is below 8
"""

from __future__ import annotations

from collections.abc import Sequence


def head_merge(buffers: Sequence[Sequence[int]], watermarks: Sequence[int], *, waits: bool) -> list[tuple[int, int]]:
    """(stream, position in its buffer) of the events that may go, in their order.

    A stream without a head could bring, at the earliest, an event at its watermark. With `waits` the merge stops
    when such an event would have its turn.
    """
    order: list[tuple[int, int]] = []
    taken = [0] * len(buffers)
    while True:
        heads: list[tuple[int, int, bool]] = []
        for stream, (buffer, mark) in enumerate(zip(buffers, watermarks, strict=True)):
            if taken[stream] < len(buffer):
                heads.append((buffer[taken[stream]], stream, True))
            elif waits:
                heads.append((mark, stream, False))
        if not heads:
            return order
        _, stream, known = min(heads)
        if not known:
            return order
        order.append((stream, taken[stream]))
        taken[stream] += 1
