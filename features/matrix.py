"""From the scored events' own fields to the model's input: values, category codes and computed features."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import numpy as np

from features.spec import Aggregate, Category, Columns, Computed, FeatureSpec, Value

Logged = dict[str, np.ndarray | list[str | None]]
"""What a prediction says it used, by feature: float32 [n], or a category's raw strings (None = null)."""


class FeatureError(Exception):
    """A round that cannot be computed; the message names the feature, or the call that was out of place."""


class Failure(NamedTuple):
    """A computed feature's function failed on `events` events of a round, first with `reason`."""

    events: int
    reason: str


def own_features(spec: FeatureSpec, fields: Columns, n: int) -> tuple[np.ndarray, dict[str, Failure]]:
    """The matrix float32 [n, d] of n events with every column filled but those of aggregates; what failed.

    An event on which a computed feature's function fails has NaN for it: one event's trouble is its own.
    """
    failed: dict[str, Failure] = {}
    matrix = np.empty((n, len(spec.features)), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 is infinite; whoever scores it checks
        for place, feature in enumerate(spec.features):
            if isinstance(feature, Value):
                matrix[:, place] = fields[feature.field]
            elif isinstance(feature, Category):
                matrix[:, place] = feature.encoding.encode(fields[feature.field])
            elif isinstance(feature, Computed):
                try:
                    matrix[:, place] = _computed(feature, fields, n)
                except Exception as error:  # the user's function: whatever it raises is this feature's failure
                    matrix[:, place] = column = _one_by_one(feature, fields, n)
                    reason = f"{type(error).__name__}: {error}"
                    failed[feature.name] = Failure(int(np.isnan(column).sum()), reason)
    return matrix, failed


def fill_aggregates(spec: FeatureSpec, matrix: np.ndarray, aggregates: np.ndarray) -> None:
    """Writes float64 [n, aggregates] into their columns of `matrix`."""
    places = [place for place, feature in enumerate(spec.features) if isinstance(feature, Aggregate)]
    with np.errstate(over="ignore"):
        matrix[:, places] = aggregates


def logged(spec: FeatureSpec, fields: Columns, matrix: np.ndarray) -> Logged:
    """What the predictions log of n events: the model's inputs, and categories raw."""
    return {
        feature.name: fields[feature.field] if isinstance(feature, Category) else matrix[:, place]
        for place, feature in enumerate(spec.features)
    }


def _computed(feature: Computed, fields: Columns, n: int) -> np.ndarray:
    values = np.asarray(feature.function(fields)).astype(feature.dtype)
    if values.shape != (n,):
        raise ValueError(f"it returned shape {values.shape} for {n} events, not ({n},)")
    return values


def _one_by_one(feature: Computed, fields: Columns, n: int) -> np.ndarray:
    """float32 [n], NaN for the events on which the function fails."""
    column = np.full(n, np.nan, dtype=np.float32)
    for i in range(n):
        with contextlib.suppress(Exception):
            column[i] = _computed(feature, {name: values[i : i + 1] for name, values in fields.items()}, 1)[0]
    return column
