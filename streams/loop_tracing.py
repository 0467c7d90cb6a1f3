"""The loop's traces: from sampled predictions to the drift that they showed, and on to the retrain event."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from monitors.loop import Drift, RetrainEvent
from streams.tracing import Step, Tracer, parse_traceparent, traceparent_of

LINKS = 32
"""Predictions that a drift's span links to, at most."""
_BLOCKS, _DRIFTS = 64, 256
Headers = tuple[tuple[str, bytes], ...]


class LoopTraces:
    """Spans of a monitor. Without an exporter it costs nothing, and the records carry no header.

    `predictions` is told of all that is read, `close` when a block has closed, `outcome` what came of it. A block's
    predictions are here those that were read while it was the next to close: a few may be of its neighbours.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._open: list[bytes] = []
        self._closed: dict[int, tuple[bytes, ...]] = {}
        self._drifts: dict[str, bytes] = {}

    def predictions(self, messages: Iterable[Any]) -> None:
        """Records of the predictions topic. The first sampled ones since the last block are kept."""
        if not self._tracer.exports:
            return
        for message in messages:
            if len(self._open) >= LINKS:
                return
            header = traceparent_of(message.headers())
            parent = parse_traceparent(header) if header else None
            if header is not None and parent is not None and parent.sampled:
                self._open.append(header)

    def close(self, number: int) -> None:
        """The block of this number has closed."""
        self._closed[number] = tuple(self._open)
        self._open = []
        _keep(self._closed, _BLOCKS)

    def outcome(self, drifts: Sequence[Drift], retrains: Sequence[RetrainEvent]) -> dict[str, Headers]:
        """Spans for what a block brought; by id, the headers of the record that tells of it."""
        found: dict[str, Headers] = {}
        for drift in drifts:
            step = self._drift(drift)
            found[drift.id] = step.headers
            if step.traceparent is not None:
                self._drifts[drift.id] = step.traceparent
        _keep(self._drifts, _DRIFTS)
        for event in retrains:
            found[event.id] = self._retrain(event).headers
        return found

    def _drift(self, drift: Drift) -> Step:
        links = [
            header for number, kept in self._closed.items() if drift.first <= number <= drift.last for header in kept
        ]
        with self._tracer.step(
            "drift",
            links=links[-LINKS:],
            drift=drift.id,
            signal=drift.signal,
            detector=drift.detector,
            statistic=drift.statistic,
            threshold=drift.threshold,
        ) as step:
            return step

    def _retrain(self, event: RetrainEvent) -> Step:
        """It continues the trace of the first of its drifts, and links to the others; without a drift it begins one."""
        before = [self._drifts.pop(id) for id in event.drifts if id in self._drifts]
        with self._tracer.step(
            "retrain",
            parent=before[0] if before else None,
            links=before[1:],
            retrain=event.id,
            reason=event.reason,
            labels=event.labels,
        ) as step:
            return step


def _keep(found: dict[Any, Any], most: int) -> None:
    """Leaves the newest `most`."""
    while len(found) > most:
        del found[next(iter(found))]
