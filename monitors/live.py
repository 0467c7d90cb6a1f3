"""How good each model version is now: over the latest labelled rows that it scored.

The rows lie in rings, and what is shown is computed from them when it is asked for: `river.metrics` in `Rolling` says
the same numbers (the tests compare them), but an update of its AUC, log loss and accuracy costs 21 µs a row and
version, which would be a whole core at 50,000 rows a second. Here it is about 1 µs, and no row is left out.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from monitors.join import Joined
from monitors.metrics import Metrics
from monitors.performance import EPS, auc, log_loss

ROWS = 10_000
SHADOW = "shadow"
_BINS = 10
_K = TypeVar("_K")
_LIVE = ("auc", "log_loss", "accuracy_ratio", "calibration_error", "calibration_bias", "rows")
_PAIRED = ("log_loss_difference", "log_loss_difference_error", "paired_rows")


class Performance(NamedTuple):
    """Of a version's latest rows; arm: its place on the newest of them. auc: None while they are of one class.

    accuracy: share on the right side of 0.5. calibration_error: see `calibration_error`; calibration_bias: mean score
    less the share of positives.
    """

    arm: str
    rows: int
    auc: float | None
    log_loss: float
    accuracy: float
    calibration_error: float
    calibration_bias: float


class Difference(NamedTuple):
    """Mean loss of a shadow less that of the served version, on the same rows, and its standard error (0 of one)."""

    rows: int
    mean: float
    error: float


class LivePerformance:
    """The latest `rows` labelled rows of each version, and of each pair of a shadow and the version that was served.

    A version that has scored none of the latest `rows` labelled rows is forgotten. Rows without a label, without a
    score or with several are left out. May be updated in one thread and shown in another.
    """

    def __init__(self, rows: int = ROWS) -> None:
        self._rows = rows
        self._seen = 0
        self._versions: dict[str, _Ring] = {}
        self._pairs: dict[tuple[str, str], _Ring] = {}
        self._lock = threading.Lock()
        self._shown: set[tuple[str, ...]] = set()

    def update(self, joined: Sequence[Joined]) -> None:
        """Takes in pairs of a prediction and its label, in the order in which they became known."""
        versions: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
        pairs: dict[tuple[str, str], tuple[list[float], list[float], list[float]]] = {}
        labelled = 0
        for pair in joined:
            label, prediction = pair.label, pair.prediction
            if label is None:
                continue
            labelled += 1
            served, score, y = prediction.version, prediction.score, label.value
            if served is not None and type(score) is float:
                of_served = versions.get((served, prediction.arm or "")) or versions.setdefault(
                    (served, prediction.arm or ""), ([], [])
                )
                of_served[0].append(score)
                of_served[1].append(y)
            for shadow, beside in (prediction.shadows or {}).items():
                if type(beside) is not float:
                    continue
                of_shadow = versions.get((shadow, SHADOW)) or versions.setdefault((shadow, SHADOW), ([], []))
                of_shadow[0].append(beside)
                of_shadow[1].append(y)
                if served is not None and type(score) is float:
                    both = pairs.get((shadow, served)) or pairs.setdefault((shadow, served), ([], [], []))
                    both[0].append(beside)
                    both[1].append(score)
                    both[2].append(y)
        with self._lock:
            self._seen += labelled
            for (version, arm), columns in versions.items():
                self._versions.setdefault(version, _Ring(self._rows)).add(arm, self._seen, *columns)
            for names, paired in pairs.items():
                self._pairs.setdefault(names, _Ring(self._rows, 3)).add("", self._seen, *paired)
            self._versions = self._recent(self._versions)
            self._pairs = self._recent(self._pairs)

    def performance(self) -> dict[str, Performance]:
        """By version, in the order of their first row."""
        with self._lock:
            found = [(version, ring.arm, *ring.columns()) for version, ring in self._versions.items()]
        return {version: measure(arm, scores, labels) for version, arm, scores, labels in found}

    def differences(self) -> dict[tuple[str, str], Difference]:
        """By shadow and the version that was served."""
        with self._lock:
            found = [(names, *ring.columns()) for names, ring in self._pairs.items()]
        return {names: compare(shadow, served, labels) for names, shadow, served, labels in found}

    def show(self, metrics: Metrics) -> None:
        """Sets the `weir_live_` gauges; those of versions that are forgotten go."""
        shown: set[tuple[str, ...]] = set()
        for version, found in self.performance().items():
            at = {"version": version, "arm": found.arm}
            values = (found.auc, found.log_loss, found.accuracy, found.calibration_error, found.calibration_bias)
            for name, value in zip(_LIVE, (*values, found.rows), strict=True):
                if value is None:
                    metrics.drop(f"weir_live_{name}", **at)
                else:
                    metrics.set(f"weir_live_{name}", value, **at)
            shown.add((version, found.arm, "arm"))
        for (shadow, served), pair in self.differences().items():
            for name, value in zip(_PAIRED, (pair.mean, pair.error, pair.rows), strict=True):
                metrics.set(f"weir_live_{name}", value, shadow=shadow, served=served)
            shown.add((shadow, served, "pair"))
        for first, second, kind in self._shown - shown:
            for name in _LIVE if kind == "arm" else _PAIRED:
                at = {"version": first, "arm": second} if kind == "arm" else {"shadow": first, "served": second}
                metrics.drop(f"weir_live_{name}", **at)
        self._shown = shown

    def _recent(self, rings: dict[_K, _Ring]) -> dict[_K, _Ring]:
        return {name: ring for name, ring in rings.items() if self._seen - ring.newest < self._rows}


def delays_s(joined: Iterable[Joined]) -> np.ndarray:
    """Seconds from each prediction's event time to its label's, float64; of those that have a label."""
    found = [pair.label.time - pair.prediction.time for pair in joined if pair.label is not None]
    return np.array(found, dtype=np.float64) / 1000


def measure(arm: str, scores: np.ndarray, labels: np.ndarray) -> Performance:
    """scores, labels: float64 [n], n ≥ 1."""
    return Performance(
        arm,
        len(scores),
        auc(labels, scores),
        log_loss(labels, scores) or 0.0,
        float(np.mean((scores >= 0.5) == (labels >= 0.5))),
        calibration_error(labels, scores),
        float(np.mean(scores) - np.mean(labels >= 0.5)),
    )


def calibration_error(labels: np.ndarray, scores: np.ndarray) -> float:
    """Expected calibration error: Σ over ten bins of equal width of n_b/n · |mean score − share of positives|.

    labels, scores: float64 [n], n ≥ 1; a score outside of [0, 1] falls into the outermost bin.
    """
    places = np.clip((scores * _BINS).astype(np.int64), 0, _BINS - 1)
    excess = np.bincount(places, scores - (labels >= 0.5), _BINS)
    return float(np.abs(excess).sum() / len(scores))


def compare(shadow: np.ndarray, served: np.ndarray, labels: np.ndarray) -> Difference:
    """Scores of two versions, and the labels, float64 [n], n ≥ 1."""
    apart = _losses(shadow, labels) - _losses(served, labels)
    n = len(apart)
    return Difference(n, float(apart.mean()), float(apart.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0)


def _losses(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    p = np.clip(scores, EPS, 1 - EPS)
    found: np.ndarray = -np.where(labels >= 0.5, np.log(p), np.log1p(-p))
    return found


class _Ring:
    """The latest `rows` rows of some float64 columns, and the place of the newest in the count of labelled rows."""

    def __init__(self, rows: int, columns: int = 2) -> None:
        self._table = np.zeros((columns, rows))
        self._count = 0
        self.arm, self.newest = "", 0

    def add(self, arm: str, newest: int, *columns: list[float]) -> None:
        rows = self._table.shape[1]
        table = np.array(columns)[:, -rows:]
        places = (self._count + np.arange(table.shape[1])) % rows
        self._table[:, places] = table
        self._count += table.shape[1]
        self.arm, self.newest = arm, newest

    def columns(self) -> np.ndarray:
        """A copy, in no order."""
        return self._table[:, : self._count].copy()
