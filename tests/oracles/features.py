"""Features from their definitions: a loop over the events in the order of their arrival.

Plain Python, and nothing shared with the kernels or the layout of state. The values of a pane are folded as they
arrive, a read folds the panes of its window, oldest first; test_features.py holds it against the bare definition.
Computed features are left to the caller: they are the user's own functions.

    with p the event's pane, h the newest pane that the entity has seen of the stream, or p if that is newer,
    and n panes a window: the events in the panes (h - n, p] that arrived before

          pane:   3    4    5    6    7    8
                       |---- n = 4 ----|          the event in 7 reads (3, 7]: 4, 5, 6 and 7
                       |----------|    h          an event in 6 reads (3, 6]; one in 3 is late
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import CodeType
from typing import Any, NamedTuple

from features.spec import Aggregate, Category, FeatureSpec, Value
from features.windows import Forever, LastEvents, Window
from tests.oracles import aggregations as brute
from tests.oracles.near import SKETCHED, Near, near

Number = float | None
FOLDED = ("count", "sum", "mean", "min", "max")


class Event(NamedTuple):
    """One record; a null field is None or NaN. `scored`: whether features are wanted (of stream 0)."""

    stream: int
    time: int
    offset: int
    partition: int
    fields: Mapping[str, Any]
    scored: bool = True


@dataclass(slots=True)
class _Pane:
    """The events of one pane, folded in the order of their arrival. values: those that are not null."""

    events: int = 0
    values: int = 0
    total: float = 0.0
    least: Number = None
    most: Number = None

    def add(self, value: Number) -> None:
        self.events += 1
        if value is None:
            return
        self.values += 1
        self.total += value
        if self.least is None or value < self.least:
            self.least = value
        if self.most is None or value > self.most:
            self.most = value


@dataclass(slots=True)
class _Seen:
    """What one aggregate has seen of one entity: panes by their number, the time and value of the latest event."""

    newest: int | None = None
    panes: dict[int, _Pane] = field(default_factory=dict)
    latest: tuple[int, Number] | None = None
    kept: list[tuple[int, int, float]] = field(default_factory=list)
    """Pane, event time and value of every event that has one, in the order of arrival."""


def kept_alone(spec: FeatureSpec) -> FeatureSpec:
    """The aggregates whose state a worker keeps, as a spec of its own: what a loop over its events gives."""
    return replace(spec, features=spec.kept, given=frozenset())


class Oracle:
    """`see` events in arrival order. `late`: by aggregate, how many events came too late for its window.

    `near`: of the sketches of the event seen last, what is near enough.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec = spec
        self.late: Counter[str] = Counter()
        self.near: dict[str, Near] = {}
        self._seen: dict[tuple[str, int, tuple[Any, ...]], _Seen] = {}

    def see(self, event: Event) -> dict[str, Any] | None:
        """The event's features by name (None = missing, categories raw), or None if it is not scored."""
        scored = event.stream == 0 and event.scored
        keys = {entity: tuple([_known(event.fields.get(name)) for name in entity]) for entity in self.spec.entities}
        features: dict[str, Any] = {}
        self.near = {}
        for feature in self.spec.features:
            if isinstance(feature, Aggregate):
                seen = self._of(feature, event.partition, keys[feature.entity])
                if scored:
                    features[feature.name] = self._read(feature, event, seen)
                if seen is not None and feature.stream == event.stream:
                    self._add(feature, event, seen, scored)
            elif scored and isinstance(feature, Value | Category):
                features[feature.name] = _known(event.fields[feature.field])
        return features if scored else None

    def _of(self, aggregate: Aggregate, partition: int, key: tuple[Any, ...]) -> _Seen | None:
        if None in key:
            return None
        at = aggregate.name, partition, key
        seen = self._seen.get(at)
        if seen is None:
            seen = self._seen[at] = _Seen()
        return seen

    def _read(self, aggregate: Aggregate, event: Event, seen: _Seen | None) -> Number:
        if not _first_ones(aggregate):
            return self._read_kept(aggregate, event, _Seen() if seen is None else seen)
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
        window = range(newest - panes + 1, pane + 1)
        return _folded(aggregate.op, [seen.panes[p] for p in window if p in seen.panes])

    def _add(self, aggregate: Aggregate, event: Event, seen: _Seen, scored: bool) -> None:
        value = None if aggregate.field is None else _known(event.fields[aggregate.field])
        if not _first_ones(aggregate):
            self._keep(aggregate, event, seen, scored)
            return
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
        if seen.newest is None or pane > seen.newest:
            seen.newest = pane
            # No later read covers what lies a whole window back: only to keep a year's panes in memory.
            seen.panes = {kept: folded for kept, folded in seen.panes.items() if kept > pane - panes}
        seen.panes.setdefault(pane, _Pane()).add(value)

    def _keep(self, aggregate: Aggregate, event: Event, seen: _Seen, scored: bool) -> None:
        """Of all but the first seven aggregations, in sawtooth windows: every event itself."""
        pane, newest = 0, seen.newest
        if isinstance(aggregate.window, Window):
            pane = event.time // aggregate.window.pane_ms
            if newest is not None and pane <= newest - aggregate.window.panes:
                self.late[aggregate.name] += not scored
                return
            seen.newest = pane if newest is None else max(newest, pane)
            if seen.newest != newest:  # what has left every window to come: a year would be looked through each time
                seen.kept = [kept for kept in seen.kept if kept[0] > seen.newest - aggregate.window.panes]
        elif _holds_all(aggregate):
            if newest is not None and event.time - newest > (aggregate.within_ms or 0):
                seen.kept.clear()
            seen.newest = event.time if newest is None else max(newest, event.time)
        value = 1.0 if aggregate.field is None else _number(aggregate, event.fields[aggregate.field])
        if value is not None and _counts(aggregate, event):
            seen.kept.append((pane, event.time, value))
            if isinstance(aggregate.window, LastEvents) or aggregate.op in ("last", "since_last", "lag"):
                # What lies before as many latest is never read again: only to keep a year short.
                seen.kept = sorted(seen.kept, key=lambda kept: kept[1])[-_latest(aggregate) :]

    def _read_kept(self, aggregate: Aggregate, event: Event, seen: _Seen) -> Number:
        within, window = aggregate.within_ms or 0, aggregate.window
        if isinstance(window, Window):
            pane = event.time // window.pane_ms
            newest = pane if seen.newest is None else max(seen.newest, pane)
            if pane <= newest - window.panes:
                self.late[aggregate.name] += 1
                return None
            inside = [kept for kept in seen.kept if newest - window.panes < kept[0] <= pane]
            if aggregate.op in FOLDED:
                return _folded(aggregate.op, _in_panes(inside))
            found = [(time, value) for _, time, value in sorted(inside, key=lambda kept: kept[0])]
        elif _holds_all(aggregate):
            gone = seen.newest is None or event.time - seen.newest > within
            found = [] if gone else [(time, value) for _, time, value in seen.kept]
        else:
            by_time = sorted(((time, value) for _, time, value in seen.kept), key=lambda kept: kept[0])
            if aggregate.op in ("last", "since_last", "lag"):
                return _nth(aggregate, event, by_time, within)
            latest = by_time[-_latest(aggregate) :]
            found = [(time, value) for time, value in latest if 0 <= event.time - time <= within]
        if aggregate.op in SKETCHED:
            of_all = _sketched(aggregate, found)
            if of_all is not None:
                self.near[aggregate.name] = near(aggregate.op, of_all, found)
            return of_all
        if aggregate.op == "rate":
            return len(found) / (window.length_ms / 1000)  # type: ignore[union-attr]
        if aggregate.op == "decayed_count":
            return brute.decayed_count(found, event.time, aggregate.param)
        if aggregate.op == "decayed_mean":
            return brute.decayed_mean(found, event.time, aggregate.param)
        return brute.PLAIN[aggregate.op](found)


