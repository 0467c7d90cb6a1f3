"""Where a partition's reading begins, from what Redis holds and what Kafka has committed: pure decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from features.store import Meta, Vector
from streams.lane import Position


@dataclass(frozen=True)
class Resume:
    """The stored state is of `vector`, at or before the committed offsets: read on from there."""

    vector: Vector


@dataclass(frozen=True)
class Rebuild:
    """The stored state cannot be used; `reason` says why. It is made anew from the log."""

    reason: str


def plan(meta: Meta | None, state_hash: str, committed: Sequence[int], low: Sequence[int]) -> Resume | Rebuild:
    """What to do with a partition.

    committed: per stream, the offset up to which events were scored; low: the oldest offset that Kafka still has.
    """
    if meta is None:
        return Rebuild("no state is stored")
    if meta.state_hash != state_hash:
        return Rebuild(f"the stored state is of other features ({meta.state_hash}, now {state_hash})")
    if len(meta.vector) != len(committed) or any(r > k for r, k in zip(meta.vector, committed, strict=True)):
        return Rebuild(f"the stored state ({meta.vector}) is ahead of the committed offsets ({tuple(committed)})")
    if any(r < oldest for r, oldest in zip(meta.vector, low, strict=True)):
        return Rebuild(f"events after the stored state ({meta.vector}) are gone from Kafka (oldest: {tuple(low)})")
    return Resume(meta.vector)


def within_log(committed: Sequence[Position], low: Sequence[int], high: Sequence[int]) -> list[Position]:
    """`committed`, by stream, but from the beginning where it lies outside of the log.

    Beyond `high`, its end, the log is another: an offset that was committed has been read, and Kafka loses no record;
    only a topic that was deleted and made again, or a hand, puts the end before it. Before `low`, its beginning,
    records are gone that were never read.
    """
    return [
        Position(oldest)
        if k.next_offset > end
        else k._replace(next_offset=max(oldest, k.next_offset))
        for k, oldest, end in zip(committed, low, high, strict=True)
    ]


def rebuild_from(committed: Sequence[Position], longest_ms: int, skews_ms: Sequence[int]) -> list[int] | None:
    """Per stream, the record timestamp (ms) from which a rebuild must read; None = from the beginning.

    A future event is at most the skew older than the newest one seen, it looks `longest_ms` back, and an event may be
    the skew ahead of its record's timestamp. An event that comes later than the skew may look back to before what is
    read, so for such events a rebuild is not exact. None where an offset was committed without its time (by another
    tool).
    """
    newest = max((p.time for p in committed), default=-1)
    if any(p.next_offset > 0 and p.time < 0 for p in committed) or newest < 0:
        return None
    return [max(0, newest - longest_ms - 2 * skew) for skew in skews_ms]
