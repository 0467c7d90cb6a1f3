"""What a worker counts: an event that is replayed after a crash has been counted already."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.integration.tape import PARTITIONS, Record, Tape, payments
from tests.integration.worker import Servers, Worker, ran_out

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

DAYS_MS = 90 * 24 * 3_600_000


def with_late_and_bad(tape: Tape, late: int, bad: int) -> Tape:
    """The tape, followed by events of months before and by records that are none."""

    def months_before(record: Record) -> Record:
        event = json.loads(record.value or b"")
        return record._replace(value=json.dumps({**event, "ts": event["ts"] - DAYS_MS}).encode())

    old = [months_before(record) for record in tape.records[:late]]
    wrong = [record._replace(value=b"none", usable=False) for record in tape.records[:bad]]
    return Tape(tape.path, [*tape.records, *old, *wrong])


def committed(broker: str, tape: Tape) -> int:
    """The offsets that the workers have committed, summed over the partitions."""
    consumer = Consumer({"bootstrap.servers": broker, "group.id": f"{tape.pipeline.name}-worker"})
    try:
        found = consumer.committed([TopicPartition(tape.topics[0], p) for p in range(PARTITIONS)], timeout=10)
    finally:
        consumer.close()
    return sum(max(0, p.offset) for p in found)


def test_an_event_that_is_replayed_after_a_kill_is_counted_once(
    embedded: Servers, tmp_path: Path, name: str
) -> None:
    tape = with_late_and_bad(payments(tmp_path, name, 600), late=50, bad=7)
    with Worker(tape.path, embedded, WEIR_CHECKPOINT_INTERVAL="600000") as worker:
        worker.ready()
        tape.send(embedded.broker)
        worker.wait_for(lambda: committed(embedded.broker, tape) == 657, 30)
        assert worker.metric("weir_events_total") == 657
        assert worker.metric("weir_replayed_records_total") == 0
        assert worker.metric("weir_late_total") > 0
        worker.kill()
    with ran_out(tape.path, embedded) as worker:
        worker.caught_up()
        assert worker.metric("weir_replayed_records_total") == 650
        assert worker.metric("weir_events_total") == 0
        assert worker.metric("weir_late_total") == 0
