"""What a read of online features gives: columns for who computes with them, readings for who looks at them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast, overload

import numpy as np

from features.expiry import EXPIRED, MISSING, PRESENT, REBUILDING
from features.kernel import UNSEEN

State = Literal["present", "missing", "expired", "rebuilding"]
STATES: tuple[State, ...] = tuple(
    cast(State, name)
    for _, name in sorted(
        {PRESENT: "present", MISSING: "missing", EXPIRED: "expired", REBUILDING: "rebuilding"}.items()
    )
)
"""Names of the codes in `Readings.states`."""


@dataclass(frozen=True)
class Reading:
    """One feature of one entity, as of the time of reading.

    value: what a model would get, None for NaN. Of a state that is not present: 0 for count and sum, but None while
        rebuilding.
    state: present; missing: the entity has not been seen, or not before that time; expired: too long ago;
        rebuilding: not known, for the state of its partition is being made anew, or no worker has begun it.
    newest_ms: event time of the entity's newest event, or the start of its pane; None if it was never seen.
    age_s: seconds from then to the time of reading.
    """

    value: float | None
    state: State
    newest_ms: int | None
    age_s: float | None


@dataclass(frozen=True)
class Readings(Sequence[dict[str, Reading]]):
    """`len(readings)` entities by k features, in the order asked. `readings[i]` is entity i: its readings by name.

    names: of the features. at_ms: event time that they are read at.
    groups: the fields that name the entity of each feature: two features of one group have one age. Of a ratio over
        two entities the fields of both, one after the other.
    values: float64 [n, k], NaN = none. states: uint8 [n, k], places in STATES.
    newest: int64 [n, k], event time in ms of what an entity has seen last; the least int64 if nothing.
    written: int64 [n], the store's clock in ms when a worker last wrote the entity's partition; 0 if none has.
    """

    names: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]
    at_ms: int
    values: np.ndarray
    states: np.ndarray
    newest: np.ndarray
    written: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    @property
    def ages_s(self) -> np.ndarray:
        """float64 [n, k]: seconds since the newest event, NaN where there is none."""
        unseen = self.newest == UNSEEN
        return np.where(unseen, np.nan, (self.at_ms - np.where(unseen, 0, self.newest)) / 1000)

    def checkpoint_ages_s(self, now_ms: int) -> list[float | None]:
        """Seconds since a worker last wrote each entity's partition, at the wall clock `now_ms`; None if none has.

        A worker writes where events have come: of a partition without traffic the age grows, and nothing is stale.
        """
        return [max(0, now_ms - written) / 1000 if written else None for written in self.written.tolist()]

    @overload
    def __getitem__(self, index: int) -> dict[str, Reading]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Reading]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Reading] | list[dict[str, Reading]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = zip(self.values[index].tolist(), self.states[index].tolist(), self.newest[index].tolist(), strict=True)
        return {
            name: Reading(
                None if value != value else value,
                STATES[state],
                None if newest == UNSEEN else newest,
                None if newest == UNSEEN else (self.at_ms - newest) / 1000,
            )
            for name, (value, state, newest) in zip(self.names, row, strict=True)
        }

    def __iter__(self) -> Iterator[dict[str, Reading]]:
        return (self[i] for i in range(len(self)))
