"""When the stages of a round ended."""

from __future__ import annotations

import itertools
import time

from streams.tracing import Stage


class Stopwatch:
    """Marks the ends of a round's stages, from its making on."""

    def __init__(self) -> None:
        self._marks = [("", time.monotonic_ns())]

    def mark(self, stage: str) -> None:
        self._marks.append((stage, time.monotonic_ns()))

    def seconds(self) -> list[tuple[str, float]]:
        return [(name, (end - begin) / 1e9) for (_, begin), (name, end) in itertools.pairwise(self._marks)]

    @staticmethod
    def wall_ns(monotonic_ns: int) -> int:
        """The wall-clock time of a monotonic one, in ns since 1970."""
        return time.time_ns() - time.monotonic_ns() + monotonic_ns

    def stages(self) -> list[Stage]:
        return [self.wall((name, begin, end)) for (_, begin), (name, end) in itertools.pairwise(self._marks)]

    def wall(self, monotonic: Stage) -> Stage:
        """A stage with monotonic times, at the wall clock's."""
        name, begin_ns, end_ns = monotonic
        return name, self.wall_ns(begin_ns), self.wall_ns(end_ns)
