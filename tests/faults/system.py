"""The system under test: three brokers for all scenarios; topics, Redis, workers and load of its own for each."""

from __future__ import annotations

import contextlib
import hashlib
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from confluent_kafka import Consumer, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined, unused-ignore]

from examples.payments import model as payments_model
from features.redis_store import RedisStore
from loadtest.kafka import ONE_CORE, KafkaCluster
from models import rollout
from models.rollout import Version
from streams.loading import load_pipeline
from streams.pipeline import Pipeline
from streams.release import publish
from tests.faults import pipelines
from tests.faults.feed import Feed, Load, feed
from tests.faults.fleet import Fleet
from tests.faults.pipelines import PARTITIONS, Kind
from tests.faults.table import Row
from tests.faults.verify import verify
from tests.faults.watch import Watch, count_uncommitted
from tests.integration.models import _network, settings_of
from tests.integration.tape import Place
from tests.integration.worker import Servers
from tests.redis_server import RedisServer

WORKERS = 3
SETTLE_S = 90.0
COMMIT_MS = "500"
"""Three brokers on one machine spend most of their time on transactions; and a longer one is hit more often."""


class Failed(Exception):
    """The scenario cannot go on: what it waited for did not come."""


class Grounds:
    """What scenarios share: the brokers, and a folder. As a context manager: started on entry, gone on exit."""

    def __init__(self, folder: Path, brokers: int = 3, *, long: bool = False) -> None:
        self.folder = folder
        # The long form lasts long enough for Java's better compiler to pay.
        self.kafka = KafkaCluster(folder, brokers, java_options=(ONE_CORE[0],) if long else ONE_CORE)
        self.admin: AdminClient
        self.alive = set(self.kafka.nodes)

    def system(self, kind: Kind, events: int | Feed, per_s: float, **options: Any) -> System:
        """See System."""
        return System(self, kind, feed(kind, events) if isinstance(events, int) else events, per_s, **options)

    def leader(self, topic: str, partition: int) -> int:
        """The node that leads it."""
        found = self.admin.list_topics(timeout=20).topics[topic].partitions[partition]
        return int(found.leader)

    def coordinator(self, kind: str, name: str) -> int:
        """The node that coordinates a group ("group") or a transactional id ("transaction")."""
        topic = {"group": "__consumer_offsets", "transaction": "__transaction_state"}[kind]
        partitions = len(self.admin.list_topics(timeout=20).topics[topic].partitions)
        return self.leader(topic, abs(_java_hash(name)) % partitions)

    def whole(self, within_s: float = 60.0) -> None:
        """Waits until every partition has all of its replicas in sync."""

        def in_sync() -> bool:
            topics = self.admin.list_topics(timeout=10).topics.values()
            nodes = len(self.kafka.nodes)
            return all(len(p.isrs) == len(p.replicas) == nodes for t in topics for p in t.partitions.values())

        wait(in_sync, within_s, lambda: "replicas are not in sync")

    def mend(self) -> None:
        """Starts the brokers that a scenario has left dead."""
        if dead := set(self.kafka.nodes) - self.alive:
            self.kafka.start(*dead)
            self.alive |= dead
            self.whole()

    def kill_broker(self, node: int) -> None:
        """kill -9."""
        self.alive.discard(node)
        self.kafka.kill(node)

    def __enter__(self) -> Self:
        self.kafka.__enter__()
        self.admin = AdminClient({"bootstrap.servers": self.kafka.address, "log_level": 0})
        return self

    def __exit__(self, *error: Any) -> None:
        self.kafka.close()


