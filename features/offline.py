"""The engine without a store behind it: rounds in, features out, at once.

The state of every entity stays in memory, about the width of its row (`features.layout`) and some 200 bytes.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any

import numpy as np

from features.engine import FeatureEngine, Features
from features.memory_store import MemoryStore
from features.round import Round
from features.spec import FeatureSpec
from features.store import Meta

_NEVER_FULL = 2**40


class OfflineEngine:
    """Computes the rounds of a spec from an empty beginning; a partition begins with its first record."""

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec = spec
        self._engine = FeatureEngine(spec, MemoryStore(), capacity=_NEVER_FULL)
        self._owned: set[int] = set()

    @property
    def late(self) -> dict[str, int]:
        """By windowed aggregate, the events so far that came too late for it."""
        return self._engine.late

    @property
    def entities(self) -> dict[str, int]:
        """Rows held, by entity kind."""
        return {kind: stats.rows for kind, stats in self._engine.stats().items()}

    def process(self, round: Round, given: Mapping[str, np.ndarray] | None = None) -> Features:
        """The features of the round's scored records, each as of just before it. Raises FeatureError.

        given: as of `FeatureEngine.process`.
        """
        for partition in {segment.partition for columns in round for segment in columns.segments} - self._owned:
            meta = Meta(1, 1, self.spec.state_hash, (0,) * len(self.spec.streams))
            self._engine.own(partition, meta, empty=True)
            self._owned.add(partition)
        _at_once(self._engine.load(round))
        return self._engine.process(round, given)


def _at_once(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine that waits for nothing: of partitions that are all in memory the store is never asked."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise AssertionError("a round waited, though all of its rows are in memory")
