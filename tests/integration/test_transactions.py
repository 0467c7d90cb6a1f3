"""A worker's producer whose place another one of the same id has taken, on a real Kafka."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer, TopicPartition

from loadtest.kafka import KafkaCluster
from streams import Event, Pipeline, Source
from streams.kafka import client_config, transactional_config
from streams.outputs import OutputFailed
from streams.settings import Settings
from streams.transactions import TransactionalOutputs
from tests.streams.records import scored

pytestmark = pytest.mark.integration


class Payment(Event):
    user: str
    amount: float
    ts: int


def test_one_that_was_fenced_says_so_whatever_it_does_next(kafka: KafkaCluster, name: str) -> None:
    payments = Source(name, Payment, key="user", time="ts")
    pipeline = Pipeline(name, score=payments, features=[payments.field("amount")], model="m")
    kafka.create_topics(name, pipeline.topics.predictions)
    base = client_config(Settings(broker=kafka.address), kafka.address, "test", lambda _: None)
    outputs, successor = (
        TransactionalOutputs(pipeline, transactional_config(base, f"{name}-0", 100), 1_000_000) for _ in range(2)
    )
    consumer = Consumer({"bootstrap.servers": kafka.address, "group.id": name})
    rows, values = scored([0, 0], [b"u", b"u"]), [b"{}", b"{}"]
    outputs.start()
    outputs.send(rows, values, None)
    assert outputs.flush(10)
    successor.start()
    with pytest.raises(OutputFailed, match="fenced by a newer instance"):
        outputs.commit([TopicPartition(name, 0, 2)], consumer.consumer_group_metadata())
    with pytest.raises(OutputFailed, match="fenced by a newer instance"):
        outputs.send(rows, values, None)
    successor.send(rows, values, None)
    successor.commit([TopicPartition(name, 0, 2)], consumer.consumer_group_metadata())
    consumer.close()
