"""AUC, log loss, weeks and importance, against other people's definitions of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from monitors.performance import WEEK_MS, RollingAuc, auc, by_week, log_loss, permutation_importance


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=2, max_size=60))
def test_auc_is_that_of_scikit_learn_with_ties_too(rows: list[tuple[bool, int]]) -> None:
    labels, scores = np.array([r[0] for r in rows], dtype=float), np.array([r[1] / 8 for r in rows])
    found = auc(labels, scores)
    if len(set(labels)) < 2:
        assert found is None
    else:
        assert found == pytest.approx(sk.roc_auc_score(labels, scores))


def test_log_loss_is_that_of_scikit_learn() -> None:
    draw = np.random.default_rng(1)
    labels, scores = draw.integers(0, 2, 500).astype(float), draw.random(500)
    assert log_loss(labels, scores) == pytest.approx(sk.log_loss(labels, scores))


def test_a_certain_and_wrong_score_costs_much_but_not_everything() -> None:
    assert log_loss(np.array([1.0]), np.array([0.0])) == pytest.approx(-np.log(1e-7))
    assert log_loss(np.array([]), np.array([])) is None


def test_weeks_are_counted_from_the_origin_and_empty_ones_are_left_out() -> None:
    times = np.array([5, WEEK_MS - 1, WEEK_MS, 3 * WEEK_MS]) + 1000
    labels, scores = np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.9, 0.1, 0.8, 0.2])
    weeks = by_week(times, labels, scores, 1000)
    assert [(week.start_ms, week.events) for week in weeks] == [
        (1000, 2),
        (1000 + WEEK_MS, 1),
        (1000 + 3 * WEEK_MS, 1),
    ]
    assert weeks[0].auc == 1.0
    assert weeks[1].auc is None
    assert weeks[1].mean_score == pytest.approx(0.8)


def test_the_rolling_auc_is_that_of_the_latest_events() -> None:
    draw = np.random.default_rng(2)
    labels, scores = draw.integers(0, 2, 900).astype(float), draw.random(900)
    rolling = RollingAuc(window=300)
    rolling.update(labels[:50], scores[:50])
    assert rolling.get() is None
    rolling.update(labels[50:], scores[50:])
    assert rolling.get() == pytest.approx(auc(labels[-300:], scores[-300:]))


def test_only_the_feature_that_the_model_looks_at_is_important() -> None:
    draw = np.random.default_rng(3)
    matrix = draw.random((2000, 3), dtype=np.float32)
    labels = (matrix[:, 1] > 0.5).astype(float)
    found = permutation_importance(lambda m: m[:, 1], matrix, labels, ["a", "b", "c"])
    assert found[0].name == "b"
    assert found[0].loss == pytest.approx(0.5, abs=0.05)
    assert [item.loss for item in found[1:]] == [0.0, 0.0]
