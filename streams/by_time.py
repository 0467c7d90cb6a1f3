"""Events of several partitions put in the order of event time, as they come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from streams.hop import Origin

_NEVER, _EVER = -1, 2**63 - 1


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
            self._bytes[partition] += sum(map(len, events.origin.values))
            self._waiting[partition].append((events, as_of))

    def end(self, partition: int, next_offset: int) -> None:
        """Nothing more comes of a partition below `next_offset`."""
        self.open.discard(partition)
        self._next[partition] = next_offset

    def ahead(self, most_bytes: int) -> set[int]:
        """The open partitions of which more than that waits, and not for what comes of themselves."""
        least = min((self._newest[partition] for partition in self.open), default=_EVER)
        return {p for p in self.open if self._newest[p] > least and self._bytes[p] > most_bytes}

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
        until = min((self._newest[partition] for partition in self.open), default=_EVER)
        parts: list[tuple[int, Events, np.ndarray]] = []
        for partition, waiting in self._waiting.items():
            for events, times in waiting:
                stop = min(most, int(np.searchsorted(times, until)))
                if stop:
                    parts.append((partition, events.cut(0, stop), times[:stop]))
                if stop < len(events):
                    break
        if not parts:
            return None, {}
        order = np.argsort(np.concatenate([times for *_, times in parts]), kind="stable")[:most]
        of_part = np.repeat([partition for partition, *_ in parts], [len(times) for *_, times in parts])
        partitions, counts = np.unique(of_part[order], return_counts=True)
        found = Events.in_order([events for _, events, _ in parts], order)
        return found, dict(zip(partitions.tolist(), counts.tolist(), strict=True))

    def _drop(self, partition: int, count: int) -> None:
        """The first events of a partition have been taken."""
        waiting = self._waiting[partition]
        while count:
            events, times = waiting.pop(0)
            gone = min(count, len(events))
            count -= gone
            self._bytes[partition] -= sum(map(len, events.origin.values[:gone]))
            if gone < len(events):
                waiting.insert(0, (events.cut(gone, len(events)), times[gone:]))
