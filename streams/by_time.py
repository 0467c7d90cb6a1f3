"""Events of several partitions put in the order of event time, as they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from streams.hop import Origin

_NEVER, _EVER = -1, 2**63 - 1
_EVENT_BYTES = 200
"""What an event takes beside its value."""


@dataclass(frozen=True)
class Events:
    """n events in some order. texts: the entities that they name; keys: of their records; times: int64 [n], event times
    in ms.
    """

    texts: list[str]
    keys: list[bytes | None]
    times: np.ndarray
    origin: Origin

    def __len__(self) -> int:
        return len(self.texts)

    def cut(self, start: int, stop: int) -> Events:
        places = slice(start, stop)
        return Events(self.texts[places], self.keys[places], self.times[places], self.origin.at(places))

    @classmethod
    def in_order(cls, parts: list[Events], order: np.ndarray) -> Events:
        """Those of all parts, one part after the other, in `order`."""
        texts, keys = [text for part in parts for text in part.texts], [key for part in parts for key in part.keys]
        places = order.tolist()
        return cls(
            [texts[i] for i in places],
            [keys[i] for i in places],
            np.concatenate([part.times for part in parts])[order],
            Origin.joined([part.origin for part in parts]).at(order),
        )


class ByTime:
    """Takes events in by partition, and gives them back by event time, equal times by partition.

    Within a partition the order stays that of the offsets: an event that comes late counts as of the newest before it.
    A partition waits for others alone, so the one that is furthest behind waits for none.

    starts: by partition, the offset that comes next.
    """

    def __init__(self, starts: Mapping[int, int]) -> None:
        self.open = set(starts)
        """Partitions of which more may come."""
        self._next = dict(starts)
        self._newest = dict.fromkeys(starts, _NEVER)
        self._bytes = dict.fromkeys(starts, 0)
        self._waiting: dict[int, list[tuple[Events, np.ndarray]]] = {p: [] for p in sorted(starts)}

    def add(self, partition: int, events: Events, next_offset: int) -> None:
        """The next events of a partition. next_offset: after them, and after what was there beside them."""
        self._next[partition] = next_offset
        if len(events):
            as_of = np.maximum(np.maximum.accumulate(events.times), self._newest[partition])
            self._newest[partition] = int(as_of[-1])
            self._bytes[partition] += _size(events.origin.values)
            self._waiting[partition].append((events, as_of))

    def end(self, partition: int, next_offset: int) -> None:
        """Nothing more comes of a partition below `next_offset`."""
        self.open.discard(partition)
        self._next[partition] = next_offset

    def ahead(self, most_bytes: int) -> set[int]:
        """The open partitions of which more than that waits for others."""
        least = min(((self._newest[partition], partition) for partition in self.open), default=None)
        return {p for p in self.open if (self._newest[p], p) != least and self._bytes[p] > most_bytes}

    @property
    def done(self) -> bool:
        """Whether nothing more comes, and nothing waits."""
        return not self.open and not any(self._waiting.values())

    @property
    def reached(self) -> dict[int, int]:
        """By partition, the offset below which all has been taken."""
        return {
            partition: int(waiting[0][0].origin.offsets[0]) if waiting else self._next[partition]
            for partition, waiting in self._waiting.items()
        }

    def take(self, most: int, most_bytes: int) -> Events | None:
        """The first events before which no other can come any more, as many as that, or one; None if there are none."""
        found, counts = self._first(most)
        if found is None:
            return None
        sizes = np.cumsum(list(map(len, found.origin.values)))
        if (fitting := max(1, int(np.searchsorted(sizes, most_bytes, side="right")))) < len(found):
            found, counts = self._first(fitting)
        for partition, count in counts.items():
            self._drop(partition, count)
        return found

    def _first(self, most: int) -> tuple[Events | None, dict[int, int]]:
        """What `take` gives, and of how many events of each partition that is."""
        times = {partition: self._times(partition, most) for partition in self._waiting}
        order = np.argsort(np.concatenate(list(times.values())), kind="stable")[:most]
        if not len(order):
            return None, {}
        of_each = np.repeat(list(times), list(map(len, times.values())))[order]
        counts = {p: count for p in times if (count := int(np.count_nonzero(of_each == p)))}
        parts = [part for partition, count in counts.items() for part in self._parts(partition, count)]
        taken = np.concatenate([times[partition][:count] for partition, count in counts.items()])
        return Events.in_order(parts, np.argsort(taken, kind="stable")), counts

    def _times(self, partition: int, most: int) -> np.ndarray:
        """What the first events of a partition, `most` at most, count as, before which none of another can come."""
        others = ((self._newest[other], other) for other in self.open if other != partition)
        until = min((newest + (other > partition) for newest, other in others), default=_EVER)
        found, left = [np.empty(0, dtype=np.int64)], most
        for events, times in self._waiting[partition]:
            found.append(times[: min(left, int(np.searchsorted(times, until)))])
            left -= len(found[-1])
            if len(found[-1]) < len(events):
                break
        return np.concatenate(found)

    def _parts(self, partition: int, count: int) -> list[Events]:
        """The first `count` events of a partition."""
        found = []
        for events, _ in self._waiting[partition]:
            if not count:
                break
            found.append(events.cut(0, min(count, len(events))))
            count -= len(found[-1])
        return found

    def _drop(self, partition: int, count: int) -> None:
        """The first events of a partition have been taken."""
        waiting = self._waiting[partition]
        while count:
            events, times = waiting.pop(0)
            gone = min(count, len(events))
            count -= gone
            self._bytes[partition] -= _size(events.origin.values[:gone])
            if gone < len(events):
                waiting.insert(0, (events.cut(gone, len(events)), times[gone:]))


def _size(values: list[bytes]) -> int:
    return sum(map(len, values)) + _EVENT_BYTES * len(values)
