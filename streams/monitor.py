"""The monitor: predictions meet their labels, blocks close, drifts and retrain events follow, examples are archived.

One process a pipeline. It reads all partitions in the group `<pipeline>-monitor`. A commit makes blocks, drifts,
retrain events and the offsets that they came of count together. It has a number, which its metadata carry; what the
join and the open blocks hold as of that number lies in Redis before the commit is made, and so do the archive's files
on disk. A monitor that was killed goes on from there: what was written for a commit that never came is not looked at.

A replay into an embedded broker waits for the monitor: it commits, more often and as offsets of the scored topic, up to
where predictions have been dealt with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from monitors import block as blocks
from monitors import loop
from monitors.archive import Archive
from monitors.block import Block
from monitors.errors import RecordRefused
from monitors.join import Joined
from monitors.join_store import JoinStateLost, JoinStateTaken, JoinStore, JoinStoreAway
from monitors.metrics import Metrics
from monitors.predictions import Prediction
from streams.errors import WeirError
from streams.kafka import BrokerUnavailable, client_config, consumer_config, partition_counts, worker_group
from streams.loop_folds import LoopFolds, Outcome
from streams.loop_outputs import CommitFailed, LoopOutputs, Plain, Record, Transactional
from streams.loop_state import LoopState
from streams.loop_tracing import Headers, LoopTraces
from streams.monitor_metrics import MonitorMetrics
from streams.pipeline import Pipeline
from streams.schemas.declared import declared_codec
from streams.schemas.registry import RegistryAway
from streams.settings import Settings
from streams.source_lag import SourceLag
from streams.take_up import read_topics, take_up
from streams.topic_ids import TopicIds
from streams.tracing import Tracer

log = structlog.get_logger(__name__)

BATCH = 4000
PERSIST_S = 1.0
"""Between commits that find no block closed."""
ARCHIVE_S = 60.0
ALIVE_S = 3600.0
"""Between commits where nothing comes: Kafka forgets offsets that nobody has committed for a week."""
LOOK_S = 60.0
"""Between looks at how many partitions the topics have."""
HOLD_S = 0.2
_EMBEDDED_FETCH_MS = 20
_DAY_MS = 24 * 3_600_000


def monitor_group(pipeline: Pipeline) -> str:
    """The consumer group of a pipeline's monitor."""
    return f"{pipeline.name}-monitor"


def archive_folder(pipeline: Pipeline, settings: Settings) -> Path:
    return settings.data_dir / "archive" / pipeline.name


class _Commit(NamedTuple):
    """What a commit will make count. headers: of the records of drifts and retrain events, by their ids."""

    outcomes: list[Outcome]
    headers: dict[str, Headers]
    archive: bool


