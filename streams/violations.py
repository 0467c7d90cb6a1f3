"""Counting what breaks the rules: by record, by stretch for a share of nulls, and by the clock for a silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import structlog

from monitors.conditions import Condition, count
from monitors.metrics import Metrics
from streams.contract import STAGE
from streams.decoded import DeadLetter, Decoded

log = structlog.get_logger(__name__)

STRETCH = 1000
"""Records over which a share of nulls is taken, at least."""

_ACTIONS = {"flag": "flagged", "withhold": "withheld"}


class Violations:
    """Counts for the sources of one worker. topics, conditions: by stream; features: of the scored one's features."""

    def __init__(
        self,
        metrics: Metrics,
        topics: Sequence[str],
        conditions: Sequence[Sequence[Condition]],
        features: Sequence[Condition],
    ) -> None:
        self._metrics, self._topics = metrics, topics
        self._sources = [_Stretches(metrics, topic, found) for topic, found in zip(topics, conditions, strict=True)]
        self._features = _Stretches(metrics, topics[0], features)
        self._silences = {
            stream: condition
            for stream, found in enumerate(conditions)
            for condition in found
            if condition.name == "silence"
        }
        self._heard_s: dict[int, float] = {}
        self._silent: set[int] = set()
        self._came: set[int] = set()

    def worked_off(self, pieces: Sequence[Sequence[Decoded]]) -> None:
        """Records that were worked off for the first time, by stream."""
        for stream, found in enumerate(pieces):
            if found:
                self._came.add(stream)
            for piece in found:
                if piece.bits is not None:
                    self._sources[stream].add(piece.bits)

    def dead(self, letters: Sequence[DeadLetter]) -> None:
        """Dead letters of any stage."""
        found = Counter((letter.stream, letter.field, letter.code) for letter in letters if letter.stage == STAGE)
        self._came |= {letter.stream for letter in letters}
        for (stream, field, rule), records in found.items():
            _inc(self._metrics, records, self._topics[stream], field, rule, "dead_letter")

    def features(self, bits: np.ndarray | None) -> None:
        """The features of a round's scored records."""
        if bits is not None:
            self._features.add(bits)

    def look(self, now_s: float, *, listening: bool) -> None:
        """Notes silences. listening: whether all that the sources hold has been read; else nothing is said of them."""
        for stream, condition in self._silences.items():
            if stream in self._came or not listening:
                self._heard_s.pop(stream, None)
                self._silent.discard(stream)
            silent_s = now_s - self._heard_s.setdefault(stream, now_s)
            topic = self._topics[stream]
            self._metrics.set("weir_contract_silence_seconds", silent_s, source=topic)
            if silent_s > condition.limit / 1000 and stream not in self._silent:
                self._silent.add(stream)
                _inc(self._metrics, 1, topic, condition.of, condition.name, "flagged")
                log.warning("a source is silent", source=topic, silent_s=round(silent_s), rule=condition.words)
        self._came.clear()


class _Stretches:
    """Counts the bits of one source's records, or of the features'."""

    def __init__(self, metrics: Metrics, topic: str, conditions: Sequence[Condition]) -> None:
        self._metrics, self._topic, self._conditions = metrics, topic, conditions
        self._shares = [i for i, c in enumerate(conditions) if c.name == "nulls"]
        self._records = 0
        self._nulls = dict.fromkeys(self._shares, 0)

    def add(self, bits: np.ndarray) -> None:
        if bits.any():
            for place, condition in enumerate(self._conditions):
                found = count(bits, place)
                if found and place in self._nulls:
                    self._nulls[place] += found
                elif found:
                    action = _ACTIONS[condition.action]
                    _inc(self._metrics, found, self._topic, condition.of, condition.name, action)
        if self._shares:
            self._records += len(bits)
            if self._records >= STRETCH:
                self._close()

    def _close(self) -> None:
        for place in self._shares:
            condition = self._conditions[place]
            share = self._nulls[place] / self._records
            self._metrics.set("weir_contract_null_ratio", share, source=self._topic, field=condition.of)
            if share > condition.limit:
                _inc(self._metrics, 1, self._topic, condition.of, condition.name, "flagged")
            self._nulls[place] = 0
        self._records = 0


def _inc(metrics: Metrics, amount: int, topic: str, field: str, rule: str, action: str) -> None:
    metrics.inc("weir_contract_violations_total", amount, source=topic, field=field, rule=rule, action=action)
