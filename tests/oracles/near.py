"""How far a sketch may be from the true value, by what docs/pipelines.md states of it.

Nothing is shared with the sketches.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

from features.spec import Aggregate, FeatureSpec
from tests.oracles.aggregations import Events, Number

SKETCHED = ("quantile", "distinct", "most_frequent")
SKETCH_ERROR = 1e-3
"""Of a quantile, relative, while its values lie in at most 64 bins: these are 0.2 % wide then."""
BINS, PER_E = 64, 512
DISTINCT_EXACT, DISTINCT_ERROR, DEVIATIONS = 32, 1.04 / 16, 5
"""Different values that are counted exactly; standard error of more of them, and as how many of these are borne."""
COUNTERS = 8
"""Of the most frequent value: as many different ones are counted exactly."""


class Near(NamedTuple):
    """What is near enough: all of low to high, or one `among` several."""

    low: float | None = None
    high: float | None = None
    among: tuple[Number, ...] | None = None


def sketches(spec: FeatureSpec) -> set[str]:
    """The features that are as near as they promise, where the oracle, who has every value, is exact."""
    return {f.name for f in spec.features if isinstance(f, Aggregate) and f.op in SKETCHED}


def near(op: str, value: float, events: Events) -> Near:
    """What a sketch may say of the events in its window, of which `value` is true."""
    if op == "quantile":
        error = _quantile_error(events) * abs(value)
        return Near(value - error, value + error)
    if op == "distinct":
        error = 0.0 if value <= DISTINCT_EXACT else DEVIATIONS * DISTINCT_ERROR * value
        return Near(value - error, value + error)
    counts = Counter(found for _, found in events)
    if len(counts) <= COUNTERS:
        return Near(among=(value,))
    behind = len(events) / (COUNTERS + 1)
    most = counts[value]
    among = [found for found, count in counts.items() if most - count <= behind]
    return Near(among=(*among, None) if most <= behind else tuple(among))


def _quantile_error(events: Events) -> float:
    """Relative: half a bin, of bins that are 2^level / 512 wide in the logarithm, and double until 64 are enough."""
    values = {value for _, value in events}
    if len(values) <= BINS:
        return SKETCH_ERROR
    level = 0
    while len({_bin(value, level) for value in values}) > BINS:
        level += 1
    return max(SKETCH_ERROR, 1.0001 * math.tanh(2**level / PER_E / 2))


def _bin(value: float, level: int) -> tuple[int, int]:
    if value == 0:
        return 0, 0
    return math.ceil(math.ceil(PER_E * math.log(abs(value))) / 2**level), 1 if value > 0 else -1
