"""What is near enough of a sketch: the figures of docs/pipelines.md, and that the sketches are so near."""

from __future__ import annotations

import math
import random

import pytest

from features.aggregations import ALGEBRAS
from tests.features.aggregations.test_conformance import State
from tests.oracles import aggregations as brute
from tests.oracles.near import SKETCH_ERROR, Near, near

OF_OP = {"distinct": "distinct", "quantile": "quantiles", "most_frequent": "frequent"}
MEDIAN = 500_000


def events(values: list[float]) -> brute.Events:
    return list(enumerate(values))


def half_width(bounds: Near, value: float) -> float:
    assert bounds.low is not None
    assert bounds.high is not None
    assert value - bounds.low == pytest.approx(bounds.high - value)
    return (bounds.high - value) / value


@pytest.mark.parametrize(("ratio", "error"), [(51, 0.031), (2_600, 0.062), (6_800_000, 0.124)])
def test_a_quantile_may_be_off_by_what_the_spread_of_its_values_costs(ratio: float, error: float) -> None:
    spread = [math.exp(math.log(ratio) * i / 1999) for i in range(2000)]
    assert half_width(near("quantile", 7.0, events(spread)), 7.0) == pytest.approx(error, rel=0.02)
    few = [1.0, -2.0, 0.0, 1e9] * 500
    assert half_width(near("quantile", 7.0, events(few)), 7.0) == pytest.approx(SKETCH_ERROR)


def test_different_values_are_exact_up_to_32_and_beyond_within_five_standard_errors() -> None:
    assert near("distinct", 32.0, []) == Near(32.0, 32.0)
    assert half_width(near("distinct", 100.0, []), 100.0) == pytest.approx(5 * 0.065)


def test_the_most_frequent_is_exact_among_eight_and_beyond_at_most_a_ninth_of_the_events_behind() -> None:
    eight = [float(v) for v in range(8)]
    assert near("most_frequent", 0.0, events([*eight, 0.0])) == Near(among=(0.0,))
    # 18 events: a ninth are two. 5.0 comes four times, 6.0 twice, the others once, which are three behind.
    many = [*[5.0] * 4, *[6.0] * 2, *[float(v) for v in range(10, 22)]]
    assert near("most_frequent", 5.0, events(many)) == Near(among=(5.0, 6.0))
    once = [float(v) for v in range(9)]
    assert near("most_frequent", 0.0, events(once)) == Near(among=(*once, None))


@pytest.mark.parametrize("op", OF_OP)
@pytest.mark.parametrize("seed", range(40))
def test_the_sketches_are_as_near_as_that(op: str, seed: int) -> None:
    draw = random.Random(seed)
    scale, kinds = draw.choice((0.01, 1.0, 3.0)), draw.choice((5, 30, 200, 3000))
    values = [float(round(draw.lognormvariate(3, scale) * kinds) / kinds) for _ in range(draw.randrange(1, 600))]
    seen = events([-value if draw.random() < 0.1 else value for value in values])
    wanted = brute.quantile(seen, MEDIAN) if op == "quantile" else brute.PLAIN[op](seen)
    assert wanted is not None
    state = State(next(a for a in ALGEBRAS if a.name == OF_OP[op]), seen[: len(seen) // 2])
    found = state.merge(State(state.algebra, seen[len(seen) // 2 :])).result(0, MEDIAN)
    bounds = near(op, wanted, seen)
    if bounds.among is not None:
        assert (None if math.isnan(found) else found) in bounds.among
    else:
        assert bounds.low is not None
        assert bounds.high is not None
        assert bounds.low <= found <= bounds.high
