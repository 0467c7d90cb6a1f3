"""The replay into a real Kafka."""

from __future__ import annotations

import json

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from examples.flights import replay
from examples.flights.data import Flights
from loadtest.kafka import KafkaCluster

pytestmark = pytest.mark.integration


def test_it_creates_its_topics_without_an_end_and_fills_them(
    kafka: KafkaCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--broker", kafka.address, "--months", "1", "--partitions", "3"]
    assert replay.main(arguments) == 0
    last = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert last["state"] == "done"
    assert tuple(last["sent"]) == Flights(1, 1).counts
    admin = AdminClient({"bootstrap.servers": kafka.address})
    consumer = Consumer({"bootstrap.servers": kafka.address, "group.id": "flights-test"})
    for topic, sent in zip(replay.TOPICS, last["sent"], strict=True):
        resource = ConfigResource(ResourceType.TOPIC, topic)
        config = admin.describe_configs([resource])[resource].result(timeout=10)
        assert config["retention.ms"].value == "-1"
        partitions = sorted(admin.list_topics(topic, timeout=10).topics[topic].partitions)
        assert partitions == [0, 1, 2]
        ends = [consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in partitions]
        assert sum(ends) > sent  # watermarks lie among them
        assert all(end >= 2 for end in ends)
    consumer.close()