class Monitor:
    """Reads, joins, watches and archives. Not for several threads.

    broker: host:port,… redis_url: where the join's state lies. folder: where the archive lies.
    on_predictions: called with the predictions of each poll that were not seen before.
    on_joined: called with each prediction that got its label, or will not get one (label None).
    on_outcome: called with each block that was published, with its drifts and retrain events.
    commit_ms: between commits of the scored topic's offsets, on the embedded broker.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        settings: Settings,
        broker: str,
        redis_url: str,
        folder: Path,
        *,
        metrics: Metrics,
        on_predictions: Callable[[list[Prediction]], object] = lambda _: None,
        on_joined: Callable[[list[Joined]], object] = lambda _: None,
        on_outcome: Callable[[Outcome], object] = lambda _: None,
        commit_ms: int | None = None,
        persist_s: float = PERSIST_S,
    ) -> None:
        self._pipeline = pipeline
        self._shown = MonitorMetrics(pipeline, metrics)
        self._tracer = Tracer.from_environment(pipeline.name)
        self._traces = LoopTraces(self._tracer)
        self._metrics = metrics
        self._on_predictions, self._on_joined, self._on_outcome = on_predictions, on_joined, on_outcome
        self._embedded = settings.embedded_broker
        self._commit_s, self._persist_s = (commit_ms or settings.commit_interval) / 1000, persist_s
        labels = pipeline.labels
        within_ms = labels.within_ms if labels else _DAY_MS
        self._codec = None
        if labels is not None:
            self._codec = declared_codec(f"labels {labels.topic}", labels.codec, labels.event, settings, metrics)
        self._store = JoinStore(redis_url, pipeline.name, ttl_ms=within_ms + 30 * _DAY_MS)
        self._folder = folder
        self._archive: Archive
        self._archived: list[Joined] = []
        self._base = client_config(settings, broker, f"{pipeline.name}-monitor", self._broker_error)
        config = consumer_config(settings, self._base, monitor_group(pipeline))
        # The embedded broker does not wake a fetch that waits for records: it is asked more often.
        self._consumer = Consumer(
            {**config, "fetch.wait.max.ms": _EMBEDDED_FETCH_MS} if settings.embedded_broker else config
        )
        self._admin = AdminClient(self._base)
        workers = consumer_config(settings, self._base, worker_group(pipeline))
        self._source_lag = SourceLag(workers, pipeline.lead.topic)
        lead, ids = pipeline.lead.topic, TopicIds(None if self._embedded else self._admin, [pipeline.lead.topic])
        self._source_id = lambda: ids.now(lead)
        self._outputs: LoopOutputs
        if self._embedded:
            self._outputs = Plain(self._base, lambda: self._consumer)
        else:
            self._outputs = Transactional(self._base, f"weir-{pipeline.name}-monitor", lambda: self._consumer)
        self._state: LoopState
        self._folds: LoopFolds
        self._incarnation, self._number = "", 0
        self._next: dict[str, dict[int, int]] = {}
        self._pending: _Commit | None = None
        self._told_at = self._persisted_at = self._archived_at = self._looked_at = time.monotonic()
        self._moved = False
        self._counts: dict[str, int] = {}
        self._again = False
        self._needless: list[int] = []
        self._labels: list[Any] = []
        """Records of labels that have been read, and not worked off: their schemas cannot be had."""
        self._closed = self._connected = False
        self.held = ""
        """Why nothing is read, in words; empty if something is."""
        self.predictions = 0  # distinct source records
        self.duplicates = 0
        self.unscored = 0
        self.dead_letters = 0

    @property
    def counts(self) -> Any:
        """What became of predictions and labels (monitors.join.JoinCounts)."""
        return self._state.join.counts

    @property
    def last_block(self) -> Block | None:
        """The newest block that was published."""
        return self._folds.last

    def connect(self) -> bool:
        """Takes up all partitions from where the group stands; False while a topic does not exist yet.

        Raises JoinStoreAway where Redis does not answer, BrokerUnavailable where Kafka does not, RegistryAway where the
        Schema Registry does not.
        """
        counts = self._partition_counts()
        if not all(counts.values()):
            return False
        try:
            self._outputs.start()
        except CommitFailed as error:
            raise BrokerUnavailable(str(error)) from error
        self._take_up(counts)
        self._connected = True
        return True

    def poll(self, timeout_s: float) -> int:
        """Reads what is there, waiting at most `timeout_s` for it. Returns how many records it was."""
        if self._again:
            self._begin_again()
        if self._again or not self._take_labels() or (self._pending is not None and not self._commit()):
            time.sleep(HOLD_S)
            return 0
        predictions: list[Any] = []
        labels: list[Any] = []
        messages: list[Any] = self._consumer.consume(BATCH, timeout_s)
        for message in messages:
            error = message.error()
            topic, partition = message.topic(), message.partition()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    if topic in self._state.clocks:
                        self._state.clocks[topic].at_end(partition)
                else:
                    self._broker_error(error)
                continue
            if topic == self._pipeline.topics.retrain:
                self._requested(message)
                continue
            self._next[topic][partition] = message.offset() + 1
            self._moved = True
            if topic == self._pipeline.topics.predictions:
                predictions.append(message)
            elif topic == self._pipeline.topics.dead_letters:
                self.dead_letters += 1
            else:
                labels.append(message)
        if predictions:
            self._take_predictions(predictions)
        self._labels = labels
        if self._take_labels():
            self._on_joined(self._state.expire())
            self._keep_time()
        return len(predictions) + len(labels)

    def flush(self) -> None:
        """Archives and commits what has been read so far, if Redis and Kafka take it."""
        if self._again or not self._take_labels():
            return
        if self._pending is None and any(self._next.values()):
            self._pending = self._prepare(archive=True)
        if self._pending is not None:
            self._commit()

    def close(self, *, finished: bool = False) -> None:
        """Archives, commits and leaves. finished: no label will come; what waits for one is archived."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._connected and not self._again:
                self._finish(finished)
        except WeirError as error:  # another monitor goes on from the last commit
            log.warning("left without a last commit", reason=str(error))
        finally:
            self._consumer.close()
            self._source_lag.close()
            self._store.close()
            self._tracer.shutdown()

    def _finish(self, finished: bool) -> None:
        if self._labels:  # held: to ask once more would keep the process from its end
            log.warning("left without a last commit", reason=self.held)
            return
        if self._pending is not None and not self._commit():
            return
        if finished:
            self._on_joined(self._state.expire(finished=True))
        if any(self._next.values()):
            closed = self._state.close_blocks(self._next, finished=finished)
            self._pending = self._prepare(archive=True, closed=closed)
            self._commit()

    def _take_predictions(self, messages: list[Any]) -> None:
        self._traces.predictions(messages)
        taken, joined = self._state.take_predictions(messages)
        self.predictions += len(taken.new)
        self.duplicates += taken.repeated
        self.unscored += taken.unscored
        self._shown.predictions(taken, joined)
        self._on_predictions(taken.new)
        self._on_joined(joined)

    def _take_labels(self) -> bool:
        """Works off the labels that have been read. False while their schemas cannot be had: nothing more is read, and
        nothing committed, for a commit would pass them over.
        """
        if not self._labels:
            return True
        try:
            bad, joined = self._state.take_labels(self._labels)
        except RegistryAway as error:
            self._hold(f"the schema registry does not answer: {error}")
            return False
        self._labels = []
        self._go_on()
        self._shown.labels(bad, joined)
        self._on_joined(joined)
        return True

    def _requested(self, message: Any) -> None:
        """A retrain event; one that was asked for by hand counts as one for the policy."""
        try:
            event = loop.retrain_from_json(message.value() or b"")
        except RecordRefused as error:
            log.warning("not a retrain event", offset=message.offset(), reason=str(error))
            return
        if event.reason == "manual":
            self._folds.requested(event)

    def _keep_time(self) -> None:
        now = time.monotonic()
        closed = self._state.close_blocks(self._next)
        due = now - self._persisted_at >= (self._persist_s if self._moved else ALIVE_S)
        if closed or due or self._archive.full:
            old = now - self._archived_at >= ARCHIVE_S
            self._pending = self._prepare(archive=old or self._archive.full, closed=closed)
            self._commit()
        elif not self._embedded and now - self._looked_at >= LOOK_S:
            self._look(now)
        elif self._embedded and now - self._told_at >= self._commit_s:
            self._told_at = now
            self._tell()

    def _prepare(self, *, archive: bool, closed: Sequence[Block] = ()) -> _Commit:
        return self._commit_of([self._folds.update(block) for block in closed], archive=archive)

    def _commit_of(self, outcomes: list[Outcome], *, archive: bool = False) -> _Commit:
        headers: dict[str, Headers] = {}
        for outcome in outcomes:
            self._traces.close(outcome.block.number)
            headers |= self._traces.outcome(outcome.drifts, outcome.retrains)
        # A retrain event's examples are archived before it is told of.
        return _Commit(outcomes, headers, archive or any(outcome.retrains for outcome in outcomes))

    def _commit(self) -> bool:
        """Makes what is pending count. False where Redis, the disk or Kafka did not take it; it is tried again."""
        pending = self._pending
        assert pending is not None
        number = self._number + 1
        try:
            self._store.write(self._incarnation, number, self._state.snapshot(), self._state.segment())
            if pending.archive:
                self._archived += self._archive.flush(self._incarnation, number)
            self._outputs.commit(self._records(pending), self._offsets(number))
        except (JoinStoreAway, OSError) as error:
            self._hold(str(error))
            return False
        except JoinStateTaken as error:
            raise WeirError(f"{error}; is a second monitor of this pipeline running?") from error
        except JoinStateLost as error:
            log.error("beginning again from the last commit", reason=str(error))
            self._begin_again()
            return False
        except CommitFailed as error:
            log.warning("a commit failed, beginning again from the last one", reason=str(error))
            self._begin_again()
            return False
        self._number, self._pending = number, None
        self._go_on()
        self._moved = False
        self._persisted_at = self._told_at = time.monotonic()
        if pending.archive:
            self._archived_at = self._persisted_at
        self._forget(self._state.committed(number, self._archived))
        self._archived = []
        self._shown.committed(self._state, self._archive)
        self._shown.lag(self._lag())
        for outcome in pending.outcomes:
            self._shown.outcome(outcome, self._folds.statistics())
            self._on_outcome(outcome)
        return True

    def _lag(self) -> dict[str, int]:
        """By topic, records that wait to be read, as far as the consumer knows the ends."""
        behind = dict.fromkeys(self._next, 0)
        for topic, positions in self._next.items():
            for partition, offset in positions.items():
                ends = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
                behind[topic] += max(0, ends[1] - offset) if ends else 0
        return behind

    def _forget(self, numbers: Sequence[int]) -> None:
        self._needless += numbers
        try:
            self._store.drop(self._incarnation, self._needless)
            self._needless = []
        except JoinStoreAway as error:  # after the next commit, then
            log.debug("segments stay for now", reason=str(error))

    def _hold(self, reason: str) -> None:
        if reason != self.held:
            log.warning("monitoring is held", reason=reason)
        self.held = reason

    def _go_on(self) -> None:
        """What held it does not any more."""
        if self.held:
            self.held = ""
            for clock in self._state.clocks.values():
                clock.went_on()

    def _records(self, pending: _Commit) -> list[Record]:
        own, headers = self._pipeline.topics, pending.headers
        records = []
        for block, drifts, retrains, known in pending.outcomes:
            if not known:
                records.append(Record(own.blocks, block.id.encode(), blocks.to_json(block)))
            for topic, events in ((own.drift, drifts), (own.retrain, retrains)):
                records += [Record(topic, e.id.encode(), loop.to_json(e), headers.get(e.id, ())) for e in events]
        return records

    def _offsets(self, number: int) -> list[TopicPartition]:
        said = f"{self._incarnation}:{number}"
        found = [
            TopicPartition(topic, partition, offset, said)
            for topic, positions in self._next.items()
            for partition, offset in positions.items()
        ]
        return found + self._dealt_with()

    def _dealt_with(self) -> list[TopicPartition]:
        lead = self._pipeline.lead.topic
        return [TopicPartition(lead, p, offset) for p, offset in self._state.seen.ends.items()]

    def _tell(self) -> None:
        """Says up to where predictions have been dealt with."""
        positions = self._dealt_with()
        if positions:
            try:
                self._consumer.commit(offsets=positions, asynchronous=True)
            except KafkaException as error:
                self._broker_error(error.args[0])

    def _look(self, now: float) -> None:
        """A topic that has more partitions by now is read from the last commit on, with all of them."""
        self._looked_at = now
        try:
            counts = self._partition_counts()
        except BrokerUnavailable:
            return
        more = sorted(topic for topic, count in counts.items() if count > self._counts[topic])
        if more:
            log.warning("topics have more partitions, beginning again from the last commit", topics=more)
            self._begin_again()

    def _begin_again(self) -> None:
        """From the last commit; where Kafka or Redis is away, the next poll tries it again."""
        self._again, self._pending, self._labels = True, None, []
        self._consumer.unassign()
        try:
            counts = self._partition_counts()
            if missing := [topic for topic, count in counts.items() if not count]:
                self._hold(f"topics do not exist: {', '.join(missing)}")
                return
            self._outputs.start()
            self._take_up(counts)
        except (JoinStoreAway, BrokerUnavailable, CommitFailed, RegistryAway) as error:
            self._hold(str(error))
            return
        self._again, self.held = False, ""

    def _take_up(self, counts: dict[str, int]) -> None:
        taken = take_up(
            self._pipeline,
            self._base,
            self._consumer,
            self._store,
            self._folder,
            counts,
            self._source_lag.waits,
            self._source_id,
            self._codec,
        )
        self._state, self._archive, self._folds = taken.state, taken.state.archive, taken.folds
        self._incarnation, self._number, self._next = taken.incarnation, taken.number, taken.positions
        self._archived, self._needless, self._counts = [], [], counts
        self._pending = self._commit_of([taken.unpublished]) if taken.unpublished else None
        self._moved = taken.rebuilt  # what was made anew is to be kept
        self._consumer.assign(taken.starts)

    def _partition_counts(self) -> dict[str, int]:
        own = self._pipeline.topics
        topics = [*read_topics(self._pipeline), own.blocks, own.drift, own.retrain]
        return partition_counts(self._admin, topics, embedded=self._embedded)

    def _broker_error(self, error: KafkaError) -> None:
        self._metrics.inc("weir_broker_errors_total", code=error.name())
        log.warning("broker error", code=error.name(), reason=error.str())
