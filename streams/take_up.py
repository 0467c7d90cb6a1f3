"""Where a monitor begins: state, folds and positions as of the last commit of the one before it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition

from monitors import block as blocks
from monitors import loop
from monitors.archive import Archive
from monitors.errors import RecordRefused
from monitors.join_store import JoinStore
from monitors.loop import RetrainEvent
from streams.errors import UsageError
from streams.kafka import BrokerUnavailable, Config
from streams.loop_folds import LoopFolds, Outcome
from streams.loop_state import LoopState, feature_kinds
from streams.pipeline import Pipeline
from streams.read_topic import read_topic
from streams.rebuild import rebuild
from streams.schemas.codec import Codec

log = structlog.get_logger(__name__)

_ASK_S = 20.0
_RETRY_S = 0.2


def read_topics(pipeline: Pipeline) -> list[str]:
    """What a monitor reads in its group."""
    topics = [pipeline.topics.predictions, pipeline.topics.dead_letters]
    return [*topics, pipeline.labels.topic] if pipeline.labels else topics


@dataclass
class Taken:
    """incarnation, number: of the last commit, and what its state in Redis goes by; 0 = none was made.

    positions: next offsets by topic and partition. starts: where to read, retrain events by hand included.
    unpublished: what the last block brings, where that is not on its topics: there was no transaction, or the
    declaration has changed since.
    rebuilt: the state is not that of Redis.
    """

    state: LoopState
    folds: LoopFolds
    incarnation: str
    number: int = 0
    positions: dict[str, dict[int, int]] = field(default_factory=dict)
    starts: list[TopicPartition] = field(default_factory=list)
    unpublished: Outcome | None = None
    rebuilt: bool = False


def take_up(
    pipeline: Pipeline,
    base: Config,
    consumer: Consumer,
    store: JoinStore,
    folder: Path,
    counts: dict[str, int],
    waits: Callable[[int], bool],
    source_id: Callable[[], str],
    codec: Codec | None,
) -> Taken:
    """counts: partitions of each topic. waits, source_id, codec: see LoopState.

    Raises BrokerUnavailable, JoinStoreAway, RegistryAway, UsageError.
    """
    own, read = pipeline.topics, read_topics(pipeline)
    committed = _committed(consumer, [TopicPartition(topic, p) for topic in read for p in range(counts[topic])])
    archive = Archive(folder, feature_kinds(pipeline))
    clocked = {topic: counts[topic] for topic in read if topic != own.dead_letters}
    state = LoopState(pipeline, archive, clocked, waits, source_id, codec)
    taken = Taken(state, LoopFolds(pipeline), os.urandom(4).hex())
    taken.positions = {topic: {} for topic in read}
    for found in committed:
        if found.offset >= 0:
            taken.positions[found.topic][found.partition] = found.offset
    published = _Published(base, pipeline, counts)
    last = taken.folds.replay(published.blocks, published.retrains, published.drifts)
    if last is not None and not published.holds(last):
        taken.unpublished = last
    if taken.folds.last is not None:
        _check_length(pipeline, taken.folds.last)
    known = [name for found in committed if (name := _commit_name(found)) is not None]
    if known:
        _restore(pipeline, consumer, store, taken, max(known, key=lambda name: name[1]))
    elif taken.folds.last is not None:
        _resume(pipeline, consumer, taken, committed, taken.folds.last)
    taken.starts = [
        TopicPartition(p.topic, p.partition, p.offset if p.offset >= 0 else OFFSET_BEGINNING) for p in committed
    ]
    taken.starts += [TopicPartition(own.retrain, p, end) for p, end in published.ends.items()]
    return taken


def _restore(pipeline: Pipeline, consumer: Consumer, store: JoinStore, taken: Taken, commit: tuple[str, int]) -> None:
    """State as of the commit, from Redis; from the topics, as another incarnation, where Redis does not have it."""
    incarnation, number = commit
    removed = taken.state.archive.discard_after(incarnation, number)
    loaded = store.load(incarnation, number)
    if loaded is not None:
        try:
            taken.state.restore(loaded, taken.folds.last)
        except RecordRefused as error:
            log.error("the join's state in Redis cannot be read", reason=str(error))
        else:
            taken.incarnation, taken.number = incarnation, number
            log.info("taken up", commit=number, segments=len(loaded.segments), files_removed=removed)
            return
    log.error("the join's state is not in Redis, it is made anew from the topics", commit=number)
    rebuild(pipeline, consumer, taken.state, taken.positions, taken.folds.last)
    taken.rebuilt = True


def _resume(
    pipeline: Pipeline, consumer: Consumer, taken: Taken, committed: list[TopicPartition], last: blocks.Block
) -> None:
    """Goes on after the newest block: Kafka has forgotten what the group committed, as after a week without a monitor.

    What the archive holds by now is not archived again.
    """
    log.error("the group's offsets are not in Kafka, reading begins after the newest block", block=last.id)
    positions = blocks.positions_of(last)
    for found in committed:
        offset = positions.get(found.topic, {}).get(found.partition)
        if offset is not None:
            found.offset = taken.positions[found.topic][found.partition] = offset
    archived = taken.state.archive.places(0)
    rebuild(pipeline, consumer, taken.state, taken.positions, last)
    taken.state.archive.pass_over(archived)
    taken.rebuilt = True


def _check_length(pipeline: Pipeline, last: blocks.Block) -> None:
    """Raises UsageError where the blocks so far are of another length: their numbers would mean other times."""
    length = pipeline.blocks.length_ms
    by_time = last.end > last.start and last.number * (last.end - last.start) == last.start
    if (last.end - last.start != length) if by_time else (length is not None):
        said = f"of {(last.end - last.start) // 1000} s" if by_time else "of events"
        raise UsageError(
            f"pipeline {pipeline.name}: {pipeline.topics.blocks} holds blocks {said}; their length cannot be changed. "
            "Declare Blocks(…) as before, or give the pipeline another name"
        )


class _Published:
    """What is on the loop's topics. retrains: the events; ends: of their topic, by partition; drifts: their ids."""

    def __init__(self, base: Config, pipeline: Pipeline, counts: dict[str, int]) -> None:
        own = pipeline.topics
        self.retrains: list[RetrainEvent] = []
        self.ends = dict.fromkeys(range(counts[own.retrain]), 0)
        for message in read_topic(base, own.retrain, counts[own.retrain]):
            self.ends[message.partition()] = message.offset() + 1
            try:
                self.retrains.append(loop.retrain_from_json(message.value() or b""))
            except RecordRefused as error:
                log.warning("not a retrain event", offset=message.offset(), reason=str(error))
        self.drifts = {
            (m.key() or b"").decode(errors="replace") for m in read_topic(base, own.drift, counts[own.drift])
        }
        self.blocks: list[blocks.Block] = []
        """In their order; one that was published twice comes twice."""
        for message in read_topic(base, own.blocks, counts[own.blocks]):
            try:
                self.blocks.append(blocks.from_json(message.value() or b""))
            except RecordRefused as error:
                log.warning("not a block", offset=message.offset(), reason=str(error))
        self.blocks.sort(key=lambda block: block.number)

    def holds(self, outcome: Outcome) -> bool:
        """Whether what a block brought was published with it."""
        known = {event.id for event in self.retrains}
        return {e.id for e in outcome.retrains} <= known and {d.id for d in outcome.drifts} <= self.drifts


def _committed(consumer: Consumer, wanted: list[TopicPartition]) -> list[TopicPartition]:
    """What the group has committed. Raises BrokerUnavailable where its coordinator does not say."""
    deadline = time.monotonic() + _ASK_S
    while True:
        try:
            return list(consumer.committed(wanted, timeout=_ASK_S))
        except KafkaException as exception:  # the coordinator has just changed, or still loads
            error = exception.args[0]
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"the committed offsets are not to be had: {error.str()}") from exception
            time.sleep(_RETRY_S)


def _commit_name(found: TopicPartition) -> tuple[str, int] | None:
    """(incarnation, number) of the commit that a partition's offset is of."""
    incarnation, separator, number = (found.metadata or "").partition(":")
    return (incarnation, int(number)) if separator and found.offset >= 0 and number.isdigit() else None
