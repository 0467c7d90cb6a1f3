"""The distances between two stretches of blocks, against their definitions and scipy's."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from monitors.detectors.histograms import MOST, Bins
from monitors.detectors.ks import Ks
from monitors.detectors.psi import Psi
from monitors.detectors.series import change_point
from monitors.detectors.shift import Shift
from monitors.detectors.wasserstein import Wasserstein
from monitors.histogram import bins, middle
from tests.monitors.drift_blocks import category, number, samples

LOW, HIGH = (np.random.default_rng(seed).lognormal(seed, 0.5, (6, 200)) for seed in (0, 1))


def told(made: Shift | Psi | Ks | Wasserstein, before: np.ndarray, after: np.ndarray) -> float:
    """The statistic of blocks [k, n] after as many blocks of a reference."""
    state = made.build()
    for row in (*before, *after):
        verdict = state.update(number(row))
    assert verdict is not None
    return verdict.statistic


def binned(values: np.ndarray) -> np.ndarray:
    return middle(bins(values.ravel()))


SIX = {"window": 6, "reference_blocks": 12, "step": 1}
LONG = np.concatenate([LOW, LOW])


def test_ks_is_scipys() -> None:
    expected = stats.ks_2samp(binned(LONG), binned(HIGH)).statistic
    assert told(Ks(**SIX), LONG, HIGH) == pytest.approx(expected)


def test_wasserstein_is_scipys_in_standard_deviations() -> None:
    one, two = binned(LONG), binned(HIGH)
    mixed = np.concatenate([one, two, two])  # both sides weigh the same
    assert told(Wasserstein(**SIX), LONG, HIGH) == pytest.approx(stats.wasserstein_distance(one, two) / mixed.std())


def test_shift_is_the_step_in_standard_deviations_between_blocks() -> None:
    one, two = LONG.mean(1), HIGH.mean(1)
    expected = (two.mean() - one.mean()) / math.sqrt((one.var() + two.var()) / 2)
    assert told(Shift(**SIX), LONG, HIGH) == pytest.approx(expected)


def test_psi_is_its_formula_over_classes_of_about_equal_share() -> None:
    found = told(Psi(**SIX, classes=4), LONG, HIGH)
    one, two = (Counter(bins(x.ravel()).tolist()) for x in (LONG, HIGH))
    classes: dict[int, list[float]] = {}
    below = 0.0
    for key in sorted(one.keys() | two.keys()):
        share = one[key] / LONG.size
        place = math.ceil((below + share / 2) * 4 - 1e-12)
        both = classes.setdefault(max(place, 1), [0.0, 0.0])
        both[0] += share
        both[1] += two[key] / HIGH.size
        below += share
    expected = sum((max(q, 1e-4) - max(p, 1e-4)) * math.log(max(q, 1e-4) / max(p, 1e-4)) for p, q in classes.values())
    assert found == pytest.approx(expected)


def test_psi_of_categories_is_its_formula_with_the_rare_ones_together() -> None:
    state = Psi(**SIX).build(categories=True)
    for at in range(18):
        verdict = state.update(category([600, 395, 3, 2] if at < 12 else [400, 590, 4, 6]))
    assert verdict is not None
    pairs = [(0.6, 0.4), (0.395, 0.59), (0.005, 0.01)]
    assert verdict.statistic == pytest.approx(sum((q - p) * math.log(q / p) for p, q in pairs))


def test_a_threshold_is_so_many_times_what_is_usual() -> None:
    means = [3.0, 1.0, 2.0, 6.0, 5.0, 4.0]
    state = Shift(window=2, reference_blocks=6, step=2, times=2.0, threshold=1e-6).build()
    for value in [*means, 9.0, 9.0]:
        verdict = state.update(number(np.full(10, value)))

    def distance(after: list[float], before: list[float]) -> float:
        return abs(np.mean(after) - np.mean(before)) / math.sqrt((np.var(before) + np.var(after)) / 2)

    usual = [distance(means[at : at + 2], means[:at] + means[at + 2 :]) for at in (0, 2, 4)]
    assert verdict is not None
    assert verdict.threshold == pytest.approx(2 * math.sqrt(np.mean(np.square(usual))))
    assert (verdict.before.mean, verdict.after.mean) == (3.5, 9.0)


def test_a_sliding_reference_follows_a_trend_and_one_of_the_training_stays() -> None:
    trend = [number(np.full(10, float(at))) for at in range(60)]
    for reference, mean in (("training", 5.5), ("sliding", 47.5)):
        state = Shift(**SIX, reference=reference, threshold=1e9).build()  # type: ignore[arg-type]
        for one in trend:
            verdict = state.update(one)
        assert verdict is not None
        assert verdict.before.mean == mean


def test_blocks_under_suspicion_are_no_reference() -> None:
    state = Shift(**SIX, reference="sliding").build()
    calm, high = (samples("number", 40, 1), samples("number", 40, 2, changed=True))
    told = [state.update(one) for one in calm + high]
    # While the window is beyond the threshold its blocks do not pass into the reference, and it stays beyond it.
    assert told[-1] is not None
    assert told[-1].beyond
    assert told[-1].before.mean < 0.5 < told[-1].after.mean


def test_categories_without_end_take_bounded_memory() -> None:
    held = Bins(categories=True)
    rows = [held.shares(category([0] * at + [1] * 1000)) for at in range(0, 20_000, 1000)]
    values, before, after = held.together(rows[:10], rows[10:])
    assert len(values) == MOST
    assert before.sum() == pytest.approx(1)
    assert after.sum() == pytest.approx(1)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=30))
def test_a_change_point_cuts_off_something_on_both_sides(values: list[float]) -> None:
    assert 1 <= change_point(values) <= len(values) - 1


@pytest.mark.parametrize("cut", [1, 5, 29])
def test_a_change_point_is_where_the_step_is(cut: int) -> None:
    assert change_point([1.0] * cut + [2.0] * (30 - cut)) == cut
