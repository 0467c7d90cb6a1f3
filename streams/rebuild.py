"""The join's state from the topics, where Redis has lost it: what was read and committed is read again, quietly.

Nothing is published for it, and what the archive holds is not archived again. Records of blocks that are closed count
in no block; the others count as they did the first time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import stamina
import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from monitors.block import Block, positions_of
from streams.errors import WeirError
from streams.loop_state import LoopState
from streams.pipeline import Pipeline
from streams.schemas.registry import RegistryAway

log = structlog.get_logger(__name__)

_ASK_S = 20.0
_STILL_S = 60.0
_BATCH = 4000
_REGISTRY_S, _AGAIN_S = 30.0, 1.0
"""How long the labels' schemas are asked for before all is begun again, and the longest pause between."""


def rebuild(
    pipeline: Pipeline,
    consumer: Consumer,
    state: LoopState,
    until: Mapping[str, Mapping[int, int]],
    last: Block | None,
) -> None:
    """Reads into `state`, which is fresh, what was committed `until` (by topic and partition). last: the newest block.

    Raises WeirError where nothing comes for a minute, RegistryAway where the labels' schemas cannot be had.
    """
    ends = {(topic, p): end for topic in state.clocks for p, end in until.get(topic, {}).items() if end > 0}
    if last is not None:
        state.blocks.resume(last)
    closed_ms = last.end if last is not None else 0
    counted = {(t, p): o for t, found in positions_of(last).items() for p, o in found.items()} if last else {}
    archived = state.archive.places(0)  # how far back records reach is not known before they are read
    starts = [TopicPartition(topic, p, OFFSET_BEGINNING) for topic, p in ends]
    if last is not None:
        # Predictions are written when they are made, labels when they are known: neither before its event time. The
        # embedded broker finds no place by time (its answer is -1), and what it still has is little.
        from_ms = max(0, last.start - state.join.within_ms)
        asked = [TopicPartition(topic, p, from_ms) for topic, p in ends]
        starts = [
            TopicPartition(found.topic, found.partition, found.offset if found.offset >= 0 else OFFSET_BEGINNING)
            for found in consumer.offsets_for_times(asked, timeout=_ASK_S)
        ]
    log.info("reading again", records=sum(ends.values()), partitions=len(starts))
    consumer.assign(starts)
    open_ends = set(ends)
    heard = time.monotonic()
    while open_ends:
        early: dict[str, list[Any]] = {topic: [] for topic in state.clocks}
        late: dict[str, list[Any]] = {topic: [] for topic in state.clocks}
        messages: list[Any] = consumer.consume(_BATCH, 0.5)
        for message in messages:
            heard = time.monotonic()
            at, error = (message.topic(), message.partition()), message.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    open_ends.discard(at)
                continue
            if message.offset() >= ends[at]:
                open_ends.discard(at)
                continue
            (early if message.offset() < counted.get(at, 0) else late)[at[0]].append(message)
        for found, is_late in ((early, False), (late, True)):
            state.counts_from = None if is_late else closed_ms
            for topic, part in found.items():
                if part and topic == pipeline.topics.predictions:
                    state.take_predictions(part)
                elif part:
                    _take_labels(state, part)
                    heard = time.monotonic()
        state.archive.leave_out(archived)  # now and then, so that memory holds what waits alone
        if time.monotonic() - heard > _STILL_S:
            raise WeirError(f"the join's state cannot be made anew: nothing came of {sorted(open_ends)[:3]}")
    state.counts_from = closed_ms
    state.expire()
    state.counts_from = None
    state.leave_out(archived)
    state.rebuilt()
    consumer.unassign()


def _take_labels(state: LoopState, labels: list[Any]) -> None:
    """Again and again while their schemas cannot be had: nothing changes where it raises."""
    for attempt in stamina.retry_context(on=RegistryAway, attempts=None, timeout=_REGISTRY_S, wait_max=_AGAIN_S):
        with attempt:
            state.take_labels(labels)
