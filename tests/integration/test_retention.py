"""Records that Kafka has deleted: before the first reading, and before they were read."""

from __future__ import annotations

from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from loadtest.kafka import KafkaCluster
from tests.faults.feeding import made, pieces
from tests.integration.tape import PARTITIONS, payments
from tests.integration.worker import Servers, Worker

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


def test_what_was_deleted_before_it_was_read_is_counted_and_the_rest_is_scored(
    kafka: KafkaCluster, real: Servers, tmp_path: Path, name: str
) -> None:
    tape = payments(tmp_path, name, 900)
    (topic,) = tape.topics
    kafka.create_topics(topic, partitions=PARTITIONS, retention_ms="-1")
    first, second, third = pieces(tape, 3)
    admin = AdminClient({"bootstrap.servers": kafka.address, "log_level": 0})

    def delete_all() -> int:
        """Everything that is there; returns how many records have ever been written."""
        everything = [TopicPartition(topic, p, -1) for p in range(PARTITIONS)]
        return sum(deleted.result().low_watermark for deleted in admin.delete_records(everything).values())

    tape.send(real.broker, *first)
    before = delete_all()
    assert before == 300
    tape.send(real.broker, *second)
    with Worker(tape.path, real) as worker:
        worker.wait_for(lambda: made(worker) == 300, 60)
        assert worker.metric("weir_expired_records_total") == 0, "a group that has read nothing has missed nothing"
        assert worker.stop() == 0
    tape.send(real.broker, *third)
    assert delete_all() == 900
    tape.send(real.broker, *first)
    with Worker(tape.path, real) as worker:
        worker.wait_for(lambda: made(worker) == 300, 60)
        assert worker.metric("weir_expired_records_total") == 300
        assert worker.stop() == 0
        worker.assert_calm()
