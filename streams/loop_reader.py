"""What the loop has said so far: a pipeline's topics of blocks, drifts, retrain events, deployments and alerts.

Each is read from its beginning to its end, for people; nothing is committed and no group is joined. An end is the one
that Kafka names when the reading begins, so that a busy topic does not hold a report up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from heapq import merge
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import orjson
import structlog
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from models.errors import ModelRefused
from models.rollout import Deployment
from models.rollout import from_json as deployment_from_json
from monitors import block as blocks
from monitors.block import Block
from monitors.errors import RecordRefused
from monitors.loop import Drift, RetrainEvent, drift_from_json, retrain_from_json
from streams.kafka import REQUEST_S, BrokerUnavailable, client_config, is_fatal, partition_counts
from streams.pipeline import Pipeline
from streams.settings import Settings

log = structlog.get_logger(__name__)

READ_S = 30.0
_TAIL = 64  # records, of which a few are the markers of transactions
_T = TypeVar("_T")


class Record(NamedTuple):
    """time_ms: when it was written, by the clock of who wrote it."""

    time_ms: int
    key: bytes | None
    value: bytes
    headers: dict[str, bytes]


class Deployed(NamedTuple):
    """time_ms: when it was published."""

    time_ms: int
    deployment: Deployment


class LoopReader:
    """Reads the loop's topics of one pipeline; a topic that does not exist is empty.

    broker: host:port,… What cannot be read in a topic is left out and said in the log. Methods block, and raise
    BrokerUnavailable. To be closed, or used in a `with`.
    """

    def __init__(self, pipeline: Pipeline, settings: Settings, broker: str) -> None:
        self._pipeline, self._embedded = pipeline, settings.embedded_broker
        self.broker = broker
        self._down = ""
        self._base = client_config(settings, broker, f"weir-{pipeline.name}-reader", self._on_error)
        self._admin = AdminClient(self._base)
        self._consumer = Consumer(
            {
                **self._base,
                "group.id": f"{pipeline.name}-reader",  # never joined, nothing is committed
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 20,
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._consumer.close()

    def counts(self, topics: Sequence[str]) -> dict[str, int]:
        """Partitions of each topic, 0 where it does not exist."""
        return partition_counts(self._admin, topics, embedded=self._embedded)

    def drifts(self) -> list[Drift]:
        """Each once, in the order in which they were published."""
        return _once(self._parsed(self._pipeline.topics.drift, drift_from_json))

    def retrains(self) -> list[RetrainEvent]:
        """Each once, in the order in which they were published."""
        return _once(self._parsed(self._pipeline.topics.retrain, retrain_from_json))

    def blocks(self) -> list[Block]:
        """In the order of their numbers, each once."""
        found = {block.number: block for block in self._parsed(self._pipeline.topics.blocks, blocks.from_json)}
        return [found[number] for number in sorted(found)]

    def newest_block(self) -> Block | None:
        """The last block that was closed."""
        tail = self._parsed(self._pipeline.topics.blocks, blocks.from_json, newest=_TAIL) or self.blocks()
        return max(tail, key=lambda block: block.number, default=None)

    def deployments(self) -> list[Deployed]:
        """Of the pipeline's model, as far back as compaction has left them; the last one is in force."""
        key = self._pipeline.model.encode()
        found: dict[str, Deployed] = {}
        for record in self.records(self._pipeline.topics.deployments):
            if record.key == key and (read := _read(record, deployment_from_json, "deployment")) is not None:
                found.setdefault(read.id, Deployed(record.time_ms, read))
                found[read.id] = found.pop(read.id)  # told again: it is the newest, and as old as it was
        return list(found.values())

    def alerts(self) -> list[dict[str, Any]]:
        """In the order in which they were told; one that carries an id, once."""
        found: dict[Any, dict[str, Any]] = {}
        for place, record in enumerate(self.records(self._pipeline.topics.alerts)):
            alert = _read(record, orjson.loads, "alert")
            if isinstance(alert, dict):
                found.setdefault((alert.get("kind"), str(alert["id"])) if "id" in alert else place, alert)
        return list(found.values())

    def records(self, topic: str, newest: int | None = None) -> list[Record]:
        """Records of `topic` by their times, those of one partition in their order.

        newest: only about so many of each partition, the last ones.
        """
        partitions = self.counts([topic])[topic]
        ends: dict[int, int] = {}
        starts: list[TopicPartition] = []
        for partition in range(partitions):
            low, high = self._edges(topic, partition)
            first = low if newest is None else max(low, high - newest)
            if first < high:
                ends[partition] = high
                starts.append(TopicPartition(topic, partition, first))
        if not starts:
            return []
        self._consumer.assign(starts)
        try:
            found = self._read_to(topic, ends)
        finally:
            self._consumer.unassign()
        if partitions == 1:
            return found[0]
        return list(merge(*found.values(), key=lambda record: record.time_ms))

    def lag(self, group: str, topics: Iterable[str]) -> dict[str, int | None]:
        """By topic, how many records `group` has yet to read; None where it has committed nothing or there is none.

        On topics that are written in transactions, markers count as records: one or two a partition may stay.
        """
        asked = Consumer({**self._base, "group.id": group, "enable.auto.commit": False})
        try:
            return {topic: self._lag_of(asked, topic) for topic in topics}
        except KafkaException as error:
            raise self._unavailable(error) from None
        finally:
            asked.close()

    def _lag_of(self, asked: Consumer, topic: str) -> int | None:
        places = [TopicPartition(topic, partition) for partition in range(self.counts([topic])[topic])]
        committed = asked.committed(places, timeout=REQUEST_S) if places else []
        if all(place.offset == OFFSET_INVALID for place in committed):
            return None
        behind = 0
        for place in committed:
            low, high = self._edges(topic, place.partition)
            behind += max(0, high - (low if place.offset == OFFSET_INVALID else max(low, place.offset)))
        return behind

    def _edges(self, topic: str, partition: int) -> tuple[int, int]:
        try:
            found = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=REQUEST_S)
        except KafkaException as error:
            raise self._unavailable(error) from None
        if found is None:
            raise BrokerUnavailable(f"no Kafka broker answers in {REQUEST_S:.0f} s; is WEIR_BROKER right?")
        return found

    def _read_to(self, topic: str, ends: dict[int, int]) -> dict[int, list[Record]]:
        found: dict[int, list[Record]] = {partition: [] for partition in ends}
        deadline = time.monotonic() + READ_S
        while ends:
            if time.monotonic() > deadline:
                why = f": {self._down}" if self._down else ""
                raise BrokerUnavailable(f"{topic} could not be read to its end in {READ_S:.0f} s{why}")
            messages: list[Any] = self._consumer.consume(1000, 0.2)
            for message in messages:
                partition, offset, error = message.partition(), message.offset(), message.error()
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        ends.pop(partition, None)  # or what is left is a marker, or a transaction that is open
                    elif is_fatal(error):
                        raise BrokerUnavailable(f"{topic} cannot be read: {error.str()}")
                    continue
                if partition in ends and offset < ends[partition]:
                    found[partition].append(_record(message))
                if offset + 1 >= ends.get(partition, 0):
                    ends.pop(partition, None)
        return found

    def _parsed(self, topic: str, parse: Callable[[bytes], _T], newest: int | None = None) -> list[_T]:
        read = (_read(record, parse, topic) for record in self.records(topic, newest))
        return [found for found in read if found is not None]

    def _on_error(self, error: KafkaError) -> None:
        self._down = error.str()

    def _unavailable(self, error: KafkaException) -> BrokerUnavailable:
        return BrokerUnavailable(f"no Kafka broker answers: {self._down or error.args[0].str()}")


def _record(message: Any) -> Record:
    headers = {name: value for name, value in message.headers() or () if value is not None}
    return Record(message.timestamp()[1], message.key(), message.value() or b"", headers)


def _read(record: Record, parse: Callable[[bytes], _T], what: str) -> _T | None:
    try:
        return parse(record.value)
    except (RecordRefused, ModelRefused, orjson.JSONDecodeError) as error:
        log.warning("a record cannot be read and is left out", of=what, reason=str(error))
        return None


_E = TypeVar("_E", Drift, RetrainEvent)


def _once(events: Iterable[_E]) -> list[_E]:
    found: dict[str, _E] = {}
    for event in events:
        found.setdefault(event.id, event)
    return list(found.values())
