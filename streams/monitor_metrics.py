"""What the monitor shows of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from monitors.archive import Archive
from monitors.join import Joined
from monitors.live import LivePerformance, delays_s
from monitors.metrics import Metrics
from streams.loop_folds import Outcome
from streams.loop_state import LoopState, Taken
from streams.pipeline import Pipeline


class MonitorMetrics:
    """Counts into `metrics`; the join's own counts are brought up at each commit."""

    def __init__(self, pipeline: Pipeline, metrics: Metrics) -> None:
        self._metrics = metrics
        self._live = LivePerformance()
        self._labels_topic = pipeline.labels.topic if pipeline.labels else None
        self._predictions_topic = pipeline.topics.predictions
        self._before: dict[str, int] = {}

    def predictions(self, taken: Taken, joined: Sequence[Joined]) -> None:
        self._metrics.inc("weir_monitor_predictions_total", len(taken.new), result="new")
        self._metrics.inc("weir_monitor_predictions_total", taken.repeated, result="duplicate")
        self._joined(joined)

    def labels(self, bad: int, joined: Sequence[Joined]) -> None:
        self._metrics.inc("weir_monitor_labels_total", bad, result="invalid")
        self._joined(joined)

    def lag(self, behind: Mapping[str, int]) -> None:
        """Records not yet read, by topic."""
        for topic, records in behind.items():
            self._metrics.set("weir_monitor_lag_records", records, topic=topic)

    def committed(self, state: LoopState, archive: Archive) -> None:
        metrics = self._metrics
        counts = {**vars(state.join.counts), "archived": archive.written}
        for name, now in counts.items():
            behind = now - self._before.get(name, 0)
            if behind < 0:  # begun again
                behind = now
            if name == "archived":
                metrics.inc("weir_monitor_archived_total", behind)
            elif name == "missing":
                metrics.inc("weir_monitor_missing_labels_total", behind)
            else:
                metrics.inc("weir_monitor_labels_total", behind, result=name)
        self._before = counts
        self._live.show(metrics)
        for side, waiting in zip(("predictions", "labels"), state.join.pending, strict=True):
            metrics.set("weir_monitor_pending_records", waiting, side=side)
        for side, topic in (("predictions", self._predictions_topic), ("labels", self._labels_topic)):
            if topic is not None:
                metrics.set("weir_monitor_watermark_timestamp_seconds", state.clocks[topic].now() / 1000, side=side)

    def outcome(self, outcome: Outcome, statistics: Mapping[tuple[str, str], tuple[float, float]]) -> None:
        metrics, block = self._metrics, outcome.block
        metrics.inc("weir_blocks_total")
        metrics.inc("weir_block_late_records_total", block.late)
        metrics.set("weir_block_end_timestamp_seconds", block.end / 1000)
        if block.labels.n + block.labels.missing:
            coverage = block.labels.n / (block.labels.n + block.labels.missing)
            metrics.set("weir_label_coverage_ratio", coverage)
        for (signal, detector), (statistic, threshold) in statistics.items():
            metrics.set("weir_drift_statistic", statistic, signal=signal, detector=detector)
            metrics.set("weir_drift_threshold", threshold, signal=signal, detector=detector)
        for drift in outcome.drifts:
            metrics.inc("weir_drift_events_total", signal=drift.signal, detector=drift.detector)
        for event in outcome.retrains:
            metrics.inc("weir_retrain_events_total", reason=event.reason)

    def _joined(self, joined: Sequence[Joined]) -> None:
        self._live.update(joined)
        if joined:
            self._metrics.observe_array("weir_label_delay_seconds", delays_s(joined))
