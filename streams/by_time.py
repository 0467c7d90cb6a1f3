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
        self._waiting: dict[int, list[tuple[Events, np.ndarray]]] = {p: [] for p in sorted(starts)}

    def add(self, partition: int, events: Events, next_offset: int) -> None:
        """The next events of a partition. next_offset: after them, and after what was there beside them."""
        self._next[partition] = next_offset
        if len(events):
            as_of = np.maximum(np.maximum.accumulate(events.times), self._newest[partition])
            self._newest[partition] = int(as_of[-1])
            self._waiting[partition].append((events, as_of))

    def end(self, partition: int, next_offset: int) -> None:
        """Nothing more comes of a partition below `next_offset`."""
        self.open.discard(partition)
        self._next[partition] = next_offset

    def ahead(self, most: int) -> set[int]:
        """The open partitions of which more than `most` events wait, and not for what comes of themselves."""
        least = min((self._newest[partition] for partition in self.open), default=_EVER)
        return {p for p in self.open if self._newest[p] > least and sum(len(e) for e, _ in self._waiting[p]) > most}

    @property
    def reached(self) -> dict[int, int]:
        """By partition, the offset below which all has been taken."""
        return {
            partition: int(waiting[0][0].origin.offsets[0]) if waiting else self._next[partition]
            for partition, waiting in self._waiting.items()
        }

    def take(self) -> Events | None:
        """The events before which no other can come any more; None if there are none."""
        until = min((self._newest[partition] for partition in self.open), default=_EVER)
        parts: list[Events] = []
        as_of: list[np.ndarray] = []
        for waiting in self._waiting.values():
            while waiting:
                events, times = waiting[0]
                stop = int(np.searchsorted(times, until))
                if stop:
                    parts.append(events.cut(0, stop))
                    as_of.append(times[:stop])
                if stop < len(events):
                    waiting[0] = events.cut(stop, len(events)), times[stop:]
                    break
                waiting.pop(0)
        if not parts:
            return None
        return Events.in_order(parts, np.argsort(np.concatenate(as_of), kind="stable"))
