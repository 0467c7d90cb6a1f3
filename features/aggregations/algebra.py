"""What an aggregation is: four compiled verbs over a few slots of state.

    init(f, i)                  makes the slots those of nothing seen
    add(f, i, value, time, p)   one more event: its value (never NaN), its event time in ms
    merge(f, i, g, j, p)        what g, j have seen came after what f, i have: f, i have seen both
    result(f, i, time, p, q)    the feature as of event time `time`: a float64, NaN = missing

The state of an aggregation is `size` slots of 8 bytes: f is their float64 [size] view, i their int64 view. A slot is
always the one or always the other. p is a number that belongs to the state (a half-life in ms), q one that belongs to
the feature (which quantile); both are int64 and 0 where they mean nothing.

Events are added in the order of their arrival, and panes merged oldest first, so that two runs are byte-equal.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

Verb: TypeAlias = Any
"""A function that numba has compiled."""


class Algebra(NamedTuple):
    """One aggregation. `version` is raised when the meaning of its slots changes: old state is refused then."""

    name: str
    size: int
    version: int
    init: Verb
    add: Verb
    merge: Verb
    result: Verb
