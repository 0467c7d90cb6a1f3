"""Events of before a remote group began, sent to its topic: `weir features fill`.

What a group keeps is made of the events on its topic, and they go there from when workers run that know the group. This
sends those of before: from as far back as the group's windows reach to where the workers of the sources have committed,
in the order of event time. They count in the group and are scored nowhere.

How far it has come is committed, under a consumer group of its own, in the transactions that send: what is sent is sent
once, and a second run goes on where the first one ended. So most is done while the workers of before still run, and the
rest when they have been stopped.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import stamina
import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined, unused-ignore]

from features.codec import entity_keys
from features.layout import Layout
from monitors.metrics import Metrics
from streams.batches import RecordBatch, batch_of, by_place
from streams.by_time import ByTime, Events
from streams.decode import decoder_of
from streams.errors import UsageError, WeirError
from streams.hop import beginning, framed, is_past, with_origin
from streams.kafka import (
    MAX_OUTPUT_BYTES,
    REQUEST_S,
    BrokerUnavailable,
    Config,
    client_config,
    co_partitions,
    consumer_config,
    create_topics,
    is_fatal,
    is_passing,
    partition_counts,
    transactional_config,
    worker_group,
)
from streams.lane import Position
from streams.offsets import Offsets
from streams.parts import Part, part_of
from streams.pipeline import Pipeline
from streams.recovery import rebuild_at, rebuild_from, within_log
from streams.schemas.awaited import AwaitedSchemas
from streams.settings import Settings
from streams.topic_ids import TopicIds
from streams.transactions import TransactionalOutputs, Void

log = structlog.get_logger(__name__)

TRANSACTION_RECORDS, TRANSACTION_S = 20_000, 2.0
"""A transaction ends with so many records, or after so long."""

_TRANSACTION_BYTES = 32 * 1024 * 1024
_MOST_WAITING_BYTES = 128 * 1024 * 1024
"""Of events that wait for those of other partitions; a partition that is further ahead rests."""

_POLL = 5_000
_SILENT_S = 60.0
_TAIL = 100
"""Offsets at the end of a partition that are looked through for its last record, and ten times as many if there is none
among them: ends of transactions are none, nor is what was aborted.
"""


@dataclass
class Filled:
    """What was done. sent: events; unnamed: those that name no entity; unusable: those that are dead letters.

    reached: by partition, up to where the source has been sent. left: how much more the workers have committed since.
    members: workers in the sources' consumer group in the end; one that was stopped may be among them for its session.
    """

    topic: str
    sent: int = 0
    unnamed: int = 0
    unusable: int = 0
    reached: dict[int, int] = field(default_factory=dict)
    left: int = 0
    members: int = 0
    seconds: float = 0.0


async def fill(pipeline: Pipeline, group: str, settings: Settings, say: Callable[[int, int], None]) -> Filled:
    """Fills the topic of a group, by its name. say: told how many records have been read, of how many.

    Raises WeirError; what was committed by then stays, and the next run goes on from there.
    """
    part = part_of(pipeline, group)
    if settings.embedded_broker:
        raise UsageError("the embedded broker keeps no log that a group could be filled from; set WEIR_BROKER")
    began = time.monotonic()
    config = client_config(settings, settings.broker, f"weir-{pipeline.name}-fill-{os.getpid()}", _on_error)
    try:
        filled = await _Filling(pipeline, part, settings, config).run(say)
    except KafkaException as error:
        raise WeirError(f"Kafka: {error.args[0].str()}; run it again, it goes on from where it was") from error
    except Void as void:
        raise WeirError(f"the transaction is void: {void}; run it again, it goes on from where it was") from void
    filled.seconds = round(time.monotonic() - began, 3)
    return filled


class _Filling:
    """One run for one group."""

    def __init__(self, pipeline: Pipeline, part: Part, settings: Settings, config: Config) -> None:
        assert part.group is not None
        self._pipeline, self._part, self._settings, self._config = pipeline, part, settings, config
        self._entity = part.group.entity
        self._source, self._topic = pipeline.lead.topic, part.pipeline.lead.topic
        self._name = f"{self._topic}-fill"
        self._reach_ms = max(kind.reach_ms for kind in Layout(part.pipeline.spec).kinds)
        self._schemas = AwaitedSchemas.of(part_of(pipeline, None).pipeline, settings, Metrics())
        self._decoder = decoder_of(pipeline.lead, 0, pipeline.spec, self._schemas.codecs[0])
        self._admin = AdminClient(config)
        self._filled = Filled(self._topic)

    async def run(self, say: Callable[[int, int], None]) -> Filled:
        partitions = range(self._prepared())
        ids = TopicIds(self._admin, [self._source])
        ids.changed()
        workers = worker_group(self._pipeline)
        config = transactional_config(self._config, self._name, int(TRANSACTION_S * 1000))
        outputs = TransactionalOutputs(self._pipeline, config, MAX_OUTPUT_BYTES)
        outputs.start()  # ends what a run before has left open
        offsets = Offsets(consumer_config(self._settings, self._config, workers), [self._source], ids)
        consumer = Consumer(consumer_config(self._settings, self._config, self._name))
        try:
            begun = await self._begun(consumer, partitions)
            committed = {p: await _committed(offsets, p) for p in partitions}
            if begun:
                starts = self._gone_on(consumer, committed)
            else:
                starts = {p: await self._start(offsets, p, committed[p]) for p in partitions}
            ends = {p: found.next_offset for p, found in committed.items()}
            await self._send(consumer, outputs, starts, ends, say)
            await self._begun(consumer, partitions)
            now = {p: (await _committed(offsets, p)).next_offset for p in partitions}
        finally:
            consumer.close()
            await offsets.close()
        self._filled.left = sum(max(0, now[p] - reached) for p, reached in self._filled.reached.items())
        self._filled.members = self._members(workers)
        return self._filled

    def _prepared(self) -> int:
        """How many partitions there are; the group's topic is there afterwards."""
        counts = partition_counts(self._admin, [source.topic for source in self._pipeline.sources])
        partitions = co_partitions(self._pipeline, counts)
        if partitions is None:
            missing = ", ".join(topic for topic, count in counts.items() if not count)
            raise UsageError(f"nothing to fill the group from: there is no topic {missing}")
        create_topics(self._admin, self._pipeline, partitions, self._settings.replication)
        return partitions

    async def _begun(self, consumer: Consumer, partitions: Iterable[int]) -> bool:
        """Whether past events have been sent before. Raises UsageError where workers have sent some events."""
        bounds = await self._settled(consumer, partitions)
        ends = [self._last_of(consumer, partition, *bounds[partition]) for partition in partitions]
        if any(last is not None and not is_past(last) for last in ends):
            raise UsageError(
                f"workers have sent events to {self._topic} already: what was before them would come after them. A "
                f"group is filled before workers run that know it. {self._anew}"
            )
        begun = any(last is not None for last in ends)
        workers = worker_group(self._part.pipeline)
        if not begun and any(offset > 0 for offset in self._committed_of(workers, partitions)):
            raise UsageError(f"what {self._topic} held is in the group already, and gone from it. {self._anew}")
        return begun

    async def _settled(self, consumer: Consumer, partitions: Iterable[int]) -> list[tuple[int, int]]:
        """The bounds of the group's topic, by partition, once no transaction is open on it: what one holds is seen when
        it ends. A worker that has just gone may leave one.
        """
        deadline = time.monotonic() + _SILENT_S
        config = consumer_config(self._settings, self._config, self._name)
        everything = Consumer({**config, "isolation.level": "read_uncommitted"})
        try:
            while True:
                there = [await edges(everything, self._topic, p) for p in partitions]
                stable = [await edges(consumer, self._topic, p) for p in partitions]
                if all(end <= committed for (_, end), (_, committed) in zip(there, stable, strict=True)):
                    return stable
                if time.monotonic() > deadline:
                    raise BrokerUnavailable(f"a transaction is open on {self._topic}: stop what sends to it")
                await asyncio.sleep(0.1)
        finally:
            everything.close()

    @property
    def _anew(self) -> str:
        return (
            f"To begin it anew, stop all workers of {self._pipeline.name}, delete that topic, fill it, and start them"
        )

    def _committed_of(self, group: str, partitions: Iterable[int]) -> list[int]:
        """The offsets of the group's topic that a consumer group has committed; below 0 where none is."""
        consumer = Consumer(consumer_config(self._settings, self._config, group))
        try:
            asked = [TopicPartition(self._topic, p) for p in partitions]
            return [place.offset for place in consumer.committed(asked, timeout=REQUEST_S)]
        finally:
            consumer.close()

    def _last_of(self, consumer: Consumer, partition: int, low: int, high: int) -> bytes | None:
        """The last record of a partition of the group's topic; None if there is none."""
        deadline, tail, last = time.monotonic() + _SILENT_S, 0, None
        while last is None and tail < high - low:
            tail = 10 * tail or _TAIL
            consumer.assign([TopicPartition(self._topic, partition, max(low, high - tail))])
            ended = False
            while not ended:
                for message in consumer.consume(_POLL, 0.2):
                    if (error := message.error()) is None:
                        last = message.value()
                    else:
                        ended = ended or error.code() == KafkaError._PARTITION_EOF
                if time.monotonic() > deadline:
                    raise BrokerUnavailable(f"{self._topic} could not be read to its end in {_SILENT_S:.0f} s")
        consumer.unassign()
        return last

    async def _start(self, offsets: Offsets, partition: int, committed: Position) -> int:
        """From where on events may count in the group, as a state that is rebuilt reads them."""
        low, _ = await offsets.bounds(partition)
        times = rebuild_from([committed], self._reach_ms, [self._pipeline.lead.max_skew_ms])
        since = None if times is None else await offsets.since(partition, times)
        return rebuild_at([committed], low, since)[0]

    def _gone_on(self, consumer: Consumer, committed: Mapping[int, Position]) -> dict[int, int]:
        """Where the run before ended, by partition. Raises UsageError where that is not known any more."""
        found = consumer.committed([TopicPartition(self._source, p) for p in committed], timeout=REQUEST_S)
        if error := next((place.error for place in found if place.error is not None), None):
            raise KafkaException(error)
        if any(place.offset < 0 for place in found):
            raise UsageError(f"how far {self._topic} was filled is not known any more. {self._anew}")
        return {place.partition: min(place.offset, committed[place.partition].next_offset) for place in found}

    async def _send(
        self,
        consumer: Consumer,
        outputs: TransactionalOutputs,
        starts: Mapping[int, int],
        ends: Mapping[int, int],
        say: Callable[[int, int], None],
    ) -> None:
        order, wanted = ByTime(starts), sum(ends.values()) - sum(starts.values())
        for partition in starts:
            if starts[partition] >= ends[partition]:
                order.end(partition, starts[partition])
        consumer.assign([TopicPartition(self._source, p, starts[p]) for p in order.open])
        resting: set[int] = set()
        since, sent, sent_bytes = time.monotonic(), 0, 0
        heard = since
        while True:
            await asyncio.sleep(0)  # nothing else lets an interrupt in
            if order.open:
                if await self._read(consumer, order, ends):
                    heard = time.monotonic()
                elif time.monotonic() - heard > _SILENT_S:
                    raise BrokerUnavailable(f"{self._source} has brought nothing for {_SILENT_S:.0f} s; run it again")
                resting = _rest(consumer, self._source, order, resting)
            if (events := order.take(TRANSACTION_RECORDS - sent, _TRANSACTION_BYTES - sent_bytes)) is not None:
                outputs.forward(self._topic, *self._framed(events))
                sent += len(events)
                sent_bytes += sum(map(len, events.origin.values))
            full = sent >= TRANSACTION_RECORDS or sent_bytes >= _TRANSACTION_BYTES
            if order.done or full or (sent and time.monotonic() - since > TRANSACTION_S):
                reached = order.reached
                places = [TopicPartition(self._source, p, offset) for p, offset in reached.items()]
                outputs.commit(places, consumer.consumer_group_metadata())
                self._filled.sent += sent
                self._filled.reached = reached
                since, sent, sent_bytes = time.monotonic(), 0, 0
                say(sum(reached.values()) - sum(starts.values()), wanted)
                if order.done:
                    return

    async def _read(self, consumer: Consumer, order: ByTime, ends: Mapping[int, int]) -> bool:
        """Takes in what comes next; False if nothing came."""
        messages = consumer.consume(_POLL, 0.2)
        events = [message for message in messages if message.error() is None]
        for (_, partition), mine in by_place(events, {self._source: 0}).items():
            if partition not in order.open:
                continue
            before = [message for message in mine if (message.offset() or 0) < ends[partition]]
            if before:
                batch = batch_of(0, partition, before, 0, 0)
                await self._schemas.ready([batch])
                order.add(partition, self._events(batch), batch.next_offset)
            if len(before) < len(mine) or batch.next_offset >= ends[partition]:
                order.end(partition, ends[partition])
                consumer.pause([TopicPartition(self._source, partition)])
        for message in messages:  # after the events, which came before
            if (error := message.error()) is None:
                continue
            if error.code() == KafkaError._PARTITION_EOF:  # before an end there may be nothing but ends of transactions
                ended = message.partition() or 0
                if ended in order.open and (message.offset() or 0) >= ends[ended]:
                    order.end(ended, ends[ended])
            elif is_fatal(error):
                raise KafkaException(error)
        return bool(messages)

    def _events(self, batch: RecordBatch) -> Events:
        """Those that name an entity."""
        opened, origin, dead = beginning(batch)
        decoded = with_origin(self._decoder.decode(opened), opened, origin, dead)
        texts = entity_keys([decoded.fields[name] for name in self._entity])
        named = np.array([i for i, text in enumerate(texts) if text is not None], dtype=np.int64)
        self._filled.unusable += len(decoded.dead)
        self._filled.unnamed += len(texts) - len(named)
        assert decoded.origin is not None
        return Events(
            [text for text in texts if text is not None],
            [decoded.keys[i] for i in named.tolist()],
            decoded.times[named],
            replace(decoded.origin.at(named), past=np.ones(len(named), dtype=np.bool_)),
        )

    def _framed(self, events: Events) -> tuple[list[bytes], list[bytes]]:
        keys = [text.encode("utf-8", "surrogatepass") for text in events.texts]
        return keys, framed(events.origin, events.keys, None, np.empty((len(events), 0)), ())

    def _members(self, workers: str) -> int:
        found = self._admin.describe_consumer_groups([workers], request_timeout=REQUEST_S)
        return len(found[workers].result().members)


