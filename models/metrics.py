"""How good scores are: the area under the ROC curve and the log loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def auc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Probability that a positive scores above a negative, ties counted half (Mann-Whitney U / (n₊ n₋)).

    scores, labels: [n]; a label above 0.5 is positive. NaN where one of the classes is missing.
    """
    values = np.asarray(scores, dtype=np.float64)
    positive = np.asarray(labels) > 0.5
    n_positive = int(positive.sum())
    n_negative = len(values) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(mean_ranks[place[positive]].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def log_loss(probabilities: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Mean of −log of the probability given to what happened; probabilities are kept 1e-7 away from 0 and 1.

    probabilities, labels: [n]. NaN for no rows.
    """
    p: np.ndarray[Any, Any] = np.clip(np.asarray(probabilities, dtype=np.float64), 1e-7, 1 - 1e-7)
    y = np.asarray(labels, dtype=np.float64)
    if not len(p):
        return float("nan")
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log1p(-p)))
