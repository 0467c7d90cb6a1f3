"""The loop's topics as people read them: each thing once, what is broken left out, ends that are ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from structlog.testing import capture_logs

from loadtest.kafka import KafkaCluster
from monitors.loop import to_json
from streams import Pipeline
from streams.embedded import start_embedded
from streams.kafka import BrokerUnavailable
from streams.loading import load_pipeline
from streams.loop_reader import LoopReader
from streams.settings import Settings
from tests.streams.loop_records import PIPELINE, block, deployment, drift, retrain, write


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    (tmp_path / "shop.py").write_text(PIPELINE)
    return load_pipeline(str(tmp_path / "shop.py"))


@pytest.fixture
def reader(pipeline: Pipeline, tmp_path: Path) -> Iterator[LoopReader]:
    with start_embedded(tmp_path / "data") as pair, LoopReader(pipeline, Settings(), pair.broker) as made:
        yield made


def test_a_pipeline_that_never_ran_has_said_nothing(reader: LoopReader) -> None:
    assert (reader.drifts(), reader.retrains(), reader.deployments(), reader.alerts()) == ([], [], [], [])
    assert (reader.blocks(), reader.newest_block()) == ([], None)
    assert reader.lag("shop-worker", ["payments"]) == {"payments": None}


def test_what_was_written_twice_is_read_once_in_the_order_of_the_first_time(reader: LoopReader) -> None:
    write(reader.broker, "shop.drift", [drift("d1"), drift("d2"), drift("d1")])
    write(reader.broker, "shop.retrain", [retrain("r2", 5), retrain("r1"), retrain("r2", 5)])
    write(reader.broker, "shop.blocks", [block(2), block(1), block(2)])
    assert [found.id for found in reader.drifts()] == ["d1", "d2"]
    assert [found.id for found in reader.retrains()] == ["r2", "r1"]
    assert [found.number for found in reader.blocks()] == [1, 2]
    assert reader.drifts()[0] == drift("d1")


def test_a_record_that_cannot_be_read_is_left_out_and_said(reader: LoopReader) -> None:
    write(reader.broker, "shop.drift", [b"not json", drift("d1"), b'{"id": 7}', b"\xff"])
    write(reader.broker, "shop.deployments", [b"{}", deployment("a", "1")])
    write(reader.broker, "shop.alerts", [b"{", b"[1]", b'{"kind": "rejected"}'])
    with capture_logs() as logs:
        assert [found.id for found in reader.drifts()] == ["d1"]
        assert [found.deployment.id for found in reader.deployments()] == ["a"]
        assert reader.alerts() == [{"kind": "rejected"}]
    assert len(logs) == 5
    assert all(line["log_level"] == "warning" for line in logs)


def test_the_newest_block_is_found_without_reading_them_all(
    reader: LoopReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(reader.broker, "shop.blocks", [block(number) for number in range(100)])
    monkeypatch.setattr(LoopReader, "blocks", lambda _: pytest.fail("all were read"))
    assert reader.newest_block() == block(99)
    assert [found.value for found in reader.records("shop.blocks", newest=2)] != []
    assert len(reader.records("shop.blocks", newest=2)) == 2


def test_deployments_are_those_of_the_model_and_one_that_is_told_again_keeps_its_age(reader: LoopReader) -> None:
    write(reader.broker, "shop.deployments", [deployment("x", "9")], key="another")
    write(reader.broker, "shop.deployments", [deployment("a", "1"), deployment("b", "2"), deployment("a", "1")])
    first, second, _ = (r.time_ms for r in reader.records("shop.deployments") if r.key == b"fraud")
    assert [(found.deployment.id, found.time_ms) for found in reader.deployments()] == [("b", second), ("a", first)]


def test_an_alert_with_an_id_is_read_once_and_others_each_time(reader: LoopReader) -> None:
    with_id, without = b'{"kind": "promoted", "id": "a"}', b'{"kind": "store_away"}'
    write(reader.broker, "shop.alerts", [with_id, without, with_id, without])
    assert [alert["kind"] for alert in reader.alerts()] == ["promoted", "store_away", "store_away"]


def test_lag_is_what_a_group_has_yet_to_read(reader: LoopReader) -> None:
    producer = Producer({"bootstrap.servers": reader.broker})
    for partition, count in ((0, 5), (1, 3)):
        for _ in range(count):
            producer.produce("payments", b"x", partition=partition)
    assert producer.flush(10) == 0
    consumer = Consumer({"bootstrap.servers": reader.broker, "group.id": "shop-worker", "enable.auto.commit": False})
    consumer.commit(offsets=[TopicPartition("payments", 0, 4)], asynchronous=False)
    consumer.close()
    # of partition 1 nothing is committed: all of it is to be read
    assert reader.lag("shop-worker", ["payments", "chargebacks"]) == {"payments": 4, "chargebacks": None}


def test_a_broker_that_is_away_is_said(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.kafka.REQUEST_S", 1.0)
    with (
        LoopReader(pipeline, Settings(broker="127.0.0.1:1"), "127.0.0.1:1") as made,
        pytest.raises(BrokerUnavailable, match="no Kafka broker answers"),
    ):
        made.drifts()


@pytest.mark.integration
def test_on_kafka_what_was_not_committed_is_not_there_and_markers_are_no_records(
    tmp_path: Path, kafka: KafkaCluster
) -> None:
    (tmp_path / "own.py").write_text(PIPELINE.replace('"shop"', '"loop-reader"'))
    pipeline, broker = load_pipeline(str(tmp_path / "own.py")), kafka.address
    kafka.create_topics(pipeline.topics.drift, pipeline.topics.blocks, partitions=1)
    producer = Producer({"bootstrap.servers": broker, "transactional.id": "test-loop-reader"})
    producer.init_transactions(30)
    for id, commits in (("d1", True), ("d2", False), ("d3", True)):
        producer.begin_transaction()
        producer.produce(pipeline.topics.drift, to_json(drift(id)), id)
        producer.flush(10)
        (producer.commit_transaction if commits else producer.abort_transaction)(30)
    with LoopReader(pipeline, Settings(broker=broker), broker) as reader:
        assert [found.id for found in reader.drifts()] == ["d1", "d3"]
        assert reader.drifts()[1:] == reader.drifts()[-1:]  # it can be read again
        assert (reader.retrains(), reader.newest_block()) == ([], None)  # no such topic; an empty one
        assert pipeline.topics.retrain not in AdminClient({"bootstrap.servers": broker}).list_topics(timeout=10).topics
        # A transaction that is open hides what it wrote, and holds nobody up.
        producer.begin_transaction()
        producer.produce(pipeline.topics.drift, to_json(drift("d4")), "d4")
        producer.flush(10)
        assert [found.id for found in reader.drifts()] == ["d1", "d3"]
        producer.abort_transaction(30)
