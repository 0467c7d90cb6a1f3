"""Whether this process stood still: stopped, swapped out, or asleep with its machine.

While it does, its session with Kafka runs out and its partitions go to others, and it is the last one to know.
"""

from __future__ import annotations

import time
from collections.abc import Callable

BEAT_S = 0.5
_REMEMBERED_S = 60.0


def _clock() -> float:
    """Seconds that pass while the machine sleeps, too, where the system counts these."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Pulse:
    """`beat` is called all the time; a gap between two beats is a time in which nothing ran.

    What was before the first beat does not count: a process that starts may compile for longer than a session lasts.
    """

    def __init__(self, clock: Callable[[], float] = _clock) -> None:
        self._clock = clock
        self._last: float | None = None
        self._longest_s = self._seen = 0.0

    def beat(self) -> None:
        now = self._clock()
        gap = 0.0 if self._last is None else now - self._last
        if gap > self._longest_s or now - self._seen > _REMEMBERED_S:
            self._longest_s, self._seen = gap, now
        self._last = now

    def stood_still_s(self) -> float:
        """The longest gap of the last minute, with the one since the last beat."""
        self.beat()
        return self._longest_s
