"""A monitor on real servers that dies, over and over: its blocks, events and archive are those of one that does not."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions

from loadtest.kafka import KafkaCluster
from monitors import block
from monitors.metrics import Metrics
from monitors.watch import Watch
from streams import Blocks, Event, Labels, Pipeline, Retrain, Source
from streams.errors import UsageError, WeirError
from streams.kafka import create_topics
from streams.loop_outputs import CommitFailed
from streams.monitor import Monitor, monitor_group
from streams.read_topic import read_topic
from streams.settings import load_settings
from tests.redis_server import RedisServer

PARTITIONS = 2
STEP_MS = 1000
BLOCK_MS = 60_000
N = 1500
START = 1_735_689_600_000


class Order(Event):
    order: str
    user: str
    amount: float
    ts: int


class Outcome(Event):
    order: str
    bad: int
    ts: int


def shop(name: str, every: str = "1m") -> Pipeline:
    orders = Source(f"{name}.orders", Order, key="user", id="order", time="ts")
    watch = Watch(
        "feature.amount", detector="psi", window=2, reference_blocks=4, reference="sliding", step=1, confirm=1,
        threshold=0.5, times=1, min_events=10, cooldown=50,
    )  # fmt: skip
    return Pipeline(
        name,
        score=orders,
        features=[orders.field("amount")],
        model=name,
        labels=Labels(f"{name}.outcomes", Outcome, id="order", value="bad", time="ts", within="10m"),
        blocks=Blocks(every=every),
        drift=[watch],
        retrain=Retrain(on=["feature.amount"], min_labels=100, cooldown=None, budget=100),
    )


def tape(name: str) -> list[tuple[str, int, bytes]]:
    """(topic, partition, value): predictions with a score, and labels up to five minutes after; some never come."""
    draw = random.Random(3)
    found: list[tuple[int, int, tuple[str, int, bytes]]] = []
    for i in range(N):
        partition, at = i % PARTITIONS, START + i * STEP_MS
        amount = draw.lognormvariate(3, 1) * (4 if i > N // 2 else 1)
        prediction = {
            "id": f"o{i}", "key": "u", "time": at,
            "source": {"topic": f"{name}.orders", "partition": partition, "offset": i // PARTITIONS},
            "model": name, "version": "1", "arm": "champion", "deployment": "d", "score": round(draw.random(), 3),
            "shadows": {"2": round(draw.random(), 3)}, "features": {"amount": round(amount, 2)},
        }  # fmt: skip
        found.append((at, i, (f"{name}.predictions", partition, msgspec.json.encode(prediction))))
        if draw.random() < 0.9:
            known = at + draw.randrange(1000, 300_000)
            label = {"order": f"o{i}", "bad": int(draw.random() < 0.3), "ts": known}
            found.append((known, i, (f"{name}.outcomes", partition, msgspec.json.encode(label))))
    return [record for _, _, record in sorted(found, key=lambda one: one[:2])]


class Rig:
    def __init__(self, kafka: KafkaCluster, redis: RedisServer, folder: Path) -> None:
        self.name = f"m{uuid.uuid4().hex[:8]}"
        self.pipeline = shop(self.name)
        self.kafka, self.redis, self.folder = kafka, redis, folder
        self.settings = load_settings(broker=kafka.address, redis=redis.url, data_dir=folder)
        kafka.create_topics(f"{self.name}.orders", f"{self.name}.outcomes", partitions=PARTITIONS, retention_ms="-1")
        self.admin = AdminClient({"bootstrap.servers": kafka.address})
        create_topics(self.admin, self.pipeline, PARTITIONS, 1)
        self.monitor: Monitor
        self._producer = Producer({"bootstrap.servers": kafka.address, "enable.idempotence": True})

    def start(self) -> Monitor:
        folder = self.folder / "archive"
        self.monitor = Monitor(
            self.pipeline, self.settings, self.kafka.address, self.redis.url, folder, metrics=Metrics(), persist_s=0.1
        )
        deadline = time.monotonic() + 30
        while not self.monitor.connect():
            assert time.monotonic() < deadline
        return self.monitor

    def empty_redis(self) -> None:
        with self.redis.admin() as admin:
            admin.flushall()

    def commits(self) -> None:
        """Reads until something of what came has been committed: a kill before that would prove nothing."""
        before = self.monitor._number
        self.until(lambda: self.monitor._number > before)

    def send(self, records: list[tuple[str, int, bytes]]) -> None:
        for topic, partition, value in records:
            self._producer.produce(topic, value, b"u", partition)
        assert self._producer.flush(20) == 0

    def read_on(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.monitor.poll(0.05)

    def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not done():
            assert time.monotonic() < deadline, f"it did not come about; held: {self.monitor.held!r}"
            self.monitor.poll(0.05)

    def vanish(self) -> None:
        """As kill -9 would leave it: nothing is written, nothing committed, and the next one fences it."""
        self.monitor._consumer.close()

    def finish(self) -> None:
        count = sum(topic.endswith("predictions") for topic, _, _ in tape("x"))
        self.until(lambda: sum(self.monitor._state.seen.ends.values()) == count)
        self.read_on(0.5)
        self.monitor.close(finished=True)

    def published(self) -> dict[str, list[Any]]:
        """What is on the loop's topics, without the positions, which depend on how reads were cut."""
        base = {"bootstrap.servers": self.kafka.address, "log_level": 0}
        own = self.pipeline.topics
        found = {
            topic: [m.value() for m in read_topic(base, topic, 1)] for topic in (own.blocks, own.drift, own.retrain)
        }
        blocks = [msgspec.structs.replace(block.from_json(value), positions={}) for value in found[own.blocks]]
        plain = [block.to_json(one).replace(self.name.encode(), b"NAME") for one in blocks]
        events = [[self._bare(value) for value in found[topic]] for topic in (own.drift, own.retrain)]
        return {"blocks": plain, "drifts": events[0], "retrains": events[1]}

    def archived(self) -> list[tuple[Any, ...]]:
        frame = pl.read_parquet(self.folder / "archive" / "*.parquet")
        return sorted(frame.select("id", "time", "label", "label_time", "score", "feature.amount").rows())

    def _bare(self, value: bytes) -> dict[str, Any]:
        """An event without its ids, which hold the pipeline's name."""
        found: dict[str, Any] = msgspec.json.decode(value)
        return {k: v for k, v in found.items() if k not in ("id", "pipeline", "drifts", "spec_hash")}


