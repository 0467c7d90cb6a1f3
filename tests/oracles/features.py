"""Features by brute force: a loop over the events in the order of their arrival, from the definitions alone.

Plain Python, and nothing shared with the kernels or the layout of state. Every event of a window is kept; a
read goes through all of them. Computed features are left to the caller: they are the user's own functions.

    with p the event's pane, h the newest pane that the entity has seen of the stream, or p if that is newer,
    and n panes a window: the events in the panes (h - n, p] that arrived before

          pane:   3    4    5    6    7    8
                       |---- n = 4 ----|          the event in 7 reads (3, 7]: 4, 5, 6 and 7
                       |----------|    h          an event in 6 reads (3, 6]; one in 3 is late
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from features.spec import Aggregate, Category, FeatureSpec, Value

Number = float | None


class Event(NamedTuple):
    """One record; a null field is None or NaN. `scored`: whether features are wanted (of stream 0)."""

    stream: int
    time: int
    offset: int
    partition: int
    fields: Mapping[str, Any]
    scored: bool = True


@dataclass
class _Seen:
    """What one aggregate has seen of one entity."""

    newest: int | None = None
    panes: list[tuple[int, Number]] = field(default_factory=list)
    latest: tuple[int, Number] | None = None


class Oracle:
    """`see` events in arrival order. `late`: by aggregate, how many events came too late for its window."""

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec = spec
        self.late: Counter[str] = Counter()
        self._seen: dict[tuple[str, int, tuple[Any, ...]], _Seen] = {}

    def see(self, event: Event) -> dict[str, Any] | None:
        """The event's features by name (None = missing, categories raw), or None if it is not scored."""
        scored = event.stream == 0 and event.scored
        features: dict[str, Any] = {}
        if scored:
            for feature in self.spec.features:
                if isinstance(feature, Value | Category):
                    features[feature.name] = _known(event.fields[feature.field])
                elif isinstance(feature, Aggregate):
                    features[feature.name] = self._read(feature, event)
        for aggregate in self.spec.aggregates:
            if aggregate.stream == event.stream:
                self._add(aggregate, event, scored)
        return features if scored else None

    def _of(self, aggregate: Aggregate, event: Event) -> _Seen | None:
        key = tuple(_known(event.fields[name]) for name in aggregate.entity)
        if None in key:
            return None
        return self._seen.setdefault((aggregate.name, event.partition, key), _Seen())

    def _read(self, aggregate: Aggregate, event: Event) -> Number:
        seen = self._of(aggregate, event)
        if aggregate.window is None:
            if seen is None or seen.latest is None:
                return None
            age = event.time - seen.latest[0]
            if age < 0 or age > (aggregate.within_ms or 0):
                return None
            return age / 1000 if aggregate.op == "since_last" else seen.latest[1]
        if seen is None:
            return _folded(aggregate.op, [])
        pane, panes = event.time // aggregate.window.pane_ms, aggregate.window.panes
        newest = pane if seen.newest is None else max(seen.newest, pane)
        if pane <= newest - panes:
            self.late[aggregate.name] += 1
            return None
        return _folded(aggregate.op, [(p, value) for p, value in seen.panes if newest - panes < p <= pane])

    def _add(self, aggregate: Aggregate, event: Event, scored: bool) -> None:
        seen = self._of(aggregate, event)
        if seen is None:
            return
        value = None if aggregate.field is None else _known(event.fields[aggregate.field])
        if aggregate.window is None:
            if aggregate.op == "last" and value is None:
                return
            if seen.latest is None or event.time >= seen.latest[0]:
                seen.latest = event.time, value
            return
        pane, panes = event.time // aggregate.window.pane_ms, aggregate.window.panes
        if seen.newest is not None and pane <= seen.newest - panes:
            self.late[aggregate.name] += not scored
            return
        seen.newest = pane if seen.newest is None else max(seen.newest, pane)
        seen.panes.append((pane, value))
        # No later read covers what lies a whole window back: only to keep a year's events in memory.
        if seen.panes[0][0] <= seen.newest - panes:
            seen.panes = [kept for kept in seen.panes if kept[0] > seen.newest - panes]


def features_of(spec: FeatureSpec, events: Iterable[Event]) -> Iterator[dict[str, Any]]:
    """The features of the scored events, in the order of arrival."""
    oracle = Oracle(spec)
    for event in events:
        features = oracle.see(event)
        if features is not None:
            yield features


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _folded(op: str, events: list[tuple[int, Number]]) -> Number:
    """Pane by pane, the oldest first; in a pane, by arrival."""
    if op == "count":
        return float(len(events))
    values = [(pane, value) for pane, value in events if value is not None]
    if op == "min":
        return min((value for _, value in values), default=None)
    if op == "max":
        return max((value for _, value in values), default=None)
    total = 0.0
    for pane in sorted({pane for pane, _ in values}):
        of_pane = 0.0
        for other, value in values:
            if other == pane:
                of_pane += value
        total += of_pane
    if op == "sum":
        return total
    return total / len(values) if values else None
