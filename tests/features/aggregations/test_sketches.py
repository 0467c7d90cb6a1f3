"""The three that are not exact: their errors are those that are written."""

from __future__ import annotations

import math

import numpy as np
import pytest

from features.aggregations import distinct, frequent, quantiles
from tests.features.aggregations.test_conformance import State


def of(module: object, values: np.ndarray, pieces: int = 12) -> State:
    """The state of values that came in `pieces` panes."""
    state = State(module.ALGEBRA)  # type: ignore[attr-defined]
    for piece in np.array_split(values, pieces):
        state.merge(State(module.ALGEBRA, [(0, float(value)) for value in piece]))  # type: ignore[attr-defined]
    return state


@pytest.mark.parametrize("different", [33, 100, 500, 5000])
def test_a_distinct_count_has_a_standard_error_of_six_and_a_half_percent(different: int) -> None:
    errors = []
    for seed in range(30):
        random = np.random.default_rng(seed)
        values = random.normal(size=different)
        seen = np.concatenate([values, random.choice(values, different)])
        errors.append(of(distinct, seen).result(0) / different - 1)
    assert np.sqrt(np.mean(np.square(errors))) < 0.065 * 1.35  # 30 draws: the estimate of the error has one itself
    assert max(map(abs, errors)) < 4 * 0.065


def test_a_distinct_count_does_not_depend_on_how_its_events_were_cut_and_ordered() -> None:
    values = np.random.default_rng(1).integers(0, 400, 3000).astype(float)
    assert of(distinct, values, 1).result(0) == of(distinct, np.sort(values), 40).result(0)


@pytest.mark.parametrize(
    ("spread", "error"), [(3.9, 0.0313), (7.9, 0.0624), (15.9, 0.1244)], ids=["54", "3,000", "9 million"]
)
def test_a_quantile_is_as_near_as_the_spread_of_the_values_allows(spread: float, error: float) -> None:
    random = np.random.default_rng(5)
    values = np.exp(random.uniform(0, spread, 20_000))
    state, ordered = of(quantiles, values), np.sort(values)
    for q in (10_000, 250_000, 500_000, 900_000, 990_000):
        wanted = ordered[(len(ordered) - 1) * q // 1_000_000]
        assert abs(state.result(0, q) / wanted - 1) <= error


def test_quantiles_of_values_of_both_signs_and_zero_are_in_order() -> None:
    values = np.random.default_rng(2).normal(size=5000).round(2)
    state = of(quantiles, values)
    found = [state.result(0, q) for q in range(50_000, 1_000_000, 50_000)]
    assert found == sorted(found)
    assert found[0] < 0 < found[-1]
    again = of(quantiles, np.random.default_rng(8).permutation(values), 3)
    assert state.f.tobytes() == again.f.tobytes()  # whatever the order and the panes


@pytest.mark.parametrize("values", [[1e308, -1e308, 5e-324], [0.0] * 100, [math.inf, 1.0]])
def test_a_quantile_of_extremes_is_a_number(values: list[float]) -> None:
    assert math.isfinite(of(quantiles, np.array(values), 1).result(0, 500_000))


@pytest.mark.parametrize("seed", range(5))
def test_the_most_frequent_is_never_further_behind_than_a_ninth_of_the_events(seed: int) -> None:
    random = np.random.default_rng(seed)
    values = (random.zipf(1.3, 4000) % 200).astype(float)
    found = of(frequent, values).result(0)
    names, counts = np.unique(values, return_counts=True)
    mine = counts[names == found].sum()
    assert counts.max() - mine <= len(values) / 9


def test_a_value_that_leads_by_more_than_a_ninth_is_found_whatever_else_there_is() -> None:
    random = np.random.default_rng(4)
    values = np.where(random.random(5000) < 0.15, 42.0, random.normal(size=5000))
    assert of(frequent, values).result(0) == 42.0
