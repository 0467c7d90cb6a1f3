"""The order of events across the co-partitioned streams of one partition: smallest head timestamp first.

Ties go to the stream declared first. Live traffic does not wait for a stream whose buffer is empty. Where a watermark
has been seen on any of the streams, the merge waits until it knows every head, so that the order, and with it every
feature, is the same in each run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NO_WATERMARK = -1


def merge_order(
    times: Sequence[np.ndarray], watermarks: Sequence[int], *, waits: bool
) -> tuple[list[int], list[np.ndarray]]:
    """Which buffered events may go, and in which order.

    times: event times int64 [n_s] of each stream's buffer, in offset order (not necessarily sorted).
    watermarks: per stream, a time that no record after its buffer is below; NO_WATERMARK if none is known.
    waits: whether a stream whose next event is unknown holds the others back.

    Returns how many events of each stream go (a prefix of its buffer), and their places in the common order, int64.
    """
    if len(times) == 1:
        return [len(times[0])], [np.arange(len(times[0]))]
    # A head that is older than one already taken goes at once, so an event's turn comes at the running maximum.
    turns = [np.maximum.accumulate(t) if len(t) else t for t in times]
    if waits:
        counts = _known(turns, watermarks)
    else:
        counts = [len(t) for t in turns]
    turn = np.concatenate([t[:n] for t, n in zip(turns, counts, strict=True)])
    stream = np.repeat(np.arange(len(times)), counts)
    position = np.concatenate([np.arange(n) for n in counts])
    places = np.empty(len(turn), dtype=np.int64)
    places[np.lexsort((position, stream, turn))] = np.arange(len(turn))
    return counts, np.split(places, np.cumsum(counts)[:-1])


def _known(turns: Sequence[np.ndarray], watermarks: Sequence[int]) -> list[int]:
    """Prefix lengths up to the first turn at which some stream's head is not known.

    Stream s is known up to (its buffer's last turn or its watermark, s): a later record of it comes after that.
    """
    ends = [
        (max(int(t[-1]) if len(t) else NO_WATERMARK, mark), s)
        for s, (t, mark) in enumerate(zip(turns, watermarks, strict=True))
    ]
    time, owner = min(ends)
    # At equal times the streams declared before the owner have their turn first, those after it wait for it.
    return [
        int(np.searchsorted(t, time, side="right" if s <= owner else "left")) for s, t in enumerate(turns)
    ]
