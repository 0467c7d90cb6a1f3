"""Which segments of the join's store are still needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable


class Segments:
    """Counts, by segment, what of it still waits: a prediction by its place, a label by its id."""

    def __init__(self) -> None:
        self._of: dict[Hashable, int] = {}
        self._left: Counter[int] = Counter()
        self._emptied: list[int] = []

    def __len__(self) -> int:
        """Segments that are needed."""
        return len(self._left)

    def add(self, number: int, names: Iterable[Hashable]) -> None:
        """`names` lie in the segment `number`."""
        added = dict.fromkeys(names, number)
        if added:
            if again := added.keys() & self._of.keys():  # they lie in the later one from now on
                self._emptied = self.remove(again)
            self._of.update(added)
            self._left[number] += len(added)

    def remove(self, names: Iterable[Hashable]) -> list[int]:
        """`names` are not needed any more; returns the segments of which nothing is."""
        empty, self._emptied = self._emptied, []
        for name in names:
            number = self._of.pop(name, None)
            if number is None:
                continue
            self._left[number] -= 1
            if not self._left[number]:
                del self._left[number]
                empty.append(number)
        return empty
