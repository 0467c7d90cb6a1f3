"""A worker's transactions on a real Kafka: fenced, and voided by a rebalance."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import Consumer, TopicPartition

from loadtest.kafka import KafkaCluster
from streams import Event, Pipeline, Source
from streams.kafka import client_config, transactional_config
from streams.outputs import OutputFailed
from streams.settings import Settings
from streams.transactions import TransactionalOutputs, Void
from tests.streams.records import scored

pytestmark = pytest.mark.integration

PARTITIONS = 2


class Payment(Event):
    user: str
    amount: float
    ts: int


class Side:
    """Outputs of one pipeline; each of `outputs` has the same transactional id."""

    def __init__(self, kafka: KafkaCluster, name: str) -> None:
        payments = Source(name, Payment, key="user", time="ts")
        self.pipeline = Pipeline(name, score=payments, features=[payments.field("amount")], model="m")
        self.name, self.address = name, kafka.address
        kafka.create_topics(name, self.pipeline.topics.predictions, partitions=PARTITIONS)
        self._base = client_config(Settings(broker=kafka.address), kafka.address, "test", lambda _: None)

    def outputs(self) -> TransactionalOutputs:
        config = transactional_config(self._base, f"{self.name}-0", 100)
        return TransactionalOutputs(self.pipeline, config, 1_000_000)

    def member(self) -> Consumer:
        settings = {"bootstrap.servers": self.address, "group.id": self.name, "auto.offset.reset": "earliest"}
        consumer = Consumer(settings)
        consumer.subscribe([self.name])
        return consumer

    def commit(self, outputs: TransactionalOutputs, next_offset: int) -> None:
        """As who is no member of the group commits."""
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": self.name})
        try:
            outputs.commit([TopicPartition(self.name, 0, next_offset)], consumer.consumer_group_metadata())
        finally:
            consumer.close()

    def committed(self) -> list[bytes | None]:
        settings = {"bootstrap.servers": self.address, "group.id": "reader", "enable.partition.eof": True}
        consumer = Consumer(settings)
        consumer.assign([TopicPartition(self.pipeline.topics.predictions, 0, 0)])
        found: list[bytes | None] = []
        while (message := consumer.poll(10)) is not None and message.error() is None:
            found.append(message.value())
        consumer.close()
        return found


@pytest.fixture
def side(kafka: KafkaCluster, name: str) -> Side:
    return Side(kafka, name)


ROWS = scored([0, 0], [b"u", b"u"])


def test_one_that_was_fenced_says_so_whatever_it_does_next(side: Side) -> None:
    outputs, successor = side.outputs(), side.outputs()
    values = [b"{}", b"{}"]
    outputs.start()
    outputs.send(ROWS, values, None)
    assert outputs.flush(10)
    successor.start()
    with pytest.raises(OutputFailed, match="fenced by a newer instance"):
        side.commit(outputs, 2)
    with pytest.raises(OutputFailed, match="fenced by a newer instance"):
        outputs.send(ROWS, values, None)
    successor.send(ROWS, values, None)
    side.commit(successor, 2)


def test_what_a_rebalance_voids_is_aborted_and_the_same_producer_goes_on(side: Side) -> None:
    outputs, offsets = side.outputs(), [TopicPartition(side.name, 0, 2)]
    outputs.start()
    first = side.member()
    joined(first)
    before = first.consumer_group_metadata()
    second = side.member()
    joined(first, second)
    producer = outputs._producer
    outputs.send(ROWS, [b"void", b"void"], None)
    with pytest.raises(Void):
        outputs.commit(offsets, before)
    outputs.start_over()
    outputs.send(ROWS, [b"a", b"b"], None)
    outputs.commit(offsets, first.consumer_group_metadata())
    assert outputs._producer is producer
    assert outputs.number == 1
    assert side.committed() == [b"a", b"b"]
    for consumer in (first, second):
        consumer.close()


def test_what_is_kept_during_a_commit_belongs_to_the_next_transaction(side: Side) -> None:
    outputs = side.outputs()
    outputs.start()
    outputs.send(ROWS, [b"1", b"2"], None)
    outputs.hold()
    outputs.send(ROWS, [b"3", b"4"], None)
    side.commit(outputs, 2)
    assert side.committed() == [b"1", b"2"]
    outputs.release()
    assert outputs.flush(10)
    assert side.committed() == [b"1", b"2"], "sent, and not committed"
    side.commit(outputs, 2)
    assert side.committed() == [b"1", b"2", b"3", b"4"]


def test_after_a_commit_that_was_void_what_was_kept_is_never_committed(side: Side) -> None:
    # Its rounds are acknowledged: a commit of their offsets, by partitions that leave, say, would lose their outputs.
    outputs = side.outputs()
    outputs.start()
    outputs.send(ROWS, [b"1", b"2"], None)
    side.commit(outputs, 4)
    outputs.hold()
    outputs.send(ROWS, [b"3", b"4"], None)
    outputs.drop(Void("a commit took 4.0 s", outputs.number))
    with pytest.raises(Void, match=r"a commit took 4\.0 s"):
        side.commit(outputs, 4)
    with pytest.raises(Void, match=r"a commit took 4\.0 s"):
        outputs.send(ROWS, [b"5", b"6"], None)
    outputs.start_over()
    outputs.send(ROWS, [b"3", b"4"], None)
    side.commit(outputs, 4)
    assert side.committed() == [b"1", b"2", b"3", b"4"]


def test_after_a_commit_that_ended_the_producer_nothing_takes_its_failure_for_a_void_transaction(side: Side) -> None:
    # To begin again would fence whoever has the id by now.
    outputs = side.outputs()
    outputs.start()
    outputs.hold()
    outputs.send(ROWS, [b"1", b"2"], None)
    outputs.drop(OutputFailed("the producer ended: fenced"))
    for attempt in (
        lambda: outputs.send(ROWS, [b"3", b"4"], None),
        lambda: side.commit(outputs, 4),
        lambda: outputs.then(lambda: None),
    ):
        with pytest.raises(OutputFailed, match="the producer ended: fenced"):
            attempt()
    assert side.committed() == []


def joined(*members: Consumer) -> None:
    """Polls until the partitions of the topic are shared among these members."""
    until = time.monotonic() + 60
    while [len(member.assignment()) for member in members] != [PARTITIONS // len(members)] * len(members):
        assert time.monotonic() < until, "the group has not settled"
        for member in members:
            member.poll(0.1)