@pytest.fixture(scope="module")
def calm(kafka: KafkaCluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[Any]]:
    """What an undisturbed monitor publishes and archives."""
    folder = tmp_path_factory.mktemp("calm")
    with RedisServer("redis", folder) as redis:
        rig = Rig(kafka, redis, folder)
        rig.start()
        rig.send(tape(rig.name))
        rig.finish()
        return rig.published(), rig.archived()


@pytest.fixture
def rig(kafka: KafkaCluster, tmp_path: Path) -> Iterator[Rig]:
    with RedisServer("redis", tmp_path) as redis:
        yield Rig(kafka, redis, tmp_path)


def in_parts(records: list[Any], parts: int) -> list[list[Any]]:
    size = -(-len(records) // parts)
    return [records[start : start + size] for start in range(0, len(records), size)]


def test_the_calm_one_says_what_it_should(calm: tuple[dict[str, Any], list[Any]]) -> None:
    published, archived = calm
    blocks = [block.from_json(value) for value in published["blocks"]]
    assert sum(one.predictions for one in blocks) == N
    assert sum(one.late for one in blocks) == 0
    assert sum(one.labels.n + one.labels.missing for one in blocks) == N
    assert len(published["drifts"]) == 1
    assert [event["reason"] for event in published["retrains"]] == ["drift"]
    assert len(archived) == N


@pytest.mark.parametrize("accident", ["killed", "wiped", "emptied", "forgotten", "uncommitted", "redis away"])
def test_a_disturbed_one_says_the_same(rig: Rig, calm: tuple[dict[str, Any], list[Any]], accident: str) -> None:
    rig.start()
    for part in in_parts(tape(rig.name), 4):
        if accident == "redis away":
            rig.redis.pause()
        rig.send(part)
        if accident != "redis away":
            rig.commits()
        rig.read_on(0.3)
        if accident == "uncommitted":
            outputs: Any = rig.monitor._outputs

            def fail(*_: Any) -> None:
                raise CommitFailed("the process dies between the store and Kafka")

            outputs.commit = fail
            rig.monitor._begin_again = lambda: None  # type: ignore[method-assign]
            rig.monitor.flush()
        if accident == "redis away":
            rig.until(lambda: bool(rig.monitor.held))
            rig.redis.resume()
            continue
        if accident == "emptied":  # under the monitor, which goes on
            rig.empty_redis()
            rig.read_on(0.4)
        if accident == "forgotten":  # the group's offsets, which Kafka keeps for a week
            rig.vanish()
            (deleted,) = rig.admin.delete_consumer_groups([monitor_group(rig.pipeline)]).values()
            deleted.result(10)
            rig.start()
            continue
        rig.vanish()
        if accident == "wiped":
            rig.empty_redis()
        rig.start()
    rig.finish()
    assert rig.published() == calm[0]
    assert rig.archived() == calm[1]


def test_a_second_monitor_fences_the_first(rig: Rig) -> None:
    first = rig.start()
    rig.send(tape(rig.name)[:200])
    rig.read_on(0.5)
    rig.start()
    rig.send(tape(rig.name)[200:400])

    def go_on() -> None:
        for _ in range(100):
            first.poll(0.05)

    with pytest.raises(WeirError, match="second monitor"):
        go_on()
    rig.read_on(0.5)


def test_labels_of_a_partition_that_comes_later_are_read(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.monitor.LOOK_S", 0.2)
    rig.start()
    found = tape(rig.name)[:200]
    predictions = [record for record in found if record[0].endswith("predictions")]
    rig.send(predictions)
    rig.read_on(0.5)
    (grown,) = rig.admin.create_partitions([NewPartitions(f"{rig.name}.outcomes", PARTITIONS + 1)]).values()
    grown.result(10)
    rig.send([(topic, PARTITIONS, value) for topic, _, value in found if topic.endswith("outcomes")])
    rig.until(lambda: rig.monitor.counts.matched == len(found) - len(predictions))
    rig.monitor.close()


def test_blocks_of_another_length_are_refused(rig: Rig) -> None:
    rig.start()
    rig.send(tape(rig.name)[:400])
    rig.until(lambda: rig.monitor.last_block is not None)
    rig.monitor.close()
    rig.pipeline = shop(rig.name, every="2m")
    with pytest.raises(UsageError, match="blocks of 60 s; their length cannot be changed"):
        rig.start()
