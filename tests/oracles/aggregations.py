"""What the aggregations say, from their definitions: of all events that a window covers, in their order, kept as they
are. Nothing is shared with the compiled ones.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction

Events = Sequence[tuple[int, float]]
"""(event time in ms, value), oldest first or in the order of arrival; no nulls."""

Number = float | None


def total(events: Events) -> float:
    found = 0.0
    for _, value in events:  # from 3.12 on, sum() of floats is not this loop
        found += value
    return found


def mean(events: Events) -> Number:
    return total(events) / len(events) if events else None


def variance(events: Events) -> Number:
    """Of fractions, and so exact until it is rounded, once; None beyond float64."""
    if not events:
        return None
    try:
        values = [Fraction(value) for _, value in events]
        middle = sum(values) / len(values)
        return float(sum(value * value for value in values) / len(values) - middle * middle)
    except (OverflowError, ValueError):
        return None


def std(events: Events) -> Number:
    found = variance(events)
    return None if found is None else math.sqrt(found)


def first(events: Events) -> Number:
    return min(events, key=lambda event: event[0])[1] if events else None  # min takes the first of equals


def streak(events: Events) -> float:
    run = 0
    for _, value in reversed(events):
        if value != events[-1][1]:
            break
        run += 1
    return float(run)


def distinct(events: Events) -> float:
    return float(len({value for _, value in events}))


def quantile(events: Events, millionths: int) -> Number:
    ordered = sorted(value for _, value in events)
    return ordered[(len(ordered) - 1) * millionths // 1_000_000] if ordered else None


def most_frequent(events: Events) -> Number:
    counts = Counter(value for _, value in events)
    return min(counts, key=lambda value: (-counts[value], value)) if counts else None


def weights(events: Events, now: int, half_life: int) -> list[float]:
    newest = max([now, *(time for time, _ in events)])
    return [2.0 ** (-(newest - time) / half_life) for time, _ in events]


def decayed_count(events: Events, now: int, half_life: int) -> float:
    return math.fsum(weights(events, now, half_life))


def decayed_mean(events: Events, now: int, half_life: int) -> Number:
    """By the weights as of the newest event: they decay alike, so that the mean does not."""
    if not events:
        return None
    mine = weights(events, max(time for time, _ in events), half_life)
    return math.fsum(w * v for w, (_, v) in zip(mine, events, strict=True)) / math.fsum(mine)


PLAIN: dict[str, Callable[[Events], Number]] = {
    "count": lambda events: float(len(events)),
    "sum": total,
    "mean": mean,
    "min": lambda events: min((value for _, value in events), default=None),
    "max": lambda events: max((value for _, value in events), default=None),
    "variance": variance,
    "std": std,
    "first": first,
    "streak": streak,
    "distinct": distinct,
    "most_frequent": most_frequent,
}
"""By what is declared. quantile, rate, lag and the decayed ones ask for more than the events."""
