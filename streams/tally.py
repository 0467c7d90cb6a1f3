"""What a round adds to the metrics."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import structlog

from features.engine import Features, Folded
from models.rollout import Deployment
from models.scorer import Scores
from monitors.metrics import Metrics
from streams.rounds import Work
from streams.violations import Violations

log = structlog.get_logger(__name__)


class Tally:
    """Counts rounds. topics: of the pipeline's sources, in order. violations: None = nothing has rules."""

    def __init__(self, metrics: Metrics, topics: Sequence[str], violations: Violations | None = None) -> None:
        self._metrics, self._topics, self._violations = metrics, topics, violations

    def round(self, work: Work, features: Features, scores: Scores | None, deployment: Deployment | None) -> None:
        """A round that has been acknowledged; scores None = unscored."""
        metrics = self._metrics
        metrics.observe("weir_round_records", work.records)
        if work.replays:
            return  # its events were counted when they were scored
        self._late(features.late)
        for name, failure in features.failed.items():
            metrics.inc("weir_compute_failures_total", failure.events, feature=name)
            log.warning("a computed feature failed, its value is null", feature=name, **failure._asdict())
        if len(work.rows):
            self._predictions(len(work.rows), scores, deployment)

    def sent(self, predictions: int, polled_ns: int) -> None:
        """The predictions of a round whose oldest poll returned at `polled_ns`, monotonic, are the producer's."""
        if predictions:
            self._metrics.observe("weir_latency_seconds", (time.monotonic_ns() - polled_ns) / 1e9, predictions)

    def folded(self, work: Work, folded: Folded) -> None:
        """A round of a part that does not score."""
        self._metrics.observe("weir_round_records", work.records)
        if not work.replays:
            self._late(folded.late)

    def replayed(self, records: Mapping[str, int]) -> None:
        """Records that are added to the features' state again, by entity."""
        for entity, count in records.items():
            self._metrics.inc("weir_restored_records_total", count, entity=entity)

    def acknowledged(self, work: Work) -> None:
        """A round's records that are done with: replayed, or worked off for the first time, or dead."""
        metrics = self._metrics
        for take in work.takes:
            for topic, replayed, pieces in zip(self._topics, take.replayed, take.pieces, strict=True):
                if replayed:
                    metrics.inc("weir_replayed_records_total", sum(map(len, replayed)), source=topic)
                if pieces:
                    metrics.inc("weir_events_total", sum(map(len, pieces)), source=topic)
            if self._violations is not None:
                self._violations.worked_off(take.pieces)
        if self._violations is not None:
            self._violations.dead(work.dead)
        counts = Counter((letter.stream, letter.stage, letter.code) for letter in work.dead)
        for (stream, stage, code), count in counts.items():
            topic = self._topics[stream]
            metrics.inc("weir_events_total", count, source=topic)
            metrics.inc("weir_dead_letters_total", count, source=topic, stage=stage, reason=code)

    def _late(self, counts: Mapping[str, int]) -> None:
        for name, late in counts.items():
            if late:
                self._metrics.inc("weir_late_total", late, window=name)

    def _predictions(self, n: int, scores: Scores | None, deployment: Deployment | None) -> None:
        metrics = self._metrics
        if scores is None or scores.score is None or deployment is None:
            failed = scores is None and deployment is not None and deployment.versions
            metrics.inc("weir_unscored_total", n, reason="failed" if failed else "no_model")
            return
        invalid = scores.invalid_rows() if scores.invalid else np.empty(0, dtype=np.int64)
        arms = len(scores.arms)
        served = np.delete(scores.arm, invalid) if len(invalid) else scores.arm
        finite = np.bincount(served, minlength=arms).tolist()
        for (arm, version), count in zip(scores.arms, finite, strict=True):
            if count:
                metrics.inc("weir_predictions_total", count, model=deployment.model, version=version, arm=arm)
        if scores.withheld is not None:
            metrics.inc("weir_unscored_total", len(scores.withheld), reason="contract")
            invalid = np.setdiff1d(invalid, scores.withheld)
        if len(invalid):
            metrics.inc("weir_unscored_total", len(invalid), reason="non_finite")
            not_finite = np.bincount(scores.arm[invalid], minlength=arms).tolist()
            for (_, version), count in zip(scores.arms, not_finite, strict=True):
                if count:
                    metrics.inc("weir_nonfinite_scores_total", count, version=version)
