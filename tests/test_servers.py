"""The real servers that tests run against behave as tests rely on."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from loadtest.kafka import KafkaCluster
from tests.redis_cluster import Cluster
from tests.redis_server import RedisServer

pytestmark = pytest.mark.integration


def produce(cluster: KafkaCluster, topic: str, timestamp: int = 0) -> int | None:
    """The offset at which a record of `topic` was stored in partition 0; `timestamp` 0 means now."""
    offsets: list[int | None] = []
    producer = Producer({"bootstrap.servers": cluster.address, "acks": "all"})
    producer.produce(
        topic, b"v", partition=0, timestamp=timestamp, on_delivery=lambda _, m: offsets.append(m.offset())
    )
    assert producer.flush(30) == 0
    return offsets[0]


def test_a_broker_stores_a_record_of_years_ago_and_keeps_it(kafka: KafkaCluster) -> None:
    topic = f"old-{uuid4().hex}"
    kafka.create_topics(topic)
    assert produce(kafka, topic, timestamp=1_357_000_000_000) == 0
    consumer = Consumer({"bootstrap.servers": kafka.address, "group.id": topic})
    (found,) = consumer.offsets_for_times([TopicPartition(topic, 0, 1_356_000_000_000)], timeout=10)
    consumer.close()
    assert found.offset == 0


def test_a_commit_on_kafka_keeps_its_metadata(kafka: KafkaCluster) -> None:
    topic = f"metadata-{uuid4().hex}"
    kafka.create_topics(topic)
    consumer = Consumer({"bootstrap.servers": kafka.address, "group.id": topic})
    consumer.commit(offsets=[TopicPartition(topic, 0, 5, "wm=123")], asynchronous=False)
    (committed,) = consumer.committed([TopicPartition(topic, 0)], timeout=10)
    consumer.close()
    assert (committed.offset, committed.metadata) == (5, "wm=123")


def test_a_transaction_commits(kafka: KafkaCluster) -> None:
    topic = f"transaction-{uuid4().hex}"
    kafka.create_topics(topic)
    producer = Producer({"bootstrap.servers": kafka.address, "transactional.id": topic})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"v", partition=0)
    producer.commit_transaction()
    consumer = Consumer({"bootstrap.servers": kafka.address, "group.id": topic})  # read_committed by default
    consumer.assign([TopicPartition(topic, 0, 0)])
    record = consumer.poll(30)
    consumer.close()
    assert record is not None
    assert record.value() == b"v"


@pytest.mark.slow
def test_three_brokers_survive_the_death_of_one_and_it_comes_back(tmp_path: Path) -> None:
    with KafkaCluster(tmp_path, brokers=3) as cluster:
        cluster.create_topics("t", partitions=1)
        assert produce(cluster, "t") == 0
        cluster.kill(1)
        assert produce(cluster, "t") == 1
        cluster.start(1)
        assert produce(cluster, "t") == 2
        cluster.stop(2)
        assert produce(cluster, "t") == 3


def test_a_broker_keeps_its_records_over_a_crash(tmp_path: Path) -> None:
    with KafkaCluster(tmp_path) as cluster:
        cluster.create_topics("t", partitions=1)
        assert produce(cluster, "t") == 0
        cluster.kill(1)
        cluster.start(1)
        assert produce(cluster, "t") == 1


def test_a_killed_redis_comes_back_empty_at_its_address(redis_server: RedisServer) -> None:
    with redis_server.admin() as admin:
        admin.set("key", "value")
    redis_server.kill()
    started = time.monotonic()
    redis_server.start()
    with redis_server.admin() as admin:
        assert admin.get("key") is None
    assert time.monotonic() - started < 30


def test_the_nodes_of_a_cluster_have_ports_of_their_own(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, primaries=40)  # of drawn and released ones, some would be equal in one of ten
    with contextlib.closing(contextlib.ExitStack()) as held:
        held.callback(cluster.__exit__)
        ports = [port for node in cluster.nodes for port in (node.port, node.bus_port)]
        assert len(set(ports)) == len(ports)
        for port in ports:
            with pytest.raises(OSError, match="in use"):
                socket.create_server(("127.0.0.1", port))


def test_a_cluster_that_does_not_come_up_leaves_no_process(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, primaries=2)
    second = cluster.nodes[1]
    second._let_go()
    with socket.create_server(("127.0.0.1", second.port)), pytest.raises(RuntimeError, match="in use"), cluster:
        pass
    assert all(node._process is None for node in cluster.nodes)
