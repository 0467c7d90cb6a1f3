"""How far a topic has been read, in event time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

IDLE_S = 5.0
LONGEST_S = 60.0


class Clock:
    """The event time up to which a topic of `partitions` partitions has been read, ms; −1 = nothing yet.

    It is the least of its partitions'. One that is idle does not hold the others up: at its end for `idle_s`, or
    without any record so far, and nothing is to come (`waits` says whether something is; after a minute it does not
    matter).
    """

    def __init__(
        self,
        partitions: int,
        *,
        idle_s: float = IDLE_S,
        waits: Callable[[int], bool] = lambda _: False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._partitions, self._idle_s, self._waits, self._monotonic = partitions, idle_s, waits, monotonic
        self._times: dict[int, int] = {}
        self._ended: dict[int, float] = {}

    @property
    def times(self) -> dict[int, int]:
        """The newest event time of each partition."""
        return dict(self._times)

    def restore(self, times: Mapping[int, int]) -> None:
        self._times = dict(times)

    def advance(self, partition: int, time_ms: int) -> None:
        """A record of the partition, or a watermark, says that it is `time_ms` there."""
        self._ended.pop(partition, None)
        self._times[partition] = max(time_ms, self._times.get(partition, -1))

    def at_end(self, partition: int) -> None:
        """The partition has no more records for now."""
        self._ended.setdefault(partition, self._monotonic())

    def went_on(self) -> None:
        """Nothing was read for a while: who was at its end may not be by now, and is waited for anew."""
        self._ended = dict.fromkeys(self._ended, self._monotonic())

    def now(self) -> int:
        times = self._times
        behind = [times.get(p, -1) for p in range(self._partitions) if not self._idle(p)]
        return min(behind) if behind else max(times.values(), default=-1)

    def _idle(self, partition: int) -> bool:
        ended = self._ended.get(partition)
        if ended is None:
            return False
        waited_s = self._monotonic() - ended
        if partition in self._times and waited_s < self._idle_s:
            return False
        return waited_s >= LONGEST_S or not self._waits(partition)