class System:
    """A pipeline at work. On entry every worker has its share of the partitions and the load has begun.

    unprotected: which protection is off, see unprotected.py. workers: how many begin, of WORKERS.
    broker: where the workers find it, if elsewhere (a proxy); redis_url likewise, to be set before entry.
    again: how often more than once each record is to be scored, as was asked for.
    settings: WEIR_ variables of the workers.
    """

    def __init__(
        self,
        grounds: Grounds,
        kind: Kind,
        feed: Feed,
        per_s: float,
        *,
        unprotected: str = "",
        workers: int = WORKERS,
        broker: str = "",
        **settings: str,
    ) -> None:
        self.grounds, self.kind, self.feed = grounds, kind, feed
        self.name = f"{kind}-{uuid.uuid4().hex[:6]}"
        self.folder = grounds.folder / self.name
        self.folder.mkdir()
        self.redis = RedisServer("redis", self.folder)
        self.pipeline: Pipeline
        self._per_s, self._unprotected, self._workers = per_s, unprotected, workers
        self._broker, self._settings = broker or grounds.kafka.address, settings
        self.redis_url = self.redis.url
        self.again: Counter[Place] = Counter()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        with ExitStack() as stack:
            kafka = self.grounds.kafka
            path = pipelines.write(self.kind, self.name, self.folder)
            self.pipeline = load_pipeline(str(path))
            self.topics = [source.topic for source in self.pipeline.sources]
            outputs = self.pipeline.topics.predictions, self.pipeline.topics.dead_letters
            stack.callback(self._drop)
            self.create_sources()
            kafka.create_topics(
                *outputs, partitions=PARTITIONS, retention_ms="-1", message_timestamp_type="LogAppendTime"
            )
            stack.enter_context(self.redis)
            servers = [self._servers(i) for i in range(WORKERS)]
            self.model = self._deploy(servers[0])
            self.fleet = Fleet(path, servers, self._unprotected)
            stack.callback(self.fleet.end)
            self._offsets = Consumer(
                {
                    "bootstrap.servers": kafka.address,
                    "group.id": self.group,
                    "isolation.level": "read_committed",
                    "log_level": 0,
                }
            )
            stack.callback(self._offsets.close)
            self.watch = Watch(kafka.address, outputs)
            self.watch.start()
            stack.callback(self.watch.to_end)
            self.fleet.begin(*range(self._workers))
            self.load = Load(self.feed, kafka.address, self.topics, self._per_s)
            stack.callback(self.load.halt)
            wait(self._shared, SETTLE_S, self.state)
            self.load.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    @property
    def group(self) -> str:
        return f"{self.name}-worker"

    def transactional_id(self, number: int) -> str:
        """Of the worker's producer."""
        instance = (self.fleet[number].data_dir / "instances" / "0").read_text().strip()
        return f"{self.name}-{instance}"

    def store(self) -> RedisStore:
        """The workers' store, to look into; patient, for how busy the machine is is no part of what is tested."""
        return RedisStore(self.redis.url, self.name, command_timeout_s=30.0)

    def owned(self) -> dict[int, list[int]]:
        """By worker, the partitions that it says are its own and recovered; asked one after the other."""
        statuses = {m.number: m.status() for m in self.fleet.members}
        return {
            number: sorted(set(s.get("partitions", ())) - set(s.get("recovering", ())))
            for number, s in statuses.items()
        }

    def covered(self) -> bool:
        """Whether every partition is owned by one worker."""
        return _whole(self.owned())

    def committed(self) -> dict[tuple[int, int], int]:
        """By stream and partition; -1 = nothing yet. Asks until Kafka answers."""
        asked = [TopicPartition(topic, p) for topic in self.topics for p in range(PARTITIONS)]
        for _ in range(20):
            try:
                found = self._offsets.committed(asked, timeout=10)
                return {(self.topics.index(p.topic), p.partition): p.offset for p in found}
            except KafkaException:
                time.sleep(0.2)
        raise Failed("the committed offsets could not be read")

    def progress(self, within_s: float = SETTLE_S) -> float:
        """Waits until every partition has come further, and is owned; returns the seconds that it took."""
        began, before = time.monotonic(), self.committed()

        def further() -> bool:
            now = self.committed()
            return all(now[at] > before[at] or now[at] >= self.feed.counts[at] for at in before if at[0] == 0)

        wait(further, within_s, self.state)
        wait(self.covered, max(1.0, within_s - (time.monotonic() - began)), self.state)
        self.say(f"all partitions have moved, {time.monotonic() - began:.1f} s")
        return time.monotonic() - began

    def owned_by(self, number: int, within_s: float = SETTLE_S) -> None:
        """Waits until this worker has partitions."""
        wait(lambda: bool(self.owned()[number]), within_s, self.state)

    def in_transaction(self, number: int, within_s: float = 5.0) -> None:
        """Waits until predictions of this worker lie in an open transaction; not for long, it may not use any."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline and not self._open(self.owned()[number]):
            pass

    def freeze_in_transaction(self, number: int) -> None:
        """SIGSTOP, while predictions of this worker lie in an open transaction and its offsets do not yet.

        In the midst of a commit its offsets keep everybody else from the partitions until the transaction times out.
        """

        def frozen() -> bool:
            mine = self.owned()[number]
            self.fleet[number].freeze()
            time.sleep(0.5)  # what it had asked the broker for is done
            if self._open(mine) and self._stable(mine):
                return True
            self.fleet[number].thaw()
            return False

        wait(frozen, SETTLE_S, self.state)

    def _open(self, partitions: Sequence[int]) -> bool:
        """Whether predictions in one of these lie in an open transaction."""
        topic = self.pipeline.topics.predictions
        asked = {TopicPartition(topic, p): OffsetSpec.latest() for p in partitions}  # type: ignore[no-untyped-call, unused-ignore]
        # What was there a moment ago and is not committed now is open.
        there, committed = (
            [found.result().offset for found in self._ends(asked, level).values()]
            for level in (IsolationLevel.READ_UNCOMMITTED, IsolationLevel.READ_COMMITTED)
        )
        return any(end > stable for end, stable in zip(there, committed, strict=True))

    def _stable(self, partitions: Sequence[int]) -> bool:
        """Whether no open transaction holds offsets of these."""
        try:
            self._offsets.committed([TopicPartition(t, p) for t in self.topics for p in partitions], timeout=2)
        except KafkaException:
            return False
        return True

    def _ends(self, asked: dict[TopicPartition, OffsetSpec], level: IsolationLevel) -> dict[TopicPartition, Any]:
        return self.grounds.admin.list_offsets(asked, isolation_level=level) if asked else {}

    def steady(self, seconds: float = 2.0) -> None:
        """Waits until every worker has partitions, and the same ones for `seconds`: no rebalance is under way."""
        seen: tuple[float, dict[int, list[int]]] = (0.0, {})

        def unchanged() -> bool:
            nonlocal seen
            now, owned = time.monotonic(), self.owned()
            if owned != seen[1] or not _whole(owned) or not all(owned.values()):
                seen = now, owned
            return now - seen[0] >= seconds

        wait(unchanged, SETTLE_S, self.state)

    def say(self, what: str) -> None:
        """Notes what happens now, with the time, in the scenario's folder."""
        with (self.folder / "timeline").open("a") as file:
            file.write(f"{datetime.now(UTC):%H:%M:%S.%f} {what}\n")

    def under_load(self) -> None:
        """Fails where the load has ended: a fault now would prove nothing."""
        if not self.load.going:
            raise Failed("the load ended before the faults")

    def finish(self, row: Row, within_s: float = 120.0) -> Row:
        """Sends the rest, waits until all of it is committed, and verifies; the row is judged by its scenario."""
        self.load.hurry()
        self.load.finish(within_s)
        counts = self.feed.counts
        wait(lambda: all(self.committed()[at] >= n for at, n in counts.items()), within_s, self.state)
        self.watch.to_end()
        outputs = list(self.watch.found)
        predictions, dead = self.watch.found.values()
        topics = {(self.topics[stream], p, offset) for stream, p, offset in self.feed.dead}
        verify(row, self.feed, predictions, dead, topics, self.model, self.load, self.again)
        row.aborted = count_uncommitted(self.grounds.kafka.address, outputs) - len(predictions) - len(dead)
        row.took_s = round(time.monotonic() - self._began, 1)
        if codes := self.fleet.exits:
            row.notes.append(f"workers ended by themselves with {codes}")
        return row

    def create_sources(self) -> None:
        """Topics that take records of 2 MB."""
        self.grounds.kafka.create_topics(
            *self.topics, partitions=PARTITIONS, retention_ms="-1", max_message_bytes="4000000"
        )

    def _shared(self) -> bool:
        """Whether all is covered, and every worker that began has a part."""
        owned = self.owned()
        return _whole(owned) and all(owned[number] for number in range(self._workers))

    def _drop(self) -> None:
        """The brokers of all scenarios are the same three, with little memory."""
        names = [n for n in self.grounds.admin.list_topics(timeout=20).topics if n.startswith(self.name)]
        with contextlib.suppress(KafkaException):
            for gone in self.grounds.admin.delete_topics(names).values():
                gone.result()

    def last_words(self) -> str:
        """The ends of the workers' logs."""
        return "\n".join(f"--- worker {m.number}\n{m.last_words}" for m in self.fleet.members if m.starts)

    def state(self) -> str:
        return f"owned {self.owned()}, committed {self.committed()}\n{self.last_words()}"

    def _servers(self, number: int) -> Servers:
        folder = self.folder / f"worker-{number}"
        folder.mkdir(exist_ok=True)
        settings = {
            "WEIR_BROKER": self._broker,
            "WEIR_REDIS": self.redis_url,
            "WEIR_GUARANTEE": "exactly_once",
            "WEIR_REPLICATION": str(len(self.grounds.kafka.nodes)),
            "WEIR_COMMIT_INTERVAL": COMMIT_MS,
            **self._settings,
        }
        return Servers(self.grounds.kafka.address, self.redis.url, folder, settings)

    def _deploy(self, servers: Servers) -> Path:
        path = self.folder / "model.onnx"
        if self.kind == "payments":
            payments_model.write(path)
        else:
            path.write_bytes(_network(len(self.pipeline.spec.names), seed=4))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        version = Version(self.pipeline.model, "1", str(path), digest, self.pipeline.spec.hash)
        deployment = rollout.promote(rollout.unscored(self.pipeline.model), version)
        publish(self.pipeline, settings_of(servers), servers.broker, deployment)
        return path


def _whole(owned: dict[int, list[int]]) -> bool:
    return sorted(p for partitions in owned.values() for p in partitions) == list(range(PARTITIONS))


def wait(what: Callable[[], bool], within_s: float, state: Callable[[], str]) -> None:
    """Polls until `what`; raises Failed with `state` when the time is over."""
    deadline = time.monotonic() + within_s
    while not what():
        if time.monotonic() > deadline:
            raise Failed(f"not in {within_s:.0f} s: {state()}")
        time.sleep(0.2)


def _java_hash(text: str) -> int:
    """String.hashCode, by which Kafka finds coordinators."""
    value = 0
    for char in text:
        value = (31 * value + ord(char)) & 0xFFFFFFFF
    return value - 2**32 if value >= 2**31 else value
