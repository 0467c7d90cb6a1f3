"""Avro through a Schema Registry, on a real Kafka: an outage, changes of the schema upstream, and rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from loadtest.kafka import KafkaCluster
from tests.integration.outputs import Output, Reader
from tests.integration.worker import Servers, ran_out
from tests.schema_registry import SchemaRegistryServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

NOW = 1_760_000_000_000
DECLARED = """
from streams import Event, Pipeline, Rule, Source


class Payment(Event):
    payment_id: str
    user: str
    amount: float
    ts: int
    note: str | None = None


rules = [Rule("amount", ge=0, on_violation="dead_letter"), Rule("amount", le=100)]
payments = Source("{name}.payments", Payment, key="user", id="payment_id", time="ts", codec="avro", rules=rules)
pipeline = Pipeline(
    "{name}",
    score=payments,
    features=[payments.field("amount"), payments.by("user").count("1h"), payments.by("user").sum("amount", "1h")],
    model="{name}",
    rules=[Rule("user_count_1h", le=4, on_violation="withhold")],
)
"""
FIELDS = [
    {"name": "payment_id", "type": "string"},
    {"name": "user", "type": "string"},
    {"name": "amount", "type": "double"},
    {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
]
SECOND = [{"name": "note", "type": ["null", "string"], "default": None}, *FIELDS[::-1]]
THIRD = [{**field, "type": "string"} if field["name"] == "amount" else field for field in FIELDS]


def written(url: str, fields: list[dict[str, Any]], *amounts: Any, first: int) -> list[bytes]:
    """Payments of one user, a second apart, with the ids p<first>, p<first + 1>, …"""
    schema = {"type": "record", "name": "Payment", "fields": fields}
    context = SerializationContext("payments", MessageField.VALUE)
    records = [
        {"payment_id": f"p{i}", "user": "u", "amount": amount, "ts": NOW + 1000 * i, "note": "n"}
        for i, amount in enumerate(amounts, start=first)
    ]
    with SchemaRegistryClient({"url": url}) as client:
        write = AvroSerializer(client, json.dumps(schema))
        return [write(record, context) for record in records]


def send(broker: str, topic: str, values: list[bytes], *, first: int) -> None:
    producer = Producer({"bootstrap.servers": broker, "log_level": 0})
    for i, value in enumerate(values, start=first):
        producer.produce(topic, value, b"u", partition=0, timestamp=NOW + 1000 * i)
    assert producer.flush(20) == 0


def read(broker: str, topic: str, n: int) -> list[Output]:
    with Reader(broker, topic) as reader:
        return reader.until(lambda r: len(r.found) >= n, 30)


def test_avro_events_are_scored_through_an_outage_of_the_registry_and_changes_of_the_schema(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    path = tmp_path / f"{name}.py"
    path.write_text(DECLARED.format(name=name))
    topic = f"{name}.payments"
    kafka.create_topics(topic, partitions=1)
    with SchemaRegistryServer() as registry:
        before = written(registry.url, FIELDS, 1.0, 2.0, first=0)
        after = written(registry.url, SECOND, 4.0, -1.0, 250.0, first=2)
        wrong = written(registry.url, THIRD, "8.0", first=5)
        last = written(registry.url, FIELDS, 16.0, 32.0, first=6)
        registry.stop()
        with ran_out(path, real, WEIR_SCHEMA_REGISTRY=registry.url) as worker:
            send(kafka.address, topic, before, first=0)
            worker.wait_for(lambda: "schemas" in worker.get("/health/ready")[1]["reasons"], 30)
            assert worker.get("/health/ready")[0] == 503
            assert worker.get("/health/live")[0] == 200
            assert worker.metric("weir_schema_fetches_total") >= 1
            assert worker.metric("weir_dead_letters_total") == 0
            assert worker.metric("weir_events_total") == 0
            worker.wait_for(lambda: worker.status()["lag"] == len(before), 10)  # read, and not worked off
            registry.start()
            send(kafka.address, topic, [*after, *wrong, *last], first=2)
            found = [output.prediction for output in read(kafka.address, f"{name}.predictions", 6)]
            dead = read(kafka.address, f"{name}.dead-letters", 2)
            worker.ready()
            assert worker.metric("weir_contract_violations_total") == 3
    assert [p["id"] for p in found] == ["p0", "p1", "p2", "p4", "p6", "p7"]
    # A record that broke a rule that sends it to the dead letters is no part of any feature; one that was marked is.
    assert [p["features"]["user_count_1h"] for p in found] == [0, 1, 2, 3, 4, 5]
    assert [p["features"]["user_sum_amount_1h"] for p in found] == [0, 1, 3, 7, 257, 273]
    assert [p.get("violations") for p in found] == [None, None, None, ["amount:le"], None, ["user_count_1h:le"]]
    reasons = [(d.headers["weir.stage"], d.headers["weir.field"], d.headers["weir.reason"]) for d in dead]
    assert reasons == [
        (b"contract", b"amount", b"amount must be at least 0, and is -1"),
        (b"decode", b"amount", b"Expected `float`, got `str`"),
    ]
    assert [d.value for d in dead] == [after[1], wrong[0]]
