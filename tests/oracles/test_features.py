"""The oracle against the bare definition, which keeps nothing but the events: the same values, bit for bit."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings

from features.spec import Aggregate, FeatureSpec
from features.windows import HOUR_MS, MINUTE_MS, Window
from tests.oracles.drawn import OTHER, SCORED, arrivals, specs
from tests.oracles.features import Event, Oracle

LATE = "late"


def by_definition(aggregate: Aggregate, event: Event, before: list[Event]) -> Any:
    """The aggregate's value at the event, of all those that arrived `before` it; LATE if it is late."""
    mine = [other for other in before if same(aggregate, event, other)]
    if aggregate.window is None:
        return latest(aggregate, event, mine)
    pane_ms, n = aggregate.window.pane_ms, aggregate.window.panes
    p = event.time // pane_ms
    h = max([p, *(other.time // pane_ms for other in mine)])
    if p <= h - n:
        return LATE
    panes: dict[int, list[Event]] = {}
    for other in mine:
        if h - n < other.time // pane_ms <= p:
            panes.setdefault(other.time // pane_ms, []).append(other)
    oldest_first = [panes[pane] for pane in sorted(panes)]
    if aggregate.op == "count":
        return float(sum(map(len, oldest_first)))
    values = [[v for o in pane if (v := known(o.fields[aggregate.field])) is not None] for pane in oldest_first]
    every = [value for pane in values for value in pane]
    if aggregate.op in ("min", "max"):
        return (min if aggregate.op == "min" else max)(every, default=None)
    total = folded([folded(pane) for pane in values])
    if aggregate.op == "sum":
        return total
    return total / len(every) if every else None


def same(aggregate: Aggregate, event: Event, other: Event) -> bool:
    """Whether `other` is of the aggregate's stream and of the event's entity; null is no entity."""
    keys = [[known(e.fields[name]) for name in aggregate.entity] for e in (event, other)]
    here = (other.stream, other.partition) == (aggregate.stream, event.partition)
    return here and keys[0] == keys[1] and None not in keys[0]


def folded(values: list[float]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total


def latest(aggregate: Aggregate, event: Event, mine: list[Event]) -> Any:
    """Of the events with the newest time the last to arrive; nulls are no values."""
    if aggregate.op == "last":
        mine = [other for other in mine if known(other.fields[aggregate.field]) is not None]
    if not mine:
        return None
    newest = max(other.time for other in mine)
    if not 0 <= event.time - newest <= (aggregate.within_ms or 0):
        return None
    if aggregate.op == "since_last":
        return (event.time - newest) / 1000
    return [other for other in mine if other.time == newest][-1].fields[aggregate.field]


def known(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def assert_exact(spec: FeatureSpec, events: list[Event]) -> None:
    oracle, late = Oracle(spec), Counter[str]()
    for i, event in enumerate(events):
        scored = event.stream == 0 and event.scored
        wanted = {}
        for aggregate in spec.aggregates:
            value = by_definition(aggregate, event, events[:i])
            late[aggregate.name] += value is LATE and (scored or aggregate.stream == event.stream)
            wanted[aggregate.name] = None if value is LATE else value
        assert repr(oracle.see(event)) == repr(wanted if scored else None)  # repr tells 0.0 from -0.0
    assert +oracle.late == +late


@given(specs(), arrivals())
@settings(max_examples=100, deadline=None)
def test_the_oracle_says_what_the_definition_says_bit_for_bit(spec: FeatureSpec, events: list[Event]) -> None:
    assert_exact(spec, events)


@pytest.mark.parametrize("seed", range(3))
def test_it_does_so_where_many_events_share_panes_and_instants(seed: int) -> None:
    draw = random.Random(seed)
    windowed = [(op, text, None) for op in ("count", "sum", "mean", "min", "max") for text in ("30m", "3h")]
    every = [*windowed, ("last", None, HOUR_MS), ("since_last", None, HOUR_MS)]
    aggregates = [
        Aggregate(
            f"{stream}_{op}_{text}",
            stream,
            ("user",),
            op,
            None if op in ("count", "since_last") else "tip",
            Window.parse(text) if text else None,
            within,
        )
        for stream in (0, 1)
        for op, text, within in every
    ]
    values = (0.0, -0.0, 0.1, 0.2, 0.3, 0.7, 1e16, 3, float("nan"), None)
    events, now = [], 10_000
    for offset in range(250):
        now += draw.choice((0, 0, 0, 1, 1, 2)) if draw.random() < 0.98 else draw.choice((29, 31, 61, 200))
        minutes = now - (draw.randrange(60) if draw.random() < 0.2 else 0)
        fields = {"user": draw.choice(("ann", "ann", "bob")), "shop": 7.0, "amount": 1.0, "tip": draw.choice(values)}
        events.append(Event(draw.randrange(2), minutes * MINUTE_MS, offset, 0, fields, draw.random() < 0.9))
    assert_exact(FeatureSpec((SCORED, OTHER), tuple(aggregates)), events)
