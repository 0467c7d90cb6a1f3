"""Events that hop through a remote group keep the guarantees of the rest: none is lost or scored twice, every value is
that of the order in which the group got them.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined, unused-ignore]

from loadtest.kafka import KafkaCluster
from tests.faults.system import wait
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
"""Of each stage: five seconds. Its fault comes after the first."""
WITHIN_S = 120.0


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
        scoring, owner, other = (
            Worker(path, servers, **options),
            group_worker(path, servers, **options),
            group_worker(path, servers, **options),
        )
        with scoring, owner, other, tended(scoring, owner, other):
            for stage in range(STAGES):
                wait(lambda: all(w.works() for w in (scoring, owner, other)), WITHIN_S, lambda: "a worker is not ready")
                some = events[stage * EVENTS : (stage + 1) * EVENTS]
                load = threading.Thread(target=send, args=(kafka.address, f"{name}.payments", some, PER_S))
                load.start()
                time.sleep(1.0)
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
                    wait(partial(owns_all, other), WITHIN_S, lambda: "nobody took over")
                    os.kill(owner.pid, signal.SIGCONT)  # what it has in hand is not the other's
                else:
                    for worker in (scoring, other):
                        worker.kill()
                load.join()
            found = predictions(kafka.address, name, len(events))
        by_place = defaultdict(list)
        for output in found:
            by_place[output.source].append(output)
        assert len(found) == len(events)
        assert_features(servers, path, events, by_place, once=True)


@contextmanager
def tended(*workers: Worker) -> Iterator[None]:
    """Who has ended is started again: a worker that Kafka has fenced ends, and relies on it."""
    halt = threading.Event()

    def tend() -> None:
        while not halt.wait(0.2):
            for worker in workers:
                if not worker.running:
                    worker.start()

    thread = threading.Thread(target=tend)
    thread.start()
    try:
        yield
    finally:
        halt.set()
        thread.join()


def owns_all(worker: Worker) -> bool:
    return len(worker.status().get("partitions", ())) == PARTITIONS


def leader(kafka: KafkaCluster, topic: str) -> int:
    """The node that leads the topic's first partition."""
    found = AdminClient({"bootstrap.servers": kafka.address}).list_topics(topic, timeout=20).topics[topic]
    return int(found.partitions[0].leader)
