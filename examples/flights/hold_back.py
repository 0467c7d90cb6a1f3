"""How far a replay may run ahead of whoever reads last."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

Positions = dict[int, int]
"""An offset by partition."""


@dataclass
class HoldBack:
    """Bounds the requests, per partition, that the last consumer has not dealt with: in records and in bytes.

    committed: asks for that consumer's offsets on flights.requests, by partition.
    """

    committed: Callable[[], Positions]
    max_records: int = 1500
    max_bytes: int = 800_000  # of requests; a prediction is about five times as large
    _ahead: dict[int, deque[tuple[int, int]]] = field(default_factory=dict)
    _bytes: dict[int, int] = field(default_factory=dict)

    def sent(self, partition: int, offset: int, size: int) -> None:
        """A request was sent."""
        self._ahead.setdefault(partition, deque()).append((offset, size))
        self._bytes[partition] = self._bytes.get(partition, 0) + size

    def full(self, partition: int, share: float = 1.0) -> bool:
        """Whether as much as `share` of what may be ahead in the partition is ahead."""
        records, size = len(self._ahead.get(partition, ())), self._bytes.get(partition, 0)
        return records >= self.max_records * share or size >= self.max_bytes * share

    def wait(self, partition: int, pause: Callable[[float], object]) -> None:
        """Blocks while the partition is more than half full; `pause` takes the seconds to sleep."""
        while True:
            for found, offset in self.committed().items():
                self._forget(found, offset)
            if not self.full(partition, 0.5):
                return
            pause(0.005)

    def _forget(self, partition: int, committed: int) -> None:
        ahead = self._ahead.get(partition)
        while ahead and ahead[0][0] < committed:
            self._bytes[partition] -= ahead.popleft()[1]