def _first_ones(aggregate: Aggregate) -> bool:
    """Whether it is folded pane by pane, as sums are: in the order in which the engine's must be."""
    plain = aggregate.op in FOLDED and isinstance(aggregate.window, Window)
    return (plain or aggregate.op in ("last", "since_last")) and aggregate.where is None


def _holds_all(aggregate: Aggregate) -> bool:
    return isinstance(aggregate.window, Forever) or aggregate.op in ("decayed_count", "decayed_mean")


def _latest(aggregate: Aggregate) -> int:
    """How many of the latest events it reads."""
    if isinstance(aggregate.window, LastEvents):
        return aggregate.window.events
    return aggregate.param if aggregate.op == "lag" else 1


def _in_panes(events: list[tuple[int, int, float]]) -> list[_Pane]:
    """The oldest first."""
    panes: dict[int, _Pane] = {}
    for pane, _, value in events:
        panes.setdefault(pane, _Pane()).add(value)
    return [panes[pane] for pane in sorted(panes)]


def _sketched(aggregate: Aggregate, found: brute.Events) -> Number:
    if aggregate.op == "quantile":
        return brute.quantile(found, aggregate.param)
    return brute.PLAIN[aggregate.op](found)


def _counts(aggregate: Aggregate, event: Event) -> bool:
    """Whether the event meets the condition: plain Python, with false for what compares a null."""
    if aggregate.where is None:
        return True
    fields = {name: _Null() if _known(value) is None else value for name, value in event.fields.items()}
    return bool(eval(_compiled(aggregate.where.text), {"is_null": lambda value: isinstance(value, _Null)}, fields))


@lru_cache
def _compiled(condition: str) -> CodeType:
    return compile(re.sub(r"(\w+) is (not )?None", r"(\2is_null(\1))", condition), condition, "eval")


class _Null:
    """Compares with nothing."""

    def __lt__(self, other: object) -> bool:
        return False

    __le__ = __gt__ = __ge__ = __eq__ = __ne__ = __lt__  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        return False


def _number(aggregate: Aggregate, value: Any) -> float | None:
    """A number as it is, a text as one that stands for it."""
    if not isinstance(value, str):
        return _known(value)  # type: ignore[no-any-return]
    if aggregate.encoding is not None:
        return float(aggregate.encoding.encode([value])[0])
    return float(int.from_bytes(value.encode()[:6].ljust(6), "big"))


def _nth(aggregate: Aggregate, event: Event, by_time: list[tuple[int, float]], within: int) -> Number:
    n = _latest(aggregate)
    if len(by_time) < n or not 0 <= event.time - by_time[-n][0] <= within:
        return None
    return (event.time - by_time[-n][0]) / 1000 if aggregate.op == "since_last" else by_time[-n][1]


def features_of(spec: FeatureSpec, events: Iterable[Event]) -> Iterator[dict[str, Any]]:
    """The features of the scored events, in the order of arrival."""
    oracle = Oracle(spec)
    for event in events:
        features = oracle.see(event)
        if features is not None:
            yield features


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _folded(op: str, panes: list[_Pane]) -> Number:
    """Of panes, the oldest first."""
    if op == "count":
        return float(sum([pane.events for pane in panes]))
    if op == "min":
        return min((pane.least for pane in panes if pane.least is not None), default=None)
    if op == "max":
        return max((pane.most for pane in panes if pane.most is not None), default=None)
    total = 0.0
    for pane in panes:  # from 3.12 on, sum() of floats is not this loop
        total += pane.total
    if op == "sum":
        return total
    values = sum([pane.values for pane in panes])
    return total / values if values else None
