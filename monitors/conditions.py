"""Conditions of a data contract, checked over columns: one bit a condition and record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Action = Literal["flag", "dead_letter", "withhold"]
Column = "np.ndarray | Sequence[str | None]"
MOST_CONDITIONS = 63
"""Of one source, or of the features: they are bits of an int64."""

_SAYS = {
    "ge": "must be at least {limit}",
    "gt": "must be above {limit}",
    "le": "must be at most {limit}",
    "lt": "must be below {limit}",
    "among": "must be one of {limit}",
    "not_null": "must not be null",
    "nulls": "may be null in {limit:.4g} of the records",
    "behind": "may be {limit:.10g} s behind its record's timestamp",
    "silence": "may be silent for {limit:.10g} s",
}


@dataclass(frozen=True)
class Condition:
    """One condition on `of`. limit: as in Rule; ms for `behind` and `silence`."""

    of: str
    name: str
    limit: Any
    action: Action

    @property
    def label(self) -> str:
        """How a prediction names it."""
        return f"{self.of}:{self.name}"

    @property
    def of_records(self) -> bool:
        """Whether a single record can break it."""
        return self.name not in ("nulls", "silence")

    @property
    def words(self) -> str:
        """What it asks for, after its name: "must be at most 10"."""
        limit = self.limit
        if self.name in ("behind", "silence"):
            limit = limit / 1000
        elif self.name == "among":
            limit = ", ".join(map(repr, limit[:10])) + (", …" if len(limit) > 10 else "")
        return _SAYS[self.name].format(limit=limit)

    def broken(self, column: Any, behind_ms: np.ndarray | None) -> np.ndarray:
        """Bool [n]: which of the records break it; for `nulls`, which are null; for `silence`, none.

        column: a number's [n] with NaN for null, or a list of str | None. behind_ms: int64 [n], or None where no
        record has a timestamp of its own.
        """
        if self.name == "silence" or (self.name == "behind" and behind_ms is None):
            return np.zeros(len(column), dtype=bool)
        if self.name == "behind":
            assert behind_ms is not None
            return np.asarray(behind_ms > self.limit)
        if not isinstance(column, np.ndarray):
            return self._texts(column)
        if self.name in ("not_null", "nulls"):
            return np.isnan(column)
        if self.name == "among":
            allowed = np.array(self.limit, dtype=np.float32 if column.dtype == np.float32 else np.float64)
            return np.logical_not(np.isin(column, allowed) | np.isnan(column))
        compare = {"ge": np.less, "gt": np.less_equal, "le": np.greater, "lt": np.greater_equal}[self.name]
        found: np.ndarray = compare(column, self.limit)
        return found

    def _texts(self, column: Sequence[str | None]) -> np.ndarray:
        if self.name == "among":
            allowed = {*self.limit, None}
            return np.array([value not in allowed for value in column], dtype=bool)
        return np.array([value is None for value in column], dtype=bool)


def bits_of(
    conditions: Sequence[Condition], columns: Mapping[str, Any], n: int, behind_ms: np.ndarray | None
) -> np.ndarray:
    """int64 [n]: bit i is set where a record breaks condition i."""
    bits = np.zeros(n, dtype=np.int64)
    for place, condition in enumerate(conditions):
        broken = condition.broken(columns[condition.of], behind_ms)
        if broken.any():
            bits |= broken.astype(np.int64) << place
    return bits


def mask_of(conditions: Sequence[Condition], *actions: Action) -> int:
    """The bits of the conditions of records that ask for one of `actions`."""
    return sum(1 << i for i, c in enumerate(conditions) if c.of_records and c.action in actions)


def count(bits: np.ndarray, place: int) -> int:
    """How many records have bit `place`."""
    return int(np.count_nonzero(bits >> place & 1))
