"""Where a partition's reading begins, from what Redis holds and what Kafka has committed: pure decisions.

The state of each group of features, those of one entity, is worth something by itself: what is known goes on, what is
new, has changed, or cannot be used is rebuilt from the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from features.store import Group, Meta, Vector
from streams.lane import Position


@dataclass(frozen=True)
class Plan:
    """By number, the groups whose stored state is used, `since` being what it covers; and those that are made anew from
    the log, with the reason. dropped: the store has groups that are not wanted any more.
    """

    kept: Mapping[int, Group]
    rebuilt: Mapping[int, str]
    dropped: bool = False

    @property
    def resumes(self) -> bool:
        """Whether the store's record stays as it is: the state is at or before the committed offsets, and read on."""
        return not self.rebuilt and not self.dropped

    def start(self, rebuilt: Sequence[int]) -> list[int]:
        """Where reading begins, by stream. rebuilt: where it would for the groups that are rebuilt alone."""
        starts = [*([rebuilt] if self.rebuilt else []), *(group.since for group in self.kept.values())]
        return [min(offsets) for offsets in zip(*starts, strict=True)] or list(rebuilt)

    def begun(
        self, epoch: int, state_hash: str, hashes: Mapping[int, str], start: Sequence[int], committed: Sequence[int]
    ) -> Meta:
        """The record of a new incarnation, which takes its epoch for it. hashes: of the groups that are wanted."""
        fresh = {number: Group(hashes[number], epoch) for number in self.rebuilt}
        until = tuple(committed) if self.rebuilt and tuple(start) != tuple(committed) else ()
        return Meta(epoch, epoch, state_hash, tuple(start), until, groups={**self.kept, **fresh})


def plan(meta: Meta | None, hashes: Mapping[int, str], committed: Sequence[int], low: Sequence[int]) -> Plan:
    """What to do with a partition.

    hashes: of the groups that are wanted, by number; committed: per stream, the offset up to which events were scored;
    low: the oldest offset that Kafka still has.
    """
    if meta is None:
        return rebuild_all(hashes, "no state is stored")
    kept: dict[int, Group] = {}
    rebuilt: dict[int, str] = {}
    for number, hash in hashes.items():
        group = meta.groups.get(number)
        if group is None or group.hash != hash:
            rebuilt[number] = "no state is stored of these features"
        elif reason := _unusable(covered := group.covers(meta.vector), committed, low):
            rebuilt[number] = reason
        else:
            kept[number] = group._replace(since=covered)
    found = Plan(kept, rebuilt, dropped=not meta.groups.keys() <= hashes.keys())
    if found.resumes or not meta.rebuilding:
        return found
    # A new incarnation knows of its own rebuild alone: one that was not finished is begun anew with it.
    unfinished = [number for number, group in kept.items() if group.incarnation == meta.incarnation]
    reasons = dict.fromkeys(unfinished, "it was being rebuilt")
    return Plan({n: group for n, group in kept.items() if n not in reasons}, {**rebuilt, **reasons}, found.dropped)


def rebuild_all(hashes: Mapping[int, str], reason: str) -> Plan:
    """Nothing of what is stored is used."""
    return Plan({}, dict.fromkeys(hashes, reason), dropped=False)


def _unusable(covered: Vector, committed: Sequence[int], low: Sequence[int]) -> str:
    """Why state that covers so much cannot be used; empty if it can."""
    if len(covered) != len(committed) or any(r > k for r, k in zip(covered, committed, strict=True)):
        return f"the stored state ({covered}) is ahead of the committed offsets ({tuple(committed)})"
    if any(r < oldest for r, oldest in zip(covered, low, strict=True)):
        return f"events after the stored state ({covered}) are gone from Kafka (oldest: {tuple(low)})"
    return ""


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


def rebuild_at(committed: Sequence[Position], low: Sequence[int], since: Sequence[int] | None) -> list[int]:
    """Per stream, the offset at which a rebuild begins to read: no later than what is committed.

    low: the oldest offset there is. since: the first one from the times of `rebuild_from` on, -1 where none is so new;
    None = from the beginning.
    """
    found = low if since is None else since
    return [
        min(k.next_offset, max(oldest, first)) if first >= 0 else k.next_offset
        for k, oldest, first in zip(committed, low, found, strict=True)
    ]
