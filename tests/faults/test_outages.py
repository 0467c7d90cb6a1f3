"""Servers that are not there, at start or under load: waited for, said on /health/ready, and nothing lost."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from loadtest.kafka import KafkaCluster
from tests.faults.feeding import feeding, made, pieces
from tests.integration.outputs import assert_right, predictions
from tests.integration.shop import shop
from tests.integration.tape import PARTITIONS, payments
from tests.integration.worker import Servers, Worker, ran_out
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]


def reasons(worker: Worker) -> str:
    """What /health/ready says while it answers 503."""
    code, answer = worker.get("/health/ready")
    return str(answer["reasons"]) if code == 503 else ""


def test_a_worker_waits_for_a_broker_that_comes_late_and_for_one_that_was_killed(tmp_path: Path, name: str) -> None:
    """With at_least_once; with exactly_once the process ends when a commit hangs, and its supervisor starts it."""
    cluster = KafkaCluster(tmp_path / "kafka")
    tape = shop(tmp_path, name, 1500)
    first, second = pieces(tape, 2)
    store = RedisServer("redis", tmp_path)
    settings = {"WEIR_BROKER": cluster.address, "WEIR_REDIS": store.url, "WEIR_GUARANTEE": "at_least_once"}
    settings |= {"WEIR_COMMIT_INTERVAL": "2000", "WEIR_CHECKPOINT_INTERVAL": "2000"}
    servers = Servers(cluster.address, store.url, tmp_path, settings)
    with store, Worker(tape.path, servers) as worker:
        worker.wait_for(lambda: "broker" in reasons(worker).lower(), 120)
        try:
            cluster.start()
            worker.wait_for(lambda: f"{name}.orders" in reasons(worker), 60)
            cluster.create_topics(*tape.topics, partitions=PARTITIONS, retention_ms="-1")
            worker.ready()
            # Nothing is sent while the broker dies: a producer whose broker is killed may send a record twice, and what
            # the log then holds is not the tape. The worker has offsets to commit all the same.
            tape.send(servers.broker, *first)
            worker.wait_for(lambda: made(worker) >= 200, 60)
            cluster.kill(1)
            worker.wait_for(lambda: "brokers are down" in reasons(worker), 15)
            assert worker.get("/health/live")[0] == 200
            time.sleep(8)  # longer than a session: the worker has to take its partitions for lost
            cluster.start(1)
            tape.send(servers.broker, *second)
            found = predictions(servers.broker, tape, 90)
            worker.caught_up().ready()
            assert worker.stop() == 0
            worker.assert_calm()
            assert_right(found, tape, duplicates=None)
        finally:
            cluster.close()


def test_a_worker_waits_for_a_redis_that_comes_late_and_for_one_that_was_killed_under_load(
    kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    store = RedisServer("redis", tmp_path)
    settings = {"WEIR_BROKER": kafka.address, "WEIR_REDIS": store.url, "WEIR_CACHE_ENTITIES": "50"}
    servers = Servers(kafka.address, store.url, tmp_path, settings)
    tape = payments(tmp_path, name, 6000, users=1000)
    kafka.create_topics(*tape.topics, partitions=PARTITIONS, retention_ms="-1")
    first, second, third = pieces(tape, 3)
    try:
        with Worker(tape.path, servers) as worker:
            tape.send(servers.broker, *first)
            worker.wait_for(lambda: "store" in reasons(worker), 60)
            assert made(worker) == 0
            store.start()
            worker.ready()
            with feeding(tape, servers, second, per_s=500):
                worker.wait_for(lambda: made(worker) >= 2500, 30)
                store.kill()  # and everything in it; most users are not in memory
                worker.wait_for(lambda: "store" in reasons(worker), 20)
                time.sleep(3)
                assert worker.get("/health/live")[0] == 200
                store.start()
            worker.ready()
            tape.send(servers.broker, *third)
            found = predictions(servers.broker, tape)
            worker.caught_up()
            assert worker.stop() == 0
            worker.assert_calm()
        assert_right(found, tape)
    finally:
        store.kill()


def test_a_redis_that_hangs_for_a_while_costs_time_and_nothing_else(
    real: Servers, redis_server: RedisServer, kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    tape = payments(tmp_path, name, 4000, users=1000)
    kafka.create_topics(*tape.topics, partitions=PARTITIONS, retention_ms="-1")
    first, second = pieces(tape, 2)
    with ran_out(tape.path, real, WEIR_CACHE_ENTITIES="50") as worker:
        with feeding(tape, real, first, per_s=800):
            worker.wait_for(lambda: made(worker) >= 500, 30)
            redis_server.pause()
            time.sleep(3)
            redis_server.resume()
        tape.send(real.broker, *second)
        found = predictions(real.broker, tape)
        worker.caught_up()
    assert_right(found, tape)
