"""The gate: what a freshly trained version must show, on the newest labelled rows, to become a candidate.

With a champion the rule is that the candidate is not worse: the mean of the paired difference of their log losses
has an upper bound below `margin`. The interval is a bootstrap over stretches of time, for neighbours in time are
alike and single rows would make it too narrow. Without a champion it must be better than the base rate, surely.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from models.metrics import auc

BATCH = 512
"""Rows of the batches that the latency is measured with."""
_STRETCHES = 200
_BINS = 10
_BIN_ROWS = 50


@dataclass(frozen=True)
class Gate:
    """The thresholds.

    margin: how much more log loss a row than the champion's is borne; confidence: of the interval of the difference,
    two-sided; calibration: expected calibration error at most, where the champion's is not larger still;
    max_unscored: share of rows without a finite score at most; latency_s: of one batch at most; min_rows: labelled
    rows that a judgement takes; min_spread: standard deviation of the scores at least; resamples, seed: of the
    bootstrap.
    """

    margin: float = 0.005
    confidence: float = 0.95
    calibration: float = 0.1
    max_unscored: float = 0.02
    latency_s: float = 0.05
    min_rows: int = 100
    min_spread: float = 1e-4
    resamples: int = 1000
    seed: int = 7


@dataclass(frozen=True)
class Verdict:
    """What the gate says. reasons: against the version where it did not pass, else what speaks for it.

    evidence: the numbers, the same for the same scores anywhere; measured: those that the machine's load changes.
    """

    passed: bool
    reasons: tuple[str, ...]
    evidence: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)


def judge(
    gate: Gate,
    candidate: npt.ArrayLike,
    champion: npt.ArrayLike | None,
    labels: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    latency_s: float | None = None,
) -> Verdict:
    """Judges scores of n labelled rows, in the order of time.

    candidate, champion: scores [n], NaN = none; champion None = there is none. labels: 0 or 1 [n].
    groups: int [n], the stretch of time (a day, say) that a row belongs to; None = 200 of equally many rows.
    latency_s: what a batch takes (see `latency`); None = not judged.
    Raises ValueError where the lengths differ.
    """
    y = np.asarray(labels, dtype=np.float64)
    ours = np.asarray(candidate, dtype=np.float64)
    theirs = None if champion is None else np.asarray(champion, dtype=np.float64)
    if ours.ndim != 1 or y.ndim != 1 or (theirs is not None and theirs.ndim != 1):
        return Verdict(False, ("the gate judges models with one score a row",))
    if len(ours) != len(y) or (theirs is not None and len(theirs) != len(y)):
        raise ValueError(f"{len(ours)} scores for {len(y)} labels")
    measured = {} if latency_s is None else {"latency_s": latency_s}
    evidence: dict[str, Any] = {"rows": len(y)}
    if len(y) < gate.min_rows:
        return Verdict(False, (f"{len(y)} labelled rows are too few to judge by: {gate.min_rows}",), evidence, measured)
    if not np.isin(y, (0.0, 1.0)).all():
        return Verdict(False, ("the gate judges labels 0 and 1 alone; map them with Labels(value=…)",), evidence)

    against = _against_output(gate, ours, evidence)
    if latency_s is not None and not latency_s <= gate.latency_s:
        against.append(
            f"a batch of {BATCH} rows takes {latency_s * 1000:.1f} ms, the budget is {gate.latency_s * 1000:g} ms"
        )
    both = np.isfinite(ours) if theirs is None else np.isfinite(ours) & np.isfinite(theirs)
    if both.sum() < gate.min_rows:
        against.append(f"only {int(both.sum())} rows have all scores to compare; {gate.min_rows} are needed")
        return Verdict(False, tuple(against), evidence, measured)
    found = _compare(gate, ours, theirs, y, both, groups, evidence)
    against += found.against
    return Verdict(not against, tuple(against) or found.speaks, evidence, measured)


@dataclass(frozen=True)
class _Found:
    against: list[str]
    speaks: tuple[str, ...]


def _against_output(gate: Gate, scores: np.ndarray, evidence: dict[str, Any]) -> list[str]:
    """What is wrong with the output alone, whatever the labels."""
    finite = scores[np.isfinite(scores)]
    unscored = 1 - len(finite) / len(scores)
    spread = float(finite.std()) if len(finite) else 0.0
    evidence |= {"unscored": round(unscored, 6), "spread": round(spread, 6)}
    against = []
    if unscored > gate.max_unscored:
        against.append(f"{unscored:.1%} of the rows have no finite score; {gate.max_unscored:.1%} are borne")
    if len(finite) and spread < gate.min_spread:
        against.append(f"every row gets about the same score ({float(finite.mean()):.4f}): the output is constant")
    if len(finite) and (finite.min() < 0 or finite.max() > 1):
        against.append(f"scores run from {finite.min():.4g} to {finite.max():.4g}: they are not probabilities")
    return against


def _compare(
    gate: Gate,
    candidate: np.ndarray,
    champion: np.ndarray | None,
    labels: np.ndarray,
    both: np.ndarray,
    groups: npt.ArrayLike | None,
    evidence: dict[str, Any],
) -> _Found:
    """Loss and calibration on the rows that all have a score for."""
    ours, y = candidate[both], labels[both]
    rate = float(y.mean())
    theirs = np.full(len(y), rate) if champion is None else champion[both]
    other, margin = ("the base rate", 0.0) if champion is None else ("the champion", gate.margin)
    ours_loss, theirs_loss = losses(ours, y), losses(theirs, y)
    difference = ours_loss - theirs_loss
    mean = float(difference.mean())
    stretches = None if groups is None else np.asarray(groups)[both]
    low, high = bootstrap(difference, stretches, gate.confidence, gate.resamples, gate.seed)
    error = calibration_error(ours, y)
    evidence |= {
        "compared": len(y),
        "against": "base rate" if champion is None else "champion",
        "label_rate": _rounded(rate),
        "loss": _rounded(ours_loss.mean()),
        "other_loss": _rounded(theirs_loss.mean()),
        "difference": _rounded(mean),
        "low": _rounded(low),
        "high": _rounded(high),
        "margin": margin,
        "calibration": _rounded(error),
    }
    area = auc(ours, y)
    if np.isfinite(area):
        evidence["auc"] = _rounded(area)
    said = (
        f"log loss {ours_loss.mean():.4f} against {theirs_loss.mean():.4f} of {other} on {len(y)} rows: "
        f"{mean:+.4f} a row, {gate.confidence:.0%} interval {low:+.4f} to {high:+.4f}"
    )
    against = []
    if not high < margin:
        what = "worse" if low >= margin else "not surely as good" if champion is not None else "not surely better"
        against.append(f"{what}: {said}; it must lie below {margin:+.4f}")
    others_error = None if champion is None else calibration_error(theirs, y)
    if others_error is not None:
        evidence["other_calibration"] = _rounded(others_error)
    if error > gate.calibration and (others_error is None or error > others_error):
        beside = "" if others_error is None else f" (the champion's: {others_error:.3f})"
        against.append(
            f"badly calibrated: expected calibration error {error:.3f}{beside}, {gate.calibration:.3f} at most; "
            f"mean score {ours.mean():.3f}, label rate {rate:.3f}"
        )
    return _Found(against, (said,))


def losses(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """−log of the probability given to what happened, float64 [n], as models.metrics.log_loss means them."""
    p = np.clip(scores, 1e-7, 1 - 1e-7)
    found: np.ndarray = -np.where(labels > 0.5, np.log(p), np.log1p(-p))
    return found


def bootstrap(
    differences: np.ndarray, groups: np.ndarray | None, confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """Bounds of the mean of `differences` [n], n > 0: quantiles of its means over stretches drawn with replacement.

    groups: int [n], the stretch of each row; None, or fewer than twenty of them = 200 of equally many rows.
    """
    n = len(differences)
    known = 0 if groups is None else len(np.unique(groups))
    if groups is None or known < 20:
        place, known = np.arange(n) * min(n, _STRETCHES) // n, min(n, _STRETCHES)
    else:
        place = np.unique(groups, return_inverse=True)[1]
    sums = np.bincount(place, weights=differences, minlength=known)
    counts = np.bincount(place, minlength=known)
    drawn = np.random.default_rng(seed).integers(known, size=(resamples, known))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def calibration_error(scores: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error: Σ nᵦ/n · |mean score − label rate| over bins b of equally many rows by score.

    At most ten bins, of fifty rows at least: smaller ones would measure chance. scores, labels: [n], n > 0.
    """
    order = np.argsort(scores, kind="stable")
    bins = np.array_split(order, max(1, min(_BINS, len(order) // _BIN_ROWS)))
    return float(sum(abs(float((scores[b] - labels[b]).sum())) for b in bins) / len(order))


def latency(
    run: Callable[[np.ndarray], np.ndarray],
    matrix: np.ndarray,
    *,
    repeats: int = 30,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Seconds that one batch of `BATCH` rows takes, median of `repeats`. run: models.runner.Runner's `run`.

    matrix: float32 [n, d] of real rows, n > 0; they are gone through in turn. May raise ModelFailed.
    """
    took = []
    for i in range(repeats):
        rows = matrix.take(np.arange(i * BATCH, (i + 1) * BATCH), axis=0, mode="wrap")
        before = clock()
        run(rows)
        took.append(clock() - before)
    return float(np.median(took))


def _rounded(value: Any) -> float:
    return round(float(value), 6)
