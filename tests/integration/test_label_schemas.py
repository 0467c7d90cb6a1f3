"""Labels in Avro: a monitor waits for a registry that is away, and passes no label over."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from loadtest.kafka import KafkaCluster
from monitors.metrics import Metrics
from streams import Labels, Pipeline, Source
from streams.errors import UsageError
from streams.kafka import create_topics
from streams.monitor import Monitor
from streams.settings import load_settings
from tests.integration.test_monitor_recovery import Order, Outcome
from tests.redis_server import RedisServer
from tests.schema_registry import SchemaRegistryServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

NOW = 1_760_000_000_000
N = 40
FIELDS = [
    {"name": "order", "type": "string"},
    {"name": "bad", "type": "int"},
    {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
]
WIDER = [{"name": "by", "type": ["null", "string"], "default": None}, *FIELDS[::-1]]
WRONG = [{**field, "type": "string"} if field["name"] == "bad" else field for field in FIELDS]


def shop(name: str) -> Pipeline:
    orders = Source(f"{name}.orders", Order, key="user", id="order", time="ts")
    labels = Labels(f"{name}.outcomes", Outcome, id="order", value="bad", time="ts", within="10m", codec="avro")
    return Pipeline(name, score=orders, features=[orders.field("amount")], model=name, labels=labels)


def prediction(name: str, i: int) -> bytes:
    return json.dumps(
        {
            "id": f"o{i}", "key": "u", "time": NOW + i, "model": name, "version": "1", "arm": "champion",
            "source": {"topic": f"{name}.orders", "partition": 0, "offset": i}, "deployment": "d", "score": 0.5,
            "features": {"amount": 1.0},
        }
    ).encode()  # fmt: skip


def outcomes(url: str, fields: list[dict[str, Any]], places: range) -> list[bytes]:
    """Every third order is bad. As Confluent's serializer writes them."""
    context = SerializationContext("outcomes", MessageField.VALUE)
    kind = str if fields is WRONG else int
    records = [{"order": f"o{i}", "bad": kind(i % 3 == 0), "ts": NOW + 1000 + i, "by": "x"} for i in places]
    with SchemaRegistryClient({"url": url}) as client:
        write = AvroSerializer(client, json.dumps({"type": "record", "name": "Outcome", "fields": fields}))
        return [write(record, context) for record in records]


def test_a_registry_that_is_away_holds_the_labels_and_a_schema_that_does_not_fit_costs_its_own_alone(
    kafka: KafkaCluster, redis_server: RedisServer, tmp_path: Path
) -> None:
    name = f"l{uuid.uuid4().hex[:8]}"
    pipeline = shop(name)
    kafka.create_topics(f"{name}.orders", f"{name}.outcomes", partitions=1, retention_ms="-1")
    create_topics(AdminClient({"bootstrap.servers": kafka.address}), pipeline, 1, 1)
    producer = Producer({"bootstrap.servers": kafka.address, "log_level": 0})

    def send(topic: str, values: list[bytes]) -> None:
        for value in values:
            producer.produce(f"{name}.{topic}", value, b"u")
        assert producer.flush(20) == 0

    with SchemaRegistryServer() as registry:
        settings = load_settings(
            broker=kafka.address, redis=redis_server.url, data_dir=tmp_path, schema_registry=registry.url
        )
        first = outcomes(registry.url, FIELDS, range(N // 2))
        rest = [
            *outcomes(registry.url, WIDER, range(N // 2, N - 1)),
            *outcomes(registry.url, WRONG, range(N - 1, N)),
            b"\0\0\0\1\1no schema has this number",
        ]
        registry.stop()
        send("predictions", [prediction(name, i) for i in range(N)])
        send("outcomes", first)
        for _ in range(2):  # the second one begins where the first one stood: nothing was passed over
            monitor = monitor_of(pipeline, settings, kafka, redis_server, tmp_path)
            until(monitor, lambda m: "schema registry does not answer" in m.held)
            assert monitor.counts.matched == 0
            monitor.close()
        registry.start()
        send("outcomes", rest)
        monitor = monitor_of(pipeline, settings, kafka, redis_server, tmp_path)
        until(monitor, lambda m: m.counts.matched == N - 1 and not m.held)
        monitor.close(finished=True)
        assert monitor._metrics.value("weir_monitor_labels_total", result="invalid") == 2
    rows = pl.read_parquet(tmp_path / "archive" / "*.parquet").sort("time")
    assert rows["label"].to_list() == [float(i % 3 == 0) for i in range(N - 1)] + [None]


def monitor_of(pipeline: Pipeline, settings: Any, kafka: KafkaCluster, redis: RedisServer, folder: Path) -> Monitor:
    monitor = Monitor(
        pipeline, settings, kafka.address, redis.url, folder / "archive", metrics=Metrics(), persist_s=0.1
    )
    deadline = time.monotonic() + 30
    while not monitor.connect():
        assert time.monotonic() < deadline
    return monitor


def until(monitor: Monitor, done: Callable[[Monitor], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done(monitor):
        assert time.monotonic() < deadline, f"it did not come about; held: {monitor.held!r}"
        monitor.poll(0.05)


def test_avro_labels_without_a_registry_are_wrong_use(
    kafka: KafkaCluster, redis_server: RedisServer, tmp_path: Path
) -> None:
    settings = load_settings(broker=kafka.address, redis=redis_server.url, data_dir=tmp_path)
    with pytest.raises(UsageError, match="labels shop.outcomes is codec='avro': set WEIR_SCHEMA_REGISTRY"):
        monitor_of(shop("shop"), settings, kafka, redis_server, tmp_path)
