"""From the scored events' own fields to the model's input: values, category codes and computed features."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import numpy as np

from features.calendar_parts import part_of
from features.spec import Aggregate, Calendar, Category, Columns, Computed, FeatureSpec, Ratio, Value

Logged = dict[str, np.ndarray | list[str | None]]
"""What a prediction says it used, by feature: float32 [n], or a category's raw strings (None = null)."""


class FeatureError(Exception):
    """A round that cannot be computed; the message names the feature, or the call that was out of place."""


class Failure(NamedTuple):
    """A computed feature's function failed on `events` events of a round, first with `reason`."""

    events: int
    reason: str


def own_features(
    spec: FeatureSpec, fields: Columns, times: np.ndarray
) -> tuple[np.ndarray, dict[str, Failure]]:
    """The matrix float32 [n, d] of n events at `times` int64 [n] in ms, with every column filled that needs no
    aggregate; what failed.

    An event on which a computed feature's function fails has NaN for it: one event's trouble is its own.
    """
    failed: dict[str, Failure] = {}
    matrix = np.empty((len(times), len(spec.features)), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for place, feature in enumerate(spec.features):
            if isinstance(feature, Value):
                matrix[:, place] = fields[feature.field]
            elif isinstance(feature, Category):
                matrix[:, place] = feature.encoding.encode(fields[feature.field])
            elif isinstance(feature, Calendar):
                matrix[:, place] = part_of(feature.part, feature.zone, times)
            elif isinstance(feature, Computed) and not feature.uses:
                _fill_computed(matrix, place, feature, fields, failed)
    return matrix, failed


def fill_aggregates(
    spec: FeatureSpec, fields: Columns, matrix: np.ndarray, aggregates: np.ndarray
) -> dict[str, Failure]:
    """Writes float64 [n, aggregates] into their columns of `matrix`, and what is computed of them; what failed."""
    failed: dict[str, Failure] = {}
    column_of = {aggregate.name: place for place, aggregate in enumerate(spec.aggregates)}
    places = [place for place, feature in enumerate(spec.features) if isinstance(feature, Aggregate)]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        matrix[:, places] = aggregates[:, : len(places)]
        for place, feature in enumerate(spec.features):
            if isinstance(feature, Ratio):
                upper, lower = (aggregates[:, column_of[used.name]] for used in feature.uses)
                matrix[:, place] = ratio_of(upper, lower)
            elif isinstance(feature, Computed) and feature.uses:
                used = {a.name: aggregates[:, column_of[a.name]] for a in feature.uses}
                _fill_computed(matrix, place, feature, {**fields, **used}, failed)
    return failed


def ratio_of(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """float64 [n]: NaN where either is, and where the lower one is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(lower == 0, np.nan, upper / lower))


def fill_missing(spec: FeatureSpec, matrix: np.ndarray) -> None:
    """Puts `spec.missing` where a number is missing, or is none: what is beyond float32 is as good as missing."""
    matrix[~np.isfinite(matrix)] = spec.missing


def logged(spec: FeatureSpec, fields: Columns, matrix: np.ndarray) -> Logged:
    """What the predictions log of n events: the model's inputs, and categories raw."""
    return {
        feature.name: fields[feature.field] if isinstance(feature, Category) else matrix[:, place]
        for place, feature in enumerate(spec.features)
    }


def _fill_computed(
    matrix: np.ndarray, place: int, feature: Computed, columns: Columns, failed: dict[str, Failure]
) -> None:
    try:
        matrix[:, place] = _computed(feature, columns, len(matrix))
    except Exception as error:  # the user's function: whatever it raises is this feature's failure
        matrix[:, place] = column = _one_by_one(feature, columns, len(matrix))
        reason = f"{type(error).__name__}: {error}"
        failed[feature.name] = Failure(int(np.isnan(column).sum()), reason)


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
