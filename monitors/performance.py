"""How good scores were, once labels are known: AUC and log loss, in all, by week, over the latest events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

WEEK_MS = 7 * 24 * 3_600_000
EPS = 1e-7
"""Scores are kept this far from 0 and 1 where their logarithm is taken."""


def auc(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Area under the ROC curve: the chance that a positive (label ≥ 0.5) scores above a negative, ties half.

    labels, scores: float [n]. None where one of the classes is missing.
    """
    positive = labels >= 0.5
    n_positive = int(positive.sum())
    n_negative = len(labels) - n_positive
    if not n_positive or not n_negative:
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    rank = (last - (counts - 1) / 2)[place]
    return float((rank[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def log_loss(labels: np.ndarray, scores: np.ndarray) -> float | None:
    """Mean −log of the probability given to what happened; None of nothing. Scores are clipped by 1e-7."""
    if not len(labels):
        return None
    p = np.clip(scores.astype(np.float64), EPS, 1 - EPS)
    return float(-np.mean(np.where(labels >= 0.5, np.log(p), np.log1p(-p))))


class Week(NamedTuple):
    """Scored events with labels in the 7 days from `start_ms` on. auc, log_loss: None where undefined."""

    start_ms: int
    events: int
    late_share: float
    mean_score: float
    auc: float | None
    log_loss: float | None


def by_week(times: np.ndarray, labels: np.ndarray, scores: np.ndarray, origin_ms: int = 0) -> list[Week]:
    """One Week for each that has events, in order. times: int64 [n] ms; weeks count from `origin_ms`."""
    week = (times - origin_ms) // WEEK_MS
    found = []
    for number in np.unique(week):
        rows = week == number
        y, p = labels[rows], scores[rows]
        start = int(number) * WEEK_MS + origin_ms
        share, mean = float((y >= 0.5).mean()), float(p.mean())
        found.append(Week(start, int(rows.sum()), share, mean, auc(y, p), log_loss(y, p)))
    return found


class RollingAuc:
    """AUC of the latest `window` labelled events, for a live view."""

    def __init__(self, window: int = 5000) -> None:
        from river.metrics import RollingROCAUC  # takes seconds to import

        self._metric: Any = cast(Any, RollingROCAUC)(window_size=window)
        self._seen = 0

    def update(self, labels: Iterable[float], scores: Iterable[float]) -> None:
        for label, score in zip(labels, scores, strict=True):
            self._metric.update(label >= 0.5, score)
            self._seen += 1

    def get(self) -> float | None:
        """None until a hundred events are known."""
        return float(self._metric.get()) if self._seen >= 100 else None


class Importance(NamedTuple):
    """AUC that is lost when a feature's values are shuffled between events: mean and spread over repeats."""

    name: str
    loss: float
    spread: float


def permutation_importance(
    predict: Callable[[np.ndarray], np.ndarray],
    matrix: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    *,
    seed: int = 0,
    repeats: int = 3,
) -> list[Importance]:
    """Importance of each column of `matrix` float32 [n, d], the largest first.

    predict: float32 [n, d] → scores [n].
    """
    draw = np.random.default_rng(seed)
    whole = auc(labels, predict(matrix)) or 0.0
    found = []
    for column, name in enumerate(names):
        losses = []
        for _ in range(repeats):
            shuffled = matrix.copy()
            shuffled[:, column] = draw.permutation(shuffled[:, column])
            losses.append(whole - (auc(labels, predict(shuffled)) or 0.0))
        found.append(Importance(name, float(np.mean(losses)), float(np.std(losses))))
    return sorted(found, key=lambda item: -item.loss)
