"""The streams of a merge are read abreast: one that is far ahead of the others pauses until they have come closer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from monitors.metrics import Metrics
from streams.intake import Intake
from streams.lane import Lane

MAX_BUFFERED = 20_000
"""Records of one stream and partition that may wait in the merge; reading of that stream pauses above it."""


class Balance:
    """Pauses streams and lets them go on. topics: of the pipeline's sources, in order."""

    def __init__(self, intake: Intake, topics: Sequence[str], metrics: Metrics) -> None:
        self._intake, self._topics, self._metrics = intake, topics, metrics
        self._held: set[tuple[int, int]] = set()

    def keep(self, lanes: Mapping[int, Lane]) -> None:
        """Looks at what waits in the lanes; to be called when what could go has gone."""
        if len(self._topics) == 1:
            return
        totals = [0] * len(self._topics)
        for partition, lane in lanes.items():
            for stream, waiting in enumerate(lane.buffered):
                totals[stream] += waiting
                at = (stream, partition)
                if waiting > MAX_BUFFERED and at not in self._held:
                    self._held.add(at)
                    self._intake.hold(stream, partition)
                elif waiting < MAX_BUFFERED // 2 and at in self._held:
                    self._held.discard(at)
                    self._intake.go_on(stream, partition)
        for topic, total in zip(self._topics, totals, strict=True):
            self._metrics.set("weir_merge_buffered_records", total, source=topic)
