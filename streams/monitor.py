"""The monitor: predictions meet their labels, blocks close, drifts and retrain events follow, examples are archived.

One process a pipeline. It reads all partitions in the group `<pipeline>-monitor`. A commit makes blocks, drifts,
retrain events and the offsets that they came of count together. It has a number, which its metadata carry; what the
join and the open blocks hold as of that number lies in Redis before the commit is made, and so do the archive's files
on disk. A monitor that was killed goes on from there: what was written for a commit that never came is not looked at.

A replay into an embedded broker waits for the monitor: it commits, more often and as offsets of the scored topic, up to
where predictions have been dealt with.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from monitors import block as blocks
from monitors import loop
from monitors.archive import Archive
from monitors.block import Block
from monitors.errors import RecordRefused
from monitors.join import Joined
from monitors.join_store import JoinStore, JoinStoreAway
from monitors.loop import Drift, RetrainEvent
from monitors.metrics import Metrics
from monitors.predictions import Prediction
from streams.kafka import BrokerUnavailable, client_config, consumer_config, partition_counts
from streams.loop_folds import LoopFolds, Outcome
from streams.loop_outputs import CommitFailed, LoopOutputs, Plain, Record, Transactional
from streams.loop_state import LoopState, feature_kinds
from streams.monitor_metrics import MonitorMetrics
from streams.pipeline import Pipeline
from streams.read_topic import read_topic
from streams.rebuild import rebuild
from streams.settings import Settings

log = structlog.get_logger(__name__)

BATCH = 4000
PERSIST_S = 1.0
"""Between commits that find no block closed."""
ARCHIVE_S = 60.0
HOLD_S = 0.2
_EMBEDDED_FETCH_MS = 20
_DAY_MS = 24 * 3_600_000
_FIRST = 0
_ASK_S = 20.0


def monitor_group(pipeline: Pipeline) -> str:
    """The consumer group of a pipeline's monitor."""
    return f"{pipeline.name}-monitor"


def archive_folder(pipeline: Pipeline, settings: Settings) -> Path:
    return settings.data_dir / "archive" / pipeline.name


