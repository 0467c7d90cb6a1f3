"""Sums of numbers and losses against exact fractions and plain numpy."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitors import histogram
from monitors.performance import EPS, log_loss
from monitors.statistics import LOSS_SUMS, ONE, PAIR_SUMS, WIDTH, Columns, column, compare, fold, judge

FLOATS = st.floats(width=32)
UNIT = st.floats(0, 1)


def folded(*parts: np.ndarray) -> np.ndarray:
    state = np.zeros(WIDTH, dtype=np.int64)
    for part in parts:
        fold(np.asarray(part, dtype=np.float64), state)
    return state


def judged(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    losses, sums = np.empty(len(scores), dtype=np.int64), np.zeros((1, LOSS_SUMS), dtype=np.int64)
    judge(scores, labels, np.zeros(len(scores), dtype=np.int32), EPS, sums, losses)
    return losses, sums[0]


@given(st.lists(FLOATS, max_size=30))
@settings(deadline=None)  # the first compiles
def test_a_column_has_the_moments_of_the_exact_values(values: list[float]) -> None:
    found = column(folded(np.array(values)))
    there = [value for value in values if math.isfinite(value)]
    assert (found.n, found.nulls) == (len(there), len(values) - len(there))
    assert found.bins == histogram.counts(np.array(values, dtype=np.float32))
    if there:
        n, exact = len(there), [Fraction(value) for value in there]
        mean = sum(exact) / n
        spread = sum(value * value for value in exact) / n - mean * mean
        assert (found.mean, found.least, found.most) == (float(mean), min(there), max(there))
        assert found.std == math.sqrt(float(spread))


@given(st.lists(FLOATS, max_size=30), st.randoms(use_true_random=False), st.integers(0, 30))
@settings(deadline=None)  # the first compiles
def test_neither_order_nor_batches_change_a_bit(values: list[float], draw: random.Random, cut: int) -> None:
    shuffled = draw.sample(values, len(values))
    one, other = folded(np.array(values)), folded(np.array(shuffled[:cut]), np.array(shuffled[cut:]))
    assert one.tobytes() == other.tobytes()


def test_a_constant_column_has_no_deviation_and_the_greatest_numbers_do_not_overflow() -> None:
    assert column(folded(np.full(99_999, 0.1))).std == 0
    most = float(np.finfo(np.float32).max)
    found = column(folded(np.full(200_000, most)))
    assert (found.mean, found.std, found.least, found.most) == (most, 0, most, most)
    both = column(folded(np.array([most, -most])))
    assert (both.mean, both.std) == (0, most)


def test_numbers_beyond_float32_count_as_missing() -> None:
    found = column(folded(np.array([1e39, -1e300, np.nan, np.inf, 2.0])))
    assert (found.n, found.nulls, found.mean) == (1, 4, 2)


def test_zero_has_no_sign() -> None:
    assert folded(np.array([0.0, -0.0])).tobytes() == folded(np.array([-0.0, 0.0])).tobytes()
    assert str(column(folded(np.array([-0.0]))).least) == "0.0"


@given(st.lists(st.tuples(UNIT, st.sampled_from([0.0, 1.0])), min_size=1, max_size=50))
@settings(deadline=None)  # the first compiles
def test_losses_are_those_of_numpy(rows: list[tuple[float, float]]) -> None:
    scores, labels = np.array(rows).T.copy()
    losses, sums = judged(scores, labels)
    n, loss, brier, errors, score, label = sums.tolist()
    assert n == len(rows)
    assert losses.sum() == loss
    assert loss / ONE / n == pytest.approx(log_loss(labels, scores), abs=1e-9)
    assert brier / ONE / n == pytest.approx(np.mean((scores - labels) ** 2), abs=1e-9)
    assert errors == int(((scores >= 0.5) != (labels >= 0.5)).sum())
    assert score / ONE / n == pytest.approx(scores.mean(), abs=1e-9)
    assert label / ONE / n == pytest.approx(labels.mean(), abs=1e-9)


@pytest.mark.parametrize(
    ("score", "label"), [(0.5, 1.1), (0.5, -0.1), (0.5, np.nan), (np.nan, 1.0), (1.5, 1.0), (-0.1, 0.0), (np.inf, 1.0)]
)
def test_what_is_no_probability_and_no_share_has_no_loss(score: float, label: float) -> None:
    losses, sums = judged(np.array([score]), np.array([label]))
    assert (losses.tolist(), sums.tolist()) == ([-1], [0] * LOSS_SUMS)


def test_a_certain_error_costs_a_finite_loss() -> None:
    losses, _ = judged(np.array([0.0, 1.0]), np.array([1.0, 0.0]))
    assert (losses / ONE).tolist() == pytest.approx([-math.log(EPS)] * 2, rel=1e-6)


def test_pairs_are_those_that_both_have_a_loss_by_the_version_served() -> None:
    mine, served = np.array([3, 1, -1, 5, 2]) * ONE, np.array([1, 2, 3, -1, 2]) * ONE
    mine[2], served[3] = -1, -1
    sums = np.zeros((2, PAIR_SUMS), dtype=np.int64)
    compare(mine, served, np.array([0, 1, 0, 0, 1], dtype=np.int32), sums)
    assert sums.tolist() == [[1, 2 * ONE, 4 * ONE], [2, -ONE, ONE]]


def test_columns_are_the_same_packed_or_not_and_after_a_snapshot() -> None:
    draw = np.random.default_rng(7)
    columns = Columns(2)
    plain = {number: np.zeros((2, WIDTH), dtype=np.int64) for number in range(12)}
    for turn in range(200):
        number, at = int(draw.integers(12)), int(draw.integers(2))
        values = draw.normal(size=3)
        fold(values, columns.of(number)[at])
        fold(values, plain[number][at])
        if turn % 50 == 0:
            data, columns = columns.snapshot(), Columns(2)
            columns.restore(data)
    for number, cells in plain.items():
        assert (columns.pop(number) == cells).all(), number
        assert not columns.pop(number).any()


def test_the_snapshot_of_other_columns_is_refused() -> None:
    columns = Columns(2)
    fold(np.ones(1), columns.of(0)[1])
    data = columns.snapshot()
    with pytest.raises(ValueError, match="other columns"):
        Columns(1).restore(data)
    places, cells = data[0]
    with pytest.raises(ValueError, match="other columns"):
        Columns(2).restore({0: (places[4:], cells)})
    with pytest.raises(ValueError):
        Columns(2).restore({0: (places[1:], cells)})
