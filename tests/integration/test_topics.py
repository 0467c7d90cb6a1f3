"""Topics on a real Kafka: the user's are waited for, Weir's own are made as they must be."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource

from loadtest.kafka import KafkaCluster
from tests.integration.models import champion, model
from tests.integration.tape import payments
from tests.integration.worker import Servers, Worker, ran_out

pytestmark = [pytest.mark.integration, pytest.mark.timeout(100)]


def test_a_worker_waits_for_a_topic_and_does_not_create_it_by_asking(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    tape = payments(tmp_path, name, 1)
    admin = AdminClient({"bootstrap.servers": kafka.address})
    with Worker(tape.path, real) as worker:
        worker.wait_for(lambda: f"do not exist yet: {name}" in str(worker.get("/health/ready")), 30)
        assert name not in admin.list_topics(timeout=10).topics
        kafka.create_topics(*tape.topics, partitions=3, retention_ms="-1")
        worker.ready()
        assert worker.stop() == 0
        worker.assert_calm()


def test_a_process_without_a_broker_says_at_once_where_it_looks_for_one(tmp_path: Path, name: str) -> None:
    tape = payments(tmp_path, name, 1)
    nobody = {"WEIR_BROKER": "127.0.0.1:9", "WEIR_REDIS": "redis://127.0.0.1:9"}
    servers = Servers("127.0.0.1:9", "redis://127.0.0.1:9", tmp_path, nobody)
    for role in ("worker", "monitor"):
        with Worker(tape.path, servers, role=role) as process:
            process.wait_for(lambda process=process: process.get("/health/ready")[0] == 503, 60)  # type: ignore[misc]
            process.wait_for(
                lambda process=process: "waiting for Kafka at 127.0.0.1:9" in str(process.get("/health/ready")),  # type: ignore[misc]
                2,
            )


@pytest.mark.parametrize("deployed_before", [False, True])
def test_outputs_are_like_the_sources_and_deployments_one_compacted_partition(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str, deployed_before: bool
) -> None:
    tape = payments(tmp_path, name, 1)
    kafka.create_topics(*tape.topics, partitions=3, retention_ms="-1")
    if deployed_before:
        champion(tape, real, model(tape, tmp_path, "1"))
    with ran_out(tape.path, real):
        pass
    admin = AdminClient({"bootstrap.servers": kafka.address})
    made = admin.list_topics(timeout=10).topics
    topics = tape.pipeline.topics
    wanted = dict.fromkeys(vars(topics).values(), 1) | {topics.predictions: 3, topics.dead_letters: 3}
    assert {topic: len(made[topic].partitions) for topic in wanted} == wanted
    asked = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in (topics.deployments, topics.blocks)]
    for found in admin.describe_configs(asked).values():
        assert found.result()["cleanup.policy"].value == "compact"
