"""models.metrics against the definitions, pair by pair and row by row."""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.metrics import auc, log_loss


def test_the_auc_is_the_share_of_pairs_in_the_right_order_with_ties_half() -> None:
    rng = np.random.default_rng(3)
    scores, labels = rng.integers(0, 8, 200) / 8, rng.integers(0, 2, 200)
    positive, negative = scores[labels == 1], scores[labels == 0]
    pairs = [1.0 if p > n else 0.5 if p == n else 0.0 for p in positive for n in negative]
    assert auc(scores, labels) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_the_auc_of_one_class_is_not_a_number() -> None:
    assert math.isnan(auc([0.1, 0.2], [1, 1]))
    assert math.isnan(auc([], []))


def test_the_log_loss_is_the_mean_of_minus_log_of_what_happened() -> None:
    expected = -(math.log(0.9) + math.log(1 - 0.2)) / 2
    assert log_loss([0.9, 0.2], [1, 0]) == pytest.approx(expected)


def test_a_certain_mistake_costs_much_but_not_infinity() -> None:
    assert log_loss([0.0, 1.0], [1, 0]) == pytest.approx(-math.log(1e-7))
    assert math.isnan(log_loss([], []))
