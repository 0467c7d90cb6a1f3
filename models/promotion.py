"""How a candidate becomes champion, and how a new champion is taken back: decided by blocks of labelled rows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """When it is decided, as streams.Rollout says it. Differences are log loss a row."""

    rows: int = 2000
    most_rows: int = 8000
    guard_rows: int = 5000
    margin: float = 0.005
    confidence: float = 0.95
    calibration: float = 0.1
    max_unscored: float = 0.02
