"""The prediction record as the monitor reads it, and which source records it has seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import msgspec
import numpy as np

FeatureKind = Literal["number", "category"]
Kinds = Mapping[str, FeatureKind]
"""The features of a pipeline by name, in order."""


class Origin(msgspec.Struct, gc=False):
    """The source record that was scored."""

    topic: str
    partition: int
    offset: int


class Prediction(msgspec.Struct, gc=False):
    """One prediction. `features` has one attribute a feature, None where it was missing.

    time: the event's, ms since 1970. score: None = unscored; a list for several classes. shadows: what versions that
    ran beside it scored, by version.
    """

    id: str
    key: str | None
    time: int
    source: Origin
    model: str | None
    version: str | None
    arm: str | None
    deployment: str | None
    score: float | list[float] | None
    features: Any
    shadows: dict[str, float | list[float | None] | None] | None = None

    @property
    def place(self) -> tuple[int, int]:
        """(partition, offset) of the source record: what makes it one prediction."""
        return self.source.partition, self.source.offset


def prediction_decoder(kinds: Kinds) -> Callable[[bytes], Prediction]:
    """A decoder of prediction records with the features `kinds`; others are ignored, absent ones are None.

    It raises msgspec.MsgspecError for anything else.
    """
    types: dict[FeatureKind, Any] = {"number": float | None, "category": str | None}
    fields: list[tuple[str, Any, None]] = [(name, types[kind], None) for name, kind in kinds.items()]
    features = msgspec.defstruct("Features", fields, gc=False)
    made = msgspec.defstruct("PredictionOfPipeline", [("features", features)], bases=(Prediction,), gc=False)
    return cast(Callable[[bytes], Prediction], msgspec.json.Decoder(made).decode)


class SeenOffsets:
    """Which offsets of each partition came before: within `horizon` offsets, older ones count as seen."""

    def __init__(self, horizon: int = 1 << 20) -> None:
        self._horizon = horizon
        self._seen: dict[int, np.ndarray] = {}
        self._end: dict[int, int] = {}

    @property
    def ends(self) -> dict[int, int]:
        """By partition, the offset after the highest one seen."""
        return dict(self._end)

    def gaps(self, look: int = 1 << 16, most: int = 4096) -> dict[int, list[int]]:
        """By partition, offsets among the `look` below its end that have not come yet, the newest `most` of them."""
        found = {}
        for partition, end in self._end.items():
            offsets = np.arange(max(0, end - min(look, self._horizon)), end)
            if len(missing := offsets[~self._seen[partition][offsets % self._horizon]]):
                found[partition] = [int(offset) for offset in missing[-most:]]
        return found

    def restore(self, ends: Mapping[int, int], gaps: Mapping[int, Sequence[int]] | None = None) -> None:
        """Everything below `ends` has been seen, but for `gaps`."""
        for partition, end in ends.items():
            self._seen[partition] = np.ones(self._horizon, dtype=bool)
            self._end[partition] = end
            for offset in (gaps or {}).get(partition, ()):
                self._seen[partition][offset % self._horizon] = False

    def forget(self, partition: int) -> None:
        """Its offsets count anew."""
        self._seen.pop(partition, None)
        self._end.pop(partition, None)

    def add(self, places: Sequence[tuple[int, int]]) -> list[bool]:
        """For each (partition, offset) whether it is new; marks them all as seen."""
        return [self._add(partition, offset) for partition, offset in places]

    def _add(self, partition: int, offset: int) -> bool:
        end = self._end.get(partition, 0)
        if offset < end - self._horizon:
            return False
        seen = self._seen.get(partition)
        if seen is None:
            seen = self._seen[partition] = np.zeros(self._horizon, dtype=bool)
            end = self._end[partition] = offset
        slot = offset % self._horizon
        if offset >= end:
            self._forget(seen, end, offset)
            self._end[partition] = offset + 1
        elif seen[slot]:
            return False
        seen[slot] = True
        return True

    def _forget(self, seen: np.ndarray, start: int, stop: int) -> None:
        """Slots of offsets [start, stop] are taken over from older offsets."""
        if stop - start >= self._horizon:
            seen[:] = False
            return
        first, last = start % self._horizon, stop % self._horizon
        if first <= last:
            seen[first : last + 1] = False
        else:
            seen[first:] = False
            seen[: last + 1] = False