class _Commit(NamedTuple):
    """What a commit will make count."""

    outcomes: list[Outcome]
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
        self._metrics = metrics
        self._on_predictions, self._on_joined, self._on_outcome = on_predictions, on_joined, on_outcome
        self._embedded = settings.embedded_broker
        self._commit_s, self._persist_s = (commit_ms or settings.commit_interval) / 1000, persist_s
        within_ms = pipeline.labels.within_ms if pipeline.labels else _DAY_MS
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
        self._outputs: LoopOutputs
        if self._embedded:
            self._outputs = Plain(self._base, lambda: self._consumer)
        else:
            self._outputs = Transactional(self._base, f"weir-{pipeline.name}-monitor", lambda: self._consumer)
        self._state: LoopState
        self._folds: LoopFolds
        self._incarnation, self._number = "", _FIRST
        self._next: dict[str, dict[int, int]] = {}
        self._pending: _Commit | None = None
        self._told_at = self._persisted_at = self._archived_at = time.monotonic()
        self._moved = False
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

    @property
    def _read_topics(self) -> list[str]:
        topics = [self._pipeline.topics.predictions, self._pipeline.topics.dead_letters]
        return [*topics, self._pipeline.labels.topic] if self._pipeline.labels else topics

    def connect(self) -> bool:
        """Takes up all partitions from where the group stands; False while a topic does not exist yet.

        Raises JoinStoreAway where Redis does not answer.
        """
        own = self._pipeline.topics
        topics = [*self._read_topics, own.blocks, own.drift, own.retrain]
        counts = partition_counts(self._admin, topics, embedded=self._embedded)
        if not all(counts.values()):
            return False
        self._outputs.start()
        self._take_up(counts)
        self._connected = True
        return True

    def poll(self, timeout_s: float) -> int:
        """Reads what is there, waiting at most `timeout_s` for it. Returns how many records it was."""
        if self._pending is not None and not self._commit():
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
        if labels:
            bad, joined = self._state.take_labels(labels)
            self._shown.labels(bad, joined)
            self._on_joined(joined)
        self._on_joined(self._state.expire())
        self._keep_time()
        return len(predictions) + len(labels)

    def flush(self) -> None:
        """Archives and commits what has been read so far, if Redis and Kafka take it."""
        if self._pending is None and any(self._next.values()):
            self._pending = self._prepare(archive=True)
        if self._pending is not None:
            self._commit()

    def close(self, *, finished: bool = False) -> None:
        """Archives, commits and leaves. finished: no label will come; what waits for one is archived."""
        if self._closed:
            return
        self._closed = True
        if self._connected:
            if self._pending is not None:
                self._commit()
            if finished:
                self._on_joined(self._state.expire(finished=True))
            if self._pending is None and any(self._next.values()):
                closed = self._state.close_blocks(self._next, finished=finished)
                self._pending = self._prepare(archive=True, closed=closed)
                self._commit()
        self._consumer.close()
        self._store.close()

    def _take_predictions(self, messages: list[Any]) -> None:
        taken, joined = self._state.take_predictions(messages)
        self.predictions += len(taken.new)
        self.duplicates += taken.repeated
        self.unscored += taken.unscored
        self._shown.predictions(taken, joined)
        self._on_predictions(taken.new)
        self._on_joined(joined)

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
        due = self._moved and now - self._persisted_at >= self._persist_s
        if closed or due or self._archive.full:
            old = now - self._archived_at >= ARCHIVE_S
            self._pending = self._prepare(archive=old or self._archive.full, closed=closed)
            self._commit()
        elif self._embedded and now - self._told_at >= self._commit_s:
            self._told_at = now
            self._tell()

    def _prepare(self, *, archive: bool, closed: Sequence[Block] = ()) -> _Commit:
        outcomes = [self._folds.update(block) for block in closed]
        return _Commit(outcomes, archive or any(outcome.retrains for outcome in outcomes))

    def _commit(self) -> bool:
        """Makes what is pending count. False where Redis, the disk or Kafka did not take it; it is tried again."""
        pending = self._pending
        assert pending is not None
        number = self._number + 1
        try:
            if pending.archive:
                self._archived += self._archive.flush(self._incarnation, number)
            self._store.write(self._incarnation, number, self._state.snapshot(), self._state.segment())
            self._outputs.commit(self._records(pending.outcomes), self._offsets(number))
        except (JoinStoreAway, OSError) as error:
            self._hold(str(error))
            return False
        except CommitFailed as error:
            log.warning("a commit failed, beginning again from the last one", reason=str(error))
            self._begin_again()
            return False
        self._number, self._pending, self.held = number, None, ""
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
        try:
            self._store.drop(self._incarnation, numbers)
        except JoinStoreAway as error:  # they expire, and whoever loads them sees that they are archived
            log.debug("segments stay for now", reason=str(error))

    def _hold(self, reason: str) -> None:
        if reason != self.held:
            log.warning("monitoring is held", reason=reason)
        self.held = reason

    def _records(self, outcomes: Sequence[Outcome]) -> list[Record]:
        own = self._pipeline.topics
        records = []
        for outcome in outcomes:
            records.append(Record(own.blocks, outcome.block.id.encode(), blocks.to_json(outcome.block)))
            records += [Record(own.drift, drift.id.encode(), loop.to_json(drift)) for drift in outcome.drifts]
            records += [Record(own.retrain, event.id.encode(), loop.to_json(event)) for event in outcome.retrains]
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

    def _begin_again(self) -> None:
        self._pending = None
        self._consumer.unassign()
        self._outputs.start()
        topics = [*self._read_topics, self._pipeline.topics.blocks, self._pipeline.topics.drift]
        self._take_up(partition_counts(self._admin, [*topics, self._pipeline.topics.retrain], embedded=self._embedded))

    def _take_up(self, counts: dict[str, int]) -> None:
        """State, folds and positions as of the last commit."""
        wanted = [TopicPartition(topic, p) for topic in self._read_topics for p in range(counts[topic])]
        committed = self._committed(wanted)
        self._next = {topic: {} for topic in self._read_topics}
        for found in committed:
            if found.offset >= 0:
                self._next[found.topic][found.partition] = found.offset
        self._archive, self._archived = Archive(self._folder, feature_kinds(self._pipeline)), []
        read = {topic: counts[topic] for topic in self._read_topics if topic != self._pipeline.topics.dead_letters}
        self._state = LoopState(self._pipeline, self._archive, read)
        self._folds = LoopFolds(self._pipeline)
        last = self._replay(counts)
        known = [name for found in committed if (name := _commit_name(found)) is not None]
        if known:
            self._incarnation, self._number = max(known, key=lambda name: name[1])
            self._restore()
        else:
            self._incarnation, self._number = os.urandom(4).hex(), _FIRST
        self._pending = (
            _Commit([last], archive=False) if last and self._embedded and self._missing(last, counts) else None
        )
        starts = [
            TopicPartition(p.topic, p.partition, p.offset if p.offset >= 0 else OFFSET_BEGINNING) for p in committed
        ]
        retrain = self._pipeline.topics.retrain
        starts += [TopicPartition(retrain, p, end) for p, end in self._requests.items()]
        self._consumer.assign(starts)
        self._moved = self._number == _FIRST and any(self._next.values())  # it has another incarnation

    def _committed(self, wanted: list[TopicPartition]) -> list[TopicPartition]:
        """What the group has committed. Raises BrokerUnavailable where its coordinator does not say."""
        deadline = time.monotonic() + _ASK_S
        while True:
            try:
                return list(self._consumer.committed(wanted, timeout=_ASK_S))
            except KafkaException as exception:  # the coordinator has just changed, or still loads
                error = exception.args[0]
                if time.monotonic() > deadline:
                    reason = f"the committed offsets are not to be had: {error.str()}"
                    raise BrokerUnavailable(reason) from exception
                time.sleep(HOLD_S)

    def _restore(self) -> None:
        removed = self._archive.discard_after(self._incarnation, self._number)
        loaded = self._store.load(self._incarnation, self._number)
        if loaded is not None:
            self._state.restore(loaded)
            log.info("taken up", commit=self._number, segments=len(loaded.segments), files_removed=removed)
            return
        log.error("the join's state is not in Redis, it is made anew from the topics", commit=self._number)
        rebuild(self._pipeline, self._consumer, self._state, self._next, self._folds.last, embedded=self._embedded)
        self._incarnation, self._number = os.urandom(4).hex(), _FIRST

    def _replay(self, counts: dict[str, int]) -> Outcome | None:
        """The folds as of what is published. Returns what the last block brought."""
        own = self._pipeline.topics
        requests: list[RetrainEvent] = []
        self._requests = dict.fromkeys(range(counts[own.retrain]), 0)
        self._published: set[str] = set()
        for message in read_topic(self._base, own.retrain, counts[own.retrain]):
            self._requests[message.partition()] = message.offset() + 1
            self._published.add((message.key() or b"").decode(errors="replace"))
            try:
                event = loop.retrain_from_json(message.value() or b"")
            except RecordRefused as error:
                log.warning("not a retrain event", offset=message.offset(), reason=str(error))
                continue
            if event.reason == "manual":
                requests.append(event)
        found = []
        for message in read_topic(self._base, own.blocks, counts[own.blocks]):
            try:
                found.append(blocks.from_json(message.value() or b""))
            except RecordRefused as error:
                log.warning("not a block", offset=message.offset(), reason=str(error))
        return self._folds.replay(sorted(found, key=lambda block: block.number), requests)

    def _missing(self, last: Outcome, counts: dict[str, int]) -> bool:
        """Whether a block was published without what it brought: only where there are no transactions."""
        drifts: set[Drift | str] = set()
        if last.drifts:
            drift = self._pipeline.topics.drift
            drifts = {(m.key() or b"").decode() for m in read_topic(self._base, drift, counts[drift])}
        return any(event.id not in self._published for event in last.retrains) or any(
            event.id not in drifts for event in last.drifts
        )

    def _broker_error(self, error: KafkaError) -> None:
        self._metrics.inc("weir_broker_errors_total", code=error.name())
        log.warning("broker error", code=error.name(), reason=error.str())


def _commit_name(found: TopicPartition) -> tuple[str, int] | None:
    """(incarnation, number) of the commit that a partition's offset is of."""
    incarnation, separator, number = (found.metadata or "").partition(":")
    return (incarnation, int(number)) if separator and found.offset >= 0 and number.isdigit() else None
