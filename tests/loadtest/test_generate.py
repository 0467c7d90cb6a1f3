"""The generator writes what its shape says to a broker, at its times, within its bounds."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest
from confluent_kafka import Consumer, TopicPartition

from examples.payments.generate import Payments
from loadtest import generate, latency_sender
from loadtest.kafka import KafkaCluster
from loadtest.live import ends
from loadtest.shapes import Load
from streams.errors import UsageError


def read_all(address: str, topic: str) -> list[tuple[int, bytes]]:
    """(timestamp, value) of all records of a topic with one partition."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "reader", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[tuple[int, bytes]] = []
    while len(found) < ends(address, topic)[0]:
        found += [(m.timestamp()[1], m.value() or b"") for m in consumer.consume(1000, 1.0)]
    consumer.close()
    return found


@pytest.mark.integration
def test_a_shaped_load_comes_at_its_times_and_with_its_contents(
    kafka: KafkaCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    kafka.create_topics("generated", partitions=1)
    arguments = ["--broker", kafka.address, "--topic", "generated", "--rate", "300", "--seconds", "2", "--json"]
    assert generate.main([*arguments, "--shape", "spike+poison", "--start-ms", "1000000", "--users", "50"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["sent"], report["failed"], report["shape"]) == (780, 0, "spike+poison")
    found = read_all(kafka.address, "generated")
    stamps = np.array([stamp for stamp, _ in found])
    np.testing.assert_array_equal(
        stamps, 1_000_000 + np.floor(Load.parse("spike").due_s(300, 2) * 1000).astype(np.int64)
    )
    good = [value for _, value in found if value.endswith(b"}") and b'"a lot"' not in value and b'"user"' not in value]
    payments = [p for p in map(msgspec.json.decode, good) if p["ts"] < 2_000_000]
    assert len(payments) == 780 - report["spoilt"]
    assert {p["user_id"] for p in payments} <= {f"u{i:05d}" for i in range(50)}


def test_more_than_may_be_sent_is_refused_before_anything_is() -> None:
    for rate, seconds, most, said in (
        (1000, 60, 50_000, "60,000 records are more than --records 50,000"),
        (1000, 40, 50_000, "52,000 records are more than --records 50,000"),  # with the spike
        (1000, 1e9, 50_000, "--seconds are above 0, the latter at most 86400"),
        (0, 10, 50_000, "--rate and --seconds are above 0"),
    ):
        with pytest.raises(UsageError, match=said):
            generate.run("127.0.0.1:1", "none", rate, seconds, Load.parse("spike"), Payments(), most)


def test_a_shape_that_there_is_not_and_a_broker_that_is_away_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency_sender, "CONNECT_S", 0.5)
    arguments = ["--broker", "127.0.0.1:1", "--topic", "t", "--rate", "10", "--seconds", "1"]
    assert generate.main([*arguments, "--shape", "spikes"]) == 2
    assert "did you mean 'spike'" in capsys.readouterr().err
    assert generate.main(arguments) == 1
    assert capsys.readouterr().err.startswith("no Kafka answers at 127.0.0.1:1: ")
