"""One suite for every aggregation: what is in `ALGEBRAS` is tested here, and must have an oracle."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.aggregations import ALGEBRAS, OPS
from features.aggregations.algebra import Algebra
from features.codec import pack, unpack
from tests.oracles import aggregations as brute
from tests.oracles.aggregations import Events, Number

HALF_LIFE = 3_600_000
HALF = 500_000


class Case(NamedTuple):
    """How an algebra is asked, what it should say, and how far off it may be, given the largest value in size."""

    q: int
    wanted: Callable[[Events, int], Number]
    bearable: Callable[[float, float], float] = lambda wanted, largest: 0.0
    exact_for: int = 1000  # different values
    largest: float = math.inf


def relative(share: float) -> Callable[[float, float], float]:
    return lambda wanted, largest: share * abs(wanted)


CASES: dict[str, list[Case]] = {
    "count": [Case(0, lambda events, now: float(len(events)))],
    "sum": [Case(0, lambda events, now: brute.total(events), lambda wanted, largest: 1e-13 * largest)],
    "min": [Case(0, lambda events, now: brute.PLAIN["min"](events))],
    "max": [Case(0, lambda events, now: brute.PLAIN["max"](events))],
    # What is lost is lost of the squares; beyond float64 both say that it is missing.
    "moments": [
        Case(0, lambda events, now: brute.variance(events), lambda wanted, largest: 1e-13 * largest**2, largest=1e150),
        Case(1, lambda events, now: brute.std(events), lambda wanted, largest: 1e-6 * largest, largest=1e150),
    ],
    "first": [Case(0, lambda events, now: brute.first(events))],
    "streak": [Case(0, lambda events, now: brute.streak(events))],
    "decayed": [
        Case(0, lambda events, now: brute.decayed_count(events, now, HALF_LIFE), relative(1e-12)),
        Case(
            1,
            lambda events, now: brute.decayed_mean(events, now, HALF_LIFE),
            lambda wanted, largest: 1e-12 * largest,
            largest=1e150,
        ),
    ],
    "distinct": [Case(0, lambda events, now: brute.distinct(events), exact_for=32)],
    "quantiles": [
        Case(q, lambda events, now, q=q: brute.quantile(events, q), relative(math.tanh(1 / 1024) * 1.0001), 64)  # type: ignore[misc]
        for q in (1, 250_000, HALF, 950_000, 999_999)
    ],
    "frequent": [Case(0, lambda events, now: brute.most_frequent(events), exact_for=8)],
}
EMPTY = {"count": 0.0, "sum": 0.0, "streak": 0.0, "distinct": 0.0, "decayed": 0.0}
every = pytest.mark.parametrize("algebra", ALGEBRAS, ids=lambda algebra: algebra.name)

VALUES = st.one_of(
    st.integers(-3, 3).map(float),
    st.floats(-1e6, 1e6),
    st.sampled_from((0.0, -0.0, 1e300, -1e300, 1e-300, 5e-324, 1.5, 1.5, 1e6)),
)
# Ties, gaps of many half-lives, out of order.
TIMES = st.one_of(st.integers(0, 5), st.integers(0, 40).map(lambda n: n * HALF_LIFE // 4), st.just(10**12))
EVENTS = st.lists(st.tuples(TIMES, VALUES), max_size=60)


class State:
    """The slots of one aggregation, and the four verbs on them."""

    def __init__(self, algebra: Algebra, events: Events = ()) -> None:
        self.algebra = algebra
        self.f = np.empty(algebra.size)
        self.i = self.f.view(np.int64)
        algebra.init(self.f, self.i)
        for time, value in events:
            algebra.add(self.f, self.i, float(value), time, HALF_LIFE)

    def merge(self, other: State) -> State:
        self.algebra.merge(self.f, self.i, other.f, other.i, HALF_LIFE)
        return self

    def result(self, now: int, q: int = 0) -> float:
        return float(self.algebra.result(self.f, self.i, now, HALF_LIFE, q))


def assert_said(case: Case, found: float, events: Events, now: int) -> None:
    largest = max((abs(value) for _, value in events), default=0.0)
    if largest > case.largest or len({value for _, value in events}) > case.exact_for:
        return
    wanted = case.wanted(events, now)
    if wanted is None:
        assert math.isnan(found)
    else:
        assert found == wanted or abs(found - wanted) <= case.bearable(wanted, largest), (found, wanted)


def test_every_aggregation_has_a_case_and_every_op_an_algebra() -> None:
    assert list(CASES) == [algebra.name for algebra in ALGEBRAS]
    assert {part for op in OPS.values() for part in op.parts} == set(CASES)


@every
@given(events=EVENTS, later=st.integers(0, 10 * HALF_LIFE))
@settings(max_examples=60, deadline=None)
def test_it_says_what_its_definition_says(algebra: Algebra, events: Events, later: int) -> None:
    now = max((time for time, _ in events), default=0) + later
    for case in CASES[algebra.name]:
        assert_said(case, State(algebra, events).result(now, case.q), events, now)


@every
@given(events=EVENTS, cuts=st.lists(st.integers(0, 60), max_size=4))
@settings(max_examples=60, deadline=None)
def test_merging_stretches_is_as_if_all_had_been_added_one_after_another(
    algebra: Algebra, events: Events, cuts: list[int]
) -> None:
    ends = sorted([*cuts, len(events)])
    merged, start = State(algebra), 0
    for end in ends:
        merged.merge(State(algebra, events[start:end]))
        start = max(start, end)
    now = max((time for time, _ in events), default=0)
    for case in CASES[algebra.name]:
        assert_said(case, merged.result(now, case.q), events, now)


@every
@given(events=EVENTS)
@settings(max_examples=30, deadline=None)
def test_nothing_merged_on_either_side_changes_nothing(algebra: Algebra, events: Events) -> None:
    now = 10**12
    for case in CASES[algebra.name]:
        alone = State(algebra, events).result(now, case.q)
        before = State(algebra).merge(State(algebra, events)).result(now, case.q)
        after = State(algebra, events).merge(State(algebra)).result(now, case.q)
        np.testing.assert_array_equal([before, after], [alone, alone])


@every
@given(events=EVENTS)
@settings(max_examples=30, deadline=None)
def test_a_state_that_was_packed_goes_on_as_if_it_had_not_been(algebra: Algebra, events: Events) -> None:
    state = State(algebra, events)
    nothing = State(algebra).i.copy()
    packed = pack(7, np.zeros((1, 1), dtype=np.int64), state.f[np.newaxis], ["ann"], template=nothing)
    again = State(algebra)
    again.f[:] = unpack(packed, ["ann"], incarnation=7, streams=1, template=nothing).rows[0]
    for one in (state, again):
        algebra.add(one.f, one.i, 2.5, 77, HALF_LIFE)
    assert state.f.tobytes() == again.f.tobytes()


@every
def test_of_nothing_it_says_what_is_written(algebra: Algebra) -> None:
    for case in CASES[algebra.name]:
        missing = algebra.name not in EMPTY or (algebra.name == "decayed" and case.q == 1)
        assert State(algebra).result(0, case.q) == pytest.approx(
            math.nan if missing else EMPTY[algebra.name], nan_ok=True
        )


@every
def test_the_same_events_make_the_same_bytes(algebra: Algebra) -> None:
    random = np.random.default_rng(3)
    events = [(int(t), float(v)) for t, v in zip(random.integers(0, 10**9, 500), random.normal(size=500), strict=True)]
    assert State(algebra, events).f.tobytes() == State(algebra, events).f.tobytes()
