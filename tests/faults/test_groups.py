"""Events that hop through a remote group keep the guarantees of the rest: none is lost or scored twice, every value is
that of the order in which the group got them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import defaultdict
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined, unused-ignore]

from loadtest.kafka import KafkaCluster
from tests.integration.tape import PARTITIONS
from tests.integration.test_remote import (
    FREQUENT,
    assert_features,
    declared,
    group_worker,
    payments_of,
    predictions,
    send,
)
from tests.integration.worker import Servers, Worker
from tests.redis_server import RedisServer

pytestmark = pytest.mark.integration

STAGES = 4
EVENTS, PER_S = 500, 100
"""Of each stage: five seconds, so that what happens happens under load."""


def test_events_hop_once_though_a_broker_dies_redis_is_emptied_and_an_owner_comes_back_from_the_dead(
    redis_server: RedisServer, tmp_path: Path, name: str
) -> None:
    with KafkaCluster(tmp_path / "kafka", brokers=3) as kafka:
        (tmp_path / "data").mkdir()
        settings = {"WEIR_BROKER": kafka.address, "WEIR_REDIS": redis_server.url, "WEIR_REPLICATION": "3"}
        servers = Servers(kafka.address, redis_server.url, tmp_path / "data", settings)
        path = declared(tmp_path, name, "exact=True")
        kafka.create_topics(f"{name}.payments", partitions=PARTITIONS, retention_ms="-1")
        events, options = payments_of(STAGES * EVENTS, name), {**FREQUENT, "WEIR_GUARANTEE": "exactly_once"}
        with (
            Worker(path, servers, **options) as scoring,
            group_worker(path, servers, **options) as owner,
            group_worker(path, servers, **options) as other,
        ):
            for worker in (scoring, owner, other):
                worker.ready()
            for stage in range(STAGES):
                some = events[stage * EVENTS : (stage + 1) * EVENTS]
                load = threading.Thread(target=send, args=(kafka.address, f"{name}.payments", some, PER_S))
                load.start()
                if stage == 0:
                    node = leader(kafka, f"{name}.group.shop")
                    kafka.kill(node)
                    load.join()
                    kafka.start(node)
                elif stage == 1:
                    redis_server.kill()
                    redis_server.start()
                elif stage == 2:
                    os.kill(owner.pid, signal.SIGSTOP)
                    other.wait_for(lambda: len(other.status().get("partitions", ())) == PARTITIONS, 60)
                    os.kill(owner.pid, signal.SIGCONT)  # what it has in hand is not the other's
                else:
                    for worker in (scoring, other):
                        worker.kill()
                        worker.start().ready()
                load.join()
            found = predictions(kafka.address, name, len(events))
        by_place = defaultdict(list)
        for output in found:
            by_place[output.source].append(output)
        assert len(found) == len(events)
        assert_features(servers, path, events, by_place, once=True)


def leader(kafka: KafkaCluster, topic: str) -> int:
    """The node that leads the topic's first partition."""
    found = AdminClient({"bootstrap.servers": kafka.address}).list_topics(topic, timeout=20).topics[topic]
    return int(found.partitions[0].leader)
