"""The monitor: reads a pipeline's predictions and labels, joins them, and archives them for training.

One process a pipeline. It reads all partitions in the group `<pipeline>-monitor`, and commits what it has read once
the rows that came of it are archived: a killed monitor reads the last of them again, and training takes one of two
equal rows. It commits there also, more often and as offsets of the scored topic, up to where its predictions have been
dealt with: what a replay into an embedded broker waits for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from features.spec import Category
from monitors.archive import Archive
from monitors.join import Joined, LabelJoin
from monitors.metrics import Metrics
from monitors.predictions import Kinds, Prediction, SeenOffsets, prediction_decoder
from streams.kafka import client_config, consumer_config, partition_counts
from streams.labels import LabelReader
from streams.pipeline import Pipeline
from streams.settings import Settings

log = structlog.get_logger(__name__)

BATCH = 4000
FLUSH_S = 60.0
_EMBEDDED_FETCH_MS = 20
_WITHIN_MS = 7 * 24 * 3_600_000


def monitor_group(pipeline: Pipeline) -> str:
    """The consumer group of a pipeline's monitor."""
    return f"{pipeline.name}-monitor"


def archive_folder(pipeline: Pipeline, settings: Settings) -> Path:
    return settings.data_dir / "archive" / pipeline.name


def feature_kinds(pipeline: Pipeline) -> Kinds:
    """What predictions log of each feature."""
    return {
        feature.name: "category" if isinstance(feature, Category) else "number" for feature in pipeline.spec.features
    }


@dataclass
class _Clock:
    """Event time up to which a topic has been read: the least of its partitions that are not at their end."""

    partitions: int
    times: dict[int, int] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)

    def advance(self, partition: int, time_ms: int) -> None:
        self.ended.discard(partition)
        self.times[partition] = max(time_ms, self.times.get(partition, -1))

    def now(self) -> int:
        behind = [self.times.get(p, -1) for p in range(self.partitions) if p not in self.ended]
        return min(behind) if behind else max(self.times.values(), default=-1)


