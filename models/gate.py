"""The gate: what a freshly trained version must show before it may become a candidate."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gate:
    """The thresholds.

    margin: how much more log loss a row than the champion's is borne; confidence: of the interval of the difference,
    two-sided; calibration: expected calibration error at most; max_unscored: share of rows without a finite score at
    most; latency_s: of one batch at most; min_rows: labelled rows that a judgement takes; min_spread: standard
    deviation of the scores at least; resamples, seed: of the bootstrap.
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
