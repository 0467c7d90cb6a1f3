"""A circuit breaker: after a failure, leave the server alone for a while, and longer each time."""

from __future__ import annotations

from collections.abc import Callable

_FIRST_S = 0.5
_LONGEST_S = 8.0


class Breaker:
    """Closed at first. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pause_s = 0.0
        self._until_s = 0.0

    @property
    def closed(self) -> bool:
        """Whether the server may be asked now; once a pause is over, one try decides about the next."""
        return self._clock() >= self._until_s

    def failed(self) -> None:
        self._pause_s = min(max(_FIRST_S, 2 * self._pause_s), _LONGEST_S)
        self._until_s = self._clock() + self._pause_s

    def succeeded(self) -> None:
        self._pause_s = self._until_s = 0.0
