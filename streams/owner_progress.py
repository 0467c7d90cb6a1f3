"""How far the owner of a remote group is in each of its partitions: what it writes beside its rows, for readers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from features.progress import NEVER, Progress
from streams.lane import Lane
from streams.rounds import Work


class OwnerProgress:
    """Notes it between rounds. now_ms: the clock."""

    def __init__(self, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self.now_ms = now_ms
        self._complete: dict[int, tuple[int, int]] = {}
        """By partition: the generation of its lane, and up to when all is in. One that begins again knows nothing."""

    def worked_off(self, work: Work, lanes: Mapping[int, Lane]) -> None:
        """A round is acknowledged: what its senders sent up to its newest record is in."""
        for take in work.takes:
            pieces = [piece for stream in (*take.replayed, *take.pieces) for piece in stream]
            sent = [int(piece.origin.sent[-1]) for piece in pieces if piece.origin is not None and len(piece)]
            if sent:
                self._note(lanes[take.partition], max(sent))

    def at_end(self, lane: Lane, asked_ms: int) -> None:
        """All that the partition held at `asked_ms` has been worked off."""
        self._note(lane, asked_ms)

    def of(self, lanes: Mapping[int, Lane]) -> dict[int, Progress]:
        """As of what the lanes have acknowledged."""
        found = {}
        for partition, lane in lanes.items():
            generation, complete = self._complete.get(partition, (0, NEVER))
            found[partition] = Progress(lane.positions[0].time, complete if generation == lane.generation else NEVER)
        return found

    def _note(self, lane: Lane, complete_ms: int) -> None:
        generation, before = self._complete.get(lane.partition, (0, NEVER))
        if generation == lane.generation:
            complete_ms = max(complete_ms, before)
        self._complete[lane.partition] = lane.generation, complete_ms