async def _committed(offsets: Offsets, partition: int) -> Position:
    """Where the workers of the sources have committed."""
    found = await offsets.committed(partition)
    return within_log(found, *await offsets.bounds(partition))[0]


async def edges(asked: Consumer, topic: str, partition: int) -> tuple[int, int]:
    """The oldest offset of a partition, and the one after its newest. Asked again while brokers do not agree who leads
    it, as in the moment after its topic was made.
    """
    async for attempt in stamina.retry_context(on=_passes, attempts=None, timeout=_SILENT_S, wait_max=1.0):
        with attempt:
            low, high = asked.get_watermark_offsets(TopicPartition(topic, partition), timeout=REQUEST_S)
    return int(low), int(high)


def _passes(error: Exception) -> bool:
    return isinstance(error, KafkaException) and is_passing(error.args[0])


def _rest(consumer: Consumer, topic: str, order: ByTime, resting: set[int]) -> set[int]:
    """Lets the partitions rest that are far ahead of others; returns those that do."""
    ahead = order.ahead(_MOST_WAITING_BYTES // max(1, len(order.open)))
    if stopped := ahead - resting:
        consumer.pause([TopicPartition(topic, p) for p in stopped])
    if going := (resting - ahead) & order.open:
        consumer.resume([TopicPartition(topic, p) for p in going])
    return ahead


def _on_error(error: KafkaError) -> None:
    log.debug("kafka client", error=error.str())
