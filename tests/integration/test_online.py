"""Online features of a running pipeline: a real Kafka, a worker as users run it, its state in a real Redis Cluster."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from features.readings import Readings
from features.store import StoreUnavailable
from loadtest.kafka import KafkaCluster
from streams.online import BlockingFeatureReader
from tests.integration.tape import PARTITIONS, payments
from tests.integration.worker import Servers, Worker, ran_out
from tests.oracles.features import Event, Oracle
from tests.redis_cluster import Cluster

pytestmark = pytest.mark.integration


def test_a_worker_on_a_cluster_is_read_as_the_oracle_has_it_and_a_wiped_one_as_rebuilding_until_it_is_again(
    kafka: KafkaCluster, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    tape = payments(tmp_path, name, 4000, users=100)
    kafka.create_topics(*tape.topics, partitions=PARTITIONS, retention_ms="-1")
    tape.send(kafka.address)
    events = [json.loads(record.value or b"") for record in tape.records]
    now = max(event["ts"] for event in events) + 90_000
    users = sorted({event["user_id"] for event in events})
    oracle = Oracle(tape.pipeline.spec)
    for offset, event in enumerate(events):
        oracle.see(Event(0, event["ts"], offset, 0, event))
    read = [a.name for a in tape.pipeline.spec.aggregates]
    expected = []
    for user in users:
        found = oracle.see(Event(0, now, len(events), 0, {**events[0], "user_id": user, "ts": now}))
        assert found is not None
        expected.append([found[feature] for feature in read])

    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        data = tmp_path / "data"
        data.mkdir()
        settings = {"WEIR_BROKER": kafka.address, "WEIR_REDIS": cluster.url}
        servers = Servers(kafka.address, cluster.url, data, settings)
        with ran_out(tape.path, servers) as worker:
            worker.caught_up()
            assert worker.metric("weir_events_total") == len(events)
        entities = [{"user_id": user} for user in users]
        with BlockingFeatureReader(str(tape.path), cluster.url, timeout_s=10.0) as reader:
            before = reader.read(entities, at=now)
            assert before.names == tuple(read)
            assert_equal(before.values.tolist(), expected)
            assert states(before) <= {"present", "expired"}
            with cluster.admin() as admin:
                admin.flushall()
            deadline = time.monotonic() + 30
            while states(reader.read(entities, at=now)) != {"rebuilding"}:  # what it knows is trusted for a second
                assert time.monotonic() < deadline
            with Worker(tape.path, servers) as again:
                deadline = time.monotonic() + 120
                while True:
                    with suppress(StoreUnavailable):
                        after = reader.read(entities, at=now)
                        assert "missing" not in states(after)
                        if "rebuilding" not in states(after):
                            break
                    assert time.monotonic() < deadline, again.last_words
                again.assert_calm()
            assert after.values.tobytes() == before.values.tobytes()
            assert served(tape.path, servers, users[:3], now) == [
                {name: reading.value for name, reading in row.items()} for row in before[:3]
            ]


def states(readings: Readings) -> set[str]:
    return {reading.state for row in readings for reading in row.values()}


def assert_equal(found: list[list[float]], expected: list[list[float | None]]) -> None:
    for row, wanted in zip(found, expected, strict=True):
        assert row == pytest.approx([float("nan") if v is None else v for v in wanted], rel=1e-9, nan_ok=True)


def served(pipeline: Path, servers: Servers, users: list[str], now: int) -> list[dict[str, float | None]]:
    """What `weir features serve` answers, as a user starts it."""
    with Worker(pipeline, servers, role="features serve") as server:
        server.wait_for(lambda: server.get("/health/ready")[0] == 200, 60)
        answer = httpx.post(f"{server.url}/features", json={"entities": [{"user_id": u} for u in users], "at": now})
        assert answer.status_code == 200, answer.text
        assert server.metric("weir_feature_entities_total") == len(users)
        assert server.stop() == 0, server.last_words
        server.assert_calm()
    return [result["values"] for result in answer.json()["results"]]
