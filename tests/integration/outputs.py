"""What came out: the records of an output topic, and how predictions compare with the oracle and each other."""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from streams.batches import RecordBatch
from streams.hop import unframed
from tests.integration.tape import Place, Tape
from tests.oracles.near import SKETCH_ERROR, sketches


@dataclass(frozen=True)
class Output:
    """A record of an output topic."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]

    @property
    def prediction(self) -> dict[str, Any]:
        assert self.value is not None
        found: dict[str, Any] = json.loads(self.value)
        return found

    @property
    def source(self) -> Place:
        """Partition and offset of the record that it is about."""
        if "weir.partition" in self.headers:
            return int(self.headers["weir.partition"]), int(self.headers["weir.offset"])
        source = self.prediction["source"]
        return source["partition"], source["offset"]


@dataclass
class Reader:
    """Reads a topic from its beginning, without a group; `found` grows."""

    broker: str
    topic: str
    found: list[Output] = field(default_factory=list)

    def __enter__(self) -> Self:
        config = {"bootstrap.servers": self.broker, "group.id": "reader", "enable.auto.commit": False}
        config |= {"enable.partition.eof": True, "fetch.wait.max.ms": 50, "isolation.level": "read_committed"}
        self._consumer = Consumer(config)
        partitions = self._consumer.list_topics(self.topic, timeout=10).topics[self.topic].partitions
        assert partitions, f"there is no topic {self.topic}"
        self._consumer.assign([TopicPartition(self.topic, p, OFFSET_BEGINNING) for p in partitions])
        self._reached: dict[int, int] = {}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._consumer.close()

    def until(self, enough: Callable[[Self], bool], within_s: float = 60.0) -> list[Output]:
        """Reads until `enough`; fails when the time is over."""
        deadline = time.monotonic() + within_s
        while not enough(self):
            assert time.monotonic() < deadline, f"{self.topic}: {len(self.places())} records in {within_s:.0f} s"
            self._read(0.1)
        return self.found

    def to_end(self, within_s: float = 20.0) -> list[Output]:
        """Reads what is there now, to the end of every partition."""
        offsets = self._consumer.get_watermark_offsets
        ends = {p.partition: offsets(p, timeout=10)[1] for p in self._consumer.assignment()}
        deadline = time.monotonic() + within_s
        while any(self._reached.get(partition, 0) < end for partition, end in ends.items()):
            assert time.monotonic() < deadline, f"{self.topic} could not be read to its end"
            self._read(0.1)
        return self.found

    def places(self) -> dict[Place, list[Output]]:
        """What was found, by the place of the source record."""
        by_place: dict[Place, list[Output]] = defaultdict(list)
        for output in self.found:
            by_place[output.source].append(output)
        return by_place

    def _read(self, wait_s: float) -> None:
        for message in self._consumer.consume(1000, wait_s):
            error = message.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:  # the end of a transaction is a record, too
                    self._reached[message.partition() or 0] = message.offset() or 0
                elif not (error.retriable() or error.code() < 0):
                    raise KafkaException(error)
                continue
            headers = dict(cast(list[tuple[str, bytes]], message.headers() or []))
            partition, offset = message.partition(), message.offset()
            assert partition is not None
            assert offset is not None
            self.found.append(Output(partition, offset, message.key(), message.value(), headers))


def predictions(broker: str, tape: Tape, within_s: float = 60.0) -> list[Output]:
    """All predictions once each event of the tape has one."""
    with Reader(broker, tape.pipeline.topics.predictions) as reader:
        reader.until(lambda r: len(r.found) >= len(tape) and len(r.places()) >= len(tape), within_s)
        return reader.to_end()


def hops(broker: str, topic: str, carried: tuple[str, ...]) -> dict[int, list[tuple[Place, dict[str, Any]]]]:
    """By partition of a group's topic: the events in it in their order, each with its place in the source."""
    with Reader(broker, topic) as reader:
        reader.to_end(60)
    by_partition: dict[int, list[Output]] = defaultdict(list)
    for output in sorted(reader.found, key=lambda o: (o.partition, o.offset)):
        by_partition[output.partition].append(output)
    found = {}
    for partition, mine in by_partition.items():
        offsets, keys, values = np.array([o.offset for o in mine]), [o.key for o in mine], [o.value for o in mine]
        batch = RecordBatch(0, partition, keys, values, offsets, np.zeros_like(offsets), None, 0, 0)
        events, origin, dead = unframed(batch, carried)
        assert not dead
        places = zip(origin.partitions.tolist(), origin.offsets.tolist(), strict=True)
        found[partition] = [(at, json.loads(value or b"")) for at, value in zip(places, events.values, strict=True)]
    return found


def assert_right(outputs: Sequence[Output], tape: Tape, *, duplicates: int | None = 0) -> None:
    """Every event has its prediction with the oracle's features; copies say the same.

    duplicates: how many predictions may come beside the first of their event; None = any number.
    """
    by_place: dict[Place, list[Output]] = defaultdict(list)
    for output in outputs:
        by_place[output.source].append(output)
    lost = tape.expected.keys() - by_place.keys()
    more = sorted(by_place.keys() - tape.expected.keys())
    said = f"such as {sorted(lost)[:5]}; {len(more)} are of records that were not sent, such as {more[:5]}"
    assert not lost, f"{len(lost)} of {len(tape)} events have no prediction, {said}"
    assert by_place.keys() == tape.expected.keys()
    copies = sum(map(len, by_place.values())) - len(by_place)
    assert duplicates is None or copies <= duplicates, f"{copies} duplicates"
    for place, found in by_place.items():
        first = found[0].prediction
        for copy in found[1:]:
            again = copy.prediction
            assert {**again, "deployment": first["deployment"]} == first, f"duplicates differ at {place}"
    wrong = differing(outputs, tape)
    assert not wrong, f"{len(wrong)} of {len(outputs)} predictions have other features: {wrong[:3]}"


def differing(outputs: Sequence[Output], tape: Tape) -> list[tuple[Place, str, Any, Any]]:
    """(place, feature, found, expected) of each feature that is not the oracle's, as float32; of sketches, that is
    further from it than they promise.
    """
    wrong, rough = [], sketches(tape.pipeline.spec)
    for output in outputs:
        features = output.prediction["features"]
        expected = tape.expected[output.source]
        assert features.keys() == expected.keys()
        for name, value in expected.items():
            if not _same(features[name], value, SKETCH_ERROR if name in rough else 0.0):
                wrong.append((output.source, name, features[name], value))
    return wrong


def _same(found: Any, expected: Any, error: float) -> bool:
    if found is None or expected is None or isinstance(expected, str):
        return bool(found == expected)
    near = abs(found - expected) <= error * abs(expected)
    return (near or np.float32(found) == np.float32(expected)) and math.isfinite(found)