class Monitor:
    """Reads, joins and archives. Not for several threads.

    broker: host:port,… folder: where the archive lies.
    on_predictions: called with the predictions of each poll that were not seen before.
    on_joined: called with each prediction that got its label, or will not get one (label None).
    commit_ms: between commits.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        settings: Settings,
        broker: str,
        folder: Path,
        *,
        metrics: Metrics,
        on_predictions: Callable[[list[Prediction]], object] = lambda _: None,
        on_joined: Callable[[list[Joined]], object] = lambda _: None,
        commit_ms: int | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._metrics = metrics
        self._on_predictions, self._on_joined = on_predictions, on_joined
        self._embedded = settings.embedded_broker
        self._commit_s = (commit_ms or settings.commit_interval) / 1000
        kinds = feature_kinds(pipeline)
        self._decode = prediction_decoder(kinds)
        self._labels = LabelReader(pipeline.labels) if pipeline.labels else None
        self._join = LabelJoin(pipeline.labels.within_ms if pipeline.labels else _WITHIN_MS)
        self._archive = Archive(folder, kinds)
        self._seen = SeenOffsets()
        self._next: dict[tuple[str, int], int] = {}
        self._archived: dict[tuple[str, int], int] = {}
        self._committed_at = self._flushed_at = time.monotonic()
        base = client_config(settings, broker, f"{pipeline.name}-monitor", self._broker_error)
        config = consumer_config(settings, base, monitor_group(pipeline))
        # The embedded broker does not wake a fetch that waits for records: it is asked more often.
        self._consumer = Consumer(
            {**config, "fetch.wait.max.ms": _EMBEDDED_FETCH_MS} if settings.embedded_broker else config
        )
        self._admin = AdminClient(base)
        self._clocks: dict[str, _Clock] = {}
        self._closed = False
        self.predictions = 0  # distinct source records
        self.duplicates = 0
        self.unscored = 0
        self.dead_letters = 0

    @property
    def counts(self) -> Any:
        """What became of predictions and labels (monitors.join.JoinCounts)."""
        return self._join.counts

    @property
    def _topics(self) -> list[str]:
        topics = [self._pipeline.topics.predictions, self._pipeline.topics.dead_letters]
        return [*topics, self._pipeline.labels.topic] if self._pipeline.labels else topics

    def connect(self) -> bool:
        """Takes up all partitions from where the group stands; False while a topic does not exist yet."""
        counts = partition_counts(self._admin, self._topics, embedded=self._embedded)
        if not all(counts.values()):
            return False
        self._clocks = {topic: _Clock(n) for topic, n in counts.items()}
        self._consumer.assign([TopicPartition(t, p) for t, n in counts.items() for p in range(n)])
        return True

    def poll(self, timeout_s: float) -> int:
        """Reads what is there, waiting at most `timeout_s` for it. Returns how many records it was."""
        predictions: list[Any] = []
        labels: list[Any] = []
        messages: list[Any] = self._consumer.consume(BATCH, timeout_s)
        for message in messages:
            error = message.error()
            topic, partition = message.topic(), message.partition()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    self._clocks[topic].ended.add(partition)
                else:
                    self._broker_error(error)
                continue
            self._next[topic, partition] = message.offset() + 1
            if topic == self._pipeline.topics.predictions:
                predictions.append(message)
            elif topic == self._pipeline.topics.dead_letters:
                self.dead_letters += 1
            else:
                labels.append(message)
        if predictions:
            self._take_predictions(predictions)
        if labels:
            self._take_labels(labels)
        self._expire()
        self._keep_time()
        return len(predictions) + len(labels)

    def flush(self) -> None:
        """Writes what has been joined so far to the archive; only then may what it was read from be committed."""
        self._archive.flush()
        self._archived = dict(self._next)
        self._flushed_at = time.monotonic()

    def close(self, *, finished: bool = False) -> None:
        """Archives, commits and leaves. finished: no label will come; what waits for one is archived."""
        if self._closed:
            return
        self._closed = True
        if finished:
            self._emit(self._join.finish())
        self.flush()
        self._commit(asynchronous=False)
        self._consumer.close()

    def _take_predictions(self, messages: list[Any]) -> None:
        clock = self._clocks[self._pipeline.topics.predictions]
        found: list[Prediction] = []
        for message in messages:
            try:
                found.append(self._decode(message.value() or b""))
            except msgspec.MsgspecError as error:
                log.warning("not a prediction", offset=message.offset(), reason=str(error))
                continue
            clock.advance(message.partition(), found[-1].time)
        is_new = self._seen.add([prediction.place for prediction in found])
        new = [prediction for prediction, first in zip(found, is_new, strict=True) if first]
        repeated = len(found) - len(new)
        unscored = sum(prediction.score is None for prediction in new)
        self.predictions += len(new)
        self.duplicates += repeated
        self.unscored += unscored
        self._metrics.inc("weir_monitor_predictions_total", len(new), result="new")
        self._metrics.inc("weir_monitor_predictions_total", repeated, result="duplicate")
        self._on_predictions(new)
        self._emit(self._join.predictions(new))

    def _take_labels(self, messages: list[Any]) -> None:
        assert self._labels is not None
        clock = self._clocks[self._labels.topic]
        found, bad = self._labels.read([m for m in messages if m.value() is not None])
        for partition, label in found:
            clock.advance(partition, label.time)
        self._metrics.inc("weir_monitor_labels_total", bad, result="invalid")
        self._emit(self._join.labels(label for _, label in found))

    def _expire(self) -> None:
        predicted = self._clocks[self._pipeline.topics.predictions].now()
        labelled = self._clocks[self._labels.topic].now() if self._labels else predicted
        self._emit(self._join.expire(predicted_ms=predicted, labelled_ms=labelled))

    def _emit(self, joined: list[Joined]) -> None:
        if joined:
            self._archive.add(joined)
            self._on_joined(joined)

    def _keep_time(self) -> None:
        now = time.monotonic()
        if now - self._committed_at >= self._commit_s:
            self._committed_at = now
            self._commit(asynchronous=True)
        if now - self._flushed_at >= FLUSH_S:
            self.flush()

    def _commit(self, *, asynchronous: bool) -> None:
        positions = [TopicPartition(t, p, offset) for (t, p), offset in self._archived.items()]
        lead = self._pipeline.lead.topic
        positions += [TopicPartition(lead, p, offset) for p, offset in self._seen.ends.items()]
        if positions:
            try:
                self._consumer.commit(offsets=positions, asynchronous=asynchronous)  # type: ignore[call-overload]
            except KafkaException as error:
                self._broker_error(error.args[0])
        self._count()

    def _count(self) -> None:
        """Brings the metrics up to the join's counts."""
        counts, metrics = self._join.counts, self._metrics
        for result in ("matched", "late", "duplicate", "unmatched"):
            behind = getattr(counts, result) - metrics.value("weir_monitor_labels_total", result=result)
            metrics.inc("weir_monitor_labels_total", behind, result=result)
        behind = counts.missing - metrics.value("weir_monitor_missing_labels_total")
        metrics.inc("weir_monitor_missing_labels_total", behind)
        behind = self._archive.written - metrics.value("weir_monitor_archived_total")
        metrics.inc("weir_monitor_archived_total", behind)
        for side, waiting in zip(("predictions", "labels"), self._join.pending, strict=True):
            metrics.set("weir_monitor_pending_records", waiting, side=side)

    def _broker_error(self, error: KafkaError) -> None:
        self._metrics.inc("weir_broker_errors_total", code=error.name())
        log.warning("broker error", code=error.name(), reason=error.str())
