"""The loop at work, its processes under supervision: worker, monitor, trainer; and what must be true afterwards."""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import polars as pl
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from loadtest.kafka import KafkaCluster
from monitors import block, loop
from monitors.block import Block
from streams import release
from streams.kafka import partition_counts
from streams.loading import load_pipeline
from streams.loop_folds import LoopFolds
from streams.monitor import archive_folder
from streams.read_topic import read_topic
from tests.faults import loop_pipeline
from tests.faults.fleet import Fleet, Member
from tests.faults.loop_pipeline import BLOCK_MS, PARTITIONS
from tests.faults.system import wait
from tests.faults.table import Row
from tests.integration.models import settings_of
from tests.integration.tape import Record
from tests.integration.worker import Servers
from tests.redis_server import RedisServer

ROLES = ("worker", "monitor", "trainer")
_PER_S = 800


class Ground(Protocol):
    """What it stands on: brokers, and a folder."""

    folder: Path
    kafka: KafkaCluster
    admin: AdminClient


class Looping:
    """The pipeline's processes and its feed. As a context manager: all of them run on entry, and are gone on exit."""

    def __init__(self, grounds: Ground) -> None:
        self.grounds = grounds
        self.name = f"loop-{uuid.uuid4().hex[:6]}"
        self.folder = grounds.folder / self.name
        self.folder.mkdir()
        self.redis = RedisServer("redis", self.folder)
        self.records = loop_pipeline.records()
        self.sent = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.path = path = loop_pipeline.write(self.name, self.folder)
            self.pipeline = load_pipeline(str(path))
            assert self.pipeline.labels is not None
            self.topics = [self.name, self.pipeline.labels.topic]
            self.grounds.kafka.create_topics(
                *self.topics, partitions=PARTITIONS, retention_ms="-1", message_timestamp_type="CreateTime"
            )
            stack.callback(self._drop)
            stack.enter_context(self.redis)
            kafka = self.grounds.kafka.address
            data = self.folder / "data"
            data.mkdir()
            settings = {
                "WEIR_BROKER": kafka,
                "WEIR_REDIS": self.redis.url,
                "WEIR_REPLICATION": str(min(3, len(self.grounds.kafka.nodes))),
                "WEIR_COMMIT_INTERVAL": "250",
                "WEIR_REGISTRY": f"sqlite:///{data}/registry.db",
            }
            self.servers = Servers(kafka, self.redis.url, data, settings)
            self.fleet = Fleet(path, [self.servers] * len(ROLES))
            for member, role in zip(self.fleet.members, ROLES, strict=True):
                member.play(role)
            stack.callback(self.fleet.end)
            self._producer = Producer({"bootstrap.servers": kafka, "enable.idempotence": True, "linger.ms": 20})
            self.fleet.begin()
            wait(self._ready, 120.0, lambda: "the roles are not ready")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def role(self, name: str) -> Member:
        return self.fleet[ROLES.index(name)]

    def kill(self, name: str) -> None:
        self.fleet.kill(ROLES.index(name))

    def send(self, seconds: float) -> bool:
        """Sends for so long, at its pace; False when there is nothing left."""
        until = time.monotonic() + seconds
        while self.sent < len(self.records) and time.monotonic() < until:
            for record in self.records[self.sent : self.sent + _PER_S // 20]:
                self._produce(record)
                self.sent += 1
            self._producer.poll(0.05)
        return self.sent < len(self.records)

    def read(self, topic: str) -> list[Any]:
        """Committed records, in order."""
        base = {"bootstrap.servers": self.grounds.kafka.address, "log_level": 0}
        counts = partition_counts(self.grounds.admin, [topic])
        return read_topic(base, topic, counts[topic]) if counts[topic] else []

    def blocks(self) -> list[Block]:
        return [block.from_json(message.value()) for message in self.read(self.pipeline.topics.blocks)]

    def retrains(self) -> list[loop.RetrainEvent]:
        return [loop.retrain_from_json(message.value()) for message in self.read(self.pipeline.topics.retrain)]

    def training(self) -> str:
        """The retrain event that the trainer is busy with; empty if none."""
        found = self.role("trainer").status()
        return str(found.get("retrain") or "") if found.get("state") in ("training", "judging") else ""

    def ahead(self) -> bool:
        """Whether the feed is so far ahead of the blocks that what is decided would come too late for it."""
        newest = max((found.number for found in self.blocks()), default=loop_pipeline.START_MS // BLOCK_MS - 1)
        sent = self.records[max(0, self.sent - 1)].timestamp // BLOCK_MS
        return sent > newest + 2

    def working_off(self) -> bool:
        """Whether a retrain event has not come to its version yet."""
        events = {event.id for event in self.retrains()}
        return not events <= set(map(self._retrain_of, self._versions()))

    def settled(self, within_s: float = 240.0) -> None:
        """Waits until all that was sent is in a block, and every retrain event worked off."""
        self._producer.flush(60)
        last = max(json.loads(r.value or b"")["ts"] for r in self.records[: self.sent])
        number = (last - 2 * loop_pipeline.DELAY_MS) // BLOCK_MS - 1

        def done() -> bool:
            numbers = [found.number for found in self.blocks()]
            idle = self.role("trainer").status().get("retrain", "") is None
            return max(numbers, default=-1) >= number and idle and not self.working_off()

        wait(done, within_s, lambda: f"not settled: {[m.status() for m in self.fleet.members]}")

    def verify(self, row: Row) -> Row:
        """What must be true whatever was killed."""
        say = row.problems.append
        blocks = self.blocks()
        drifts = [loop.drift_from_json(m.value()) for m in self.read(self.pipeline.topics.drift)]
        retrains = self.retrains()
        folds = LoopFolds(self.pipeline)
        outcomes = [folds.update(found) for found in blocks]
        if drifts != [drift for outcome in outcomes for drift in outcome.drifts]:
            say(f"the drifts {[d.id for d in drifts]} are not those of the blocks")
        if [e.id for e in retrains] != [event.id for outcome in outcomes for event in outcome.retrains]:
            say(f"the retrain events {[e.id for e in retrains]} are not those of the blocks")
        numbers = [found.number for found in blocks]
        if numbers != sorted(set(numbers)):
            say(f"blocks are not in order, each once: {numbers}")
        self._verify_blocks(blocks, row)
        self._verify_archive(blocks, row)
        versions = Counter(filter(None, map(self._retrain_of, self._versions())))
        if versions != Counter(event.id for event in retrains):
            say(f"versions by retrain event: {dict(versions)}, events {[e.id for e in retrains]}")
        causes = Counter(self._causes())
        for event in retrains:
            if causes[event.id] != 1:
                say(f"{causes[event.id]} deployments of retrain event {event.id}")
        row.notes.append(
            f"{len(blocks)} blocks, {len(drifts)} drifts, {len(retrains)} retrain events "
            f"({', '.join(e.reason for e in retrains)}), {len(versions)} versions"
        )
        if len(drifts) != 1 or [event.reason for event in retrains] != ["no_champion", "drift"]:
            say("vacuous: not one drift, and one retrain event for it after the first")
        return row

    def _verify_blocks(self, blocks: list[Block], row: Row) -> None:
        """Counts of predictions and labels in each block, against a count of the records."""
        places: Counter[tuple[int, int]] = Counter()
        predicted: Counter[int] = Counter()
        for message in self.read(self.pipeline.topics.predictions):
            found = json.loads(message.value())
            places[found["source"]["partition"], found["source"]["offset"]] += 1
            predicted[found["time"] // BLOCK_MS] += 1
        row.events = len(places)
        row.duplicated = sum(n - 1 for n in places.values())
        row.lost = sum(record.stream == 0 for record in self.records[: self.sent]) - len(places)
        labelled: Counter[int] = Counter(
            json.loads(record.value or b"")["ts"] // BLOCK_MS for record in self.records[: self.sent] if record.stream
        )
        for found in blocks:
            wanted = predicted[found.number], labelled[found.number], 0
            if (found.predictions, found.labels.n, found.late) != wanted:
                seen = found.predictions, found.labels.n, found.late
                row.problems.append(f"block {found.number} holds {seen} predictions, labels, late ones, not {wanted}")

    def _verify_archive(self, blocks: list[Block], row: Row) -> None:
        folder = archive_folder(self.pipeline, settings_of(self.servers))
        frame = pl.concat([pl.read_parquet(path, columns=["id", "time"]) for path in sorted(folder.glob("*.parquet"))])
        times = frame.group_by("id").len().filter(pl.col("len") > 1)
        if times.height:
            row.problems.append(f"{times.height} examples are in the archive more than once")
        events = self.retrains()
        if events and frame.height < max(event.labels for event in events):
            row.problems.append(f"{frame.height} examples are archived, fewer than a retrain event says")

    def _versions(self) -> list[Any]:
        registry = release.open_registry(settings_of(self.servers))
        return registry.versions(self.pipeline.model)

    @staticmethod
    def _retrain_of(version: Any) -> str:
        return str(version.lineage.get("retrain", ""))

    def _causes(self) -> list[str]:
        registry = release.open_registry(settings_of(self.servers))
        return [found.cause for found in registry.history(self.pipeline.model) if found.cause]

    def _ready(self) -> bool:
        return all(member.get("/health/ready")[0] == 200 for member in self.fleet.members)

    def _produce(self, record: Record) -> None:
        while True:
            try:
                self._producer.produce(
                    self.topics[record.stream], record.value, record.key, record.partition, timestamp=record.timestamp
                )
                return
            except BufferError:
                self._producer.poll(0.1)

    def _drop(self) -> None:
        own = [*vars(self.pipeline.topics).values(), *self.topics]
        for future in self.grounds.admin.delete_topics(own).values():
            future.exception()
