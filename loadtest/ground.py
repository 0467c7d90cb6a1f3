"""What every bench stands on: a Kafka with the payments pipeline's topics, and its model deployed."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import OFFSET_END, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined, unused-ignore]

from examples.payments import model as payments_model
from loadtest.kafka import KafkaCluster
from loadtest.measure import led
from loadtest.systems import PIPELINE, System
from models.rollout import Version, promote, to_json, unscored
from streams.errors import UsageError, WeirError
from streams.kafka import group_topics, loop_topics
from streams.loading import load_pipeline
from streams.pipeline import Pipeline

GROUPS_EMPTY_S = 90.0
"""A member that was killed, or had no time to leave, is of the group for a session: 45 s where none is set."""


@dataclass(frozen=True)
class Ground:
    """`broker`: host:port of the Kafka; `work`: a folder of the bench's own; `model`: the champion's file."""

    broker: str
    admin: AdminClient
    pipeline: Pipeline
    model: Path
    work: Path
    hops: tuple[str, ...] = ()
    """The topics of remote groups."""

    @property
    def input(self) -> str:
        """The topic of the payments."""
        return self.pipeline.lead.topic

    def output(self, system: System) -> str:
        """The topic that `system` writes its predictions to."""
        return _output(system)

    def forget_groups(self) -> None:
        """Deletes the systems' consumer groups, and what went to remote groups, so that the next turn starts at the
        topic's beginning.
        """
        deadline = time.monotonic() + GROUPS_EMPTY_S
        admin = self.admin
        while groups := [g.group_id for g in admin.list_consumer_groups().result().valid if _ours(g.group_id)]:
            for gone in admin.delete_consumer_groups(groups).values():
                try:
                    gone.result()
                except KafkaException as error:  # its member has not left yet
                    if time.monotonic() > deadline:
                        raise WeirError(f"a consumer group could not be deleted: {error.args[0].str()}") from None
            time.sleep(0.2)
        for topic in self.hops:
            self._empty(topic)

    def empty_input(self) -> None:
        """Deletes all payments written so far: who reads from the beginning sees only what comes next."""
        self._empty(self.input)

    def _empty(self, topic: str) -> None:
        partitions = self.admin.list_topics(topic, timeout=10).topics[topic].partitions
        ends = [TopicPartition(topic, p, OFFSET_END) for p in partitions]
        led(lambda: [done.result() for done in self.admin.delete_records(ends).values()])


@contextmanager
def ground(
    broker: str | None, systems: Sequence[System], partitions: int, say: Callable[[str], None]
) -> Iterator[Ground]:
    """`broker`: host:port of a Kafka without the payments topics, which loses them again; None = one is started.

    Raises UsageError where a topic is there already, WeirError where no Kafka answers.
    """
    with _broker(broker, say) as address, tempfile.TemporaryDirectory(prefix="weir-bench-") as work:
        admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
        pipelines = [load_pipeline(name) for name in dict.fromkeys((PIPELINE, *(s.pipeline for s in systems)))]
        topics = _topics(pipelines, systems, partitions)
        _create(admin, topics)
        try:
            model = payments_model.write(Path(work) / "payments.onnx")
            for pipeline in pipelines:
                deploy(address, model, pipeline, pipeline.spec.hash)
            hops = tuple(topic.topic for pipeline in pipelines for topic in group_topics(pipeline, partitions, 1))
            yield Ground(address, admin, pipelines[0], model, Path(work), hops)
        finally:
            if broker is not None:
                _delete(admin, [topic.topic for topic in topics])


def _output(system: System) -> str:
    return load_pipeline(system.pipeline).topics.predictions if system.is_weir else f"bench.{system.name}"


def _topics(pipelines: Sequence[Pipeline], systems: Sequence[System], partitions: int) -> list[NewTopic]:
    # The records' timestamps are event times, long past: a retention by time would delete them at once.
    keep = {"retention.ms": "-1"}
    names = [name for p in pipelines for name in (p.lead.topic, p.topics.dead_letters)]
    names += [_output(system) for system in systems]
    topics = [NewTopic(name, partitions, 1, config=keep) for name in dict.fromkeys(names)]
    return [*topics, *(t for p in pipelines for t in (*loop_topics(p, 1), *group_topics(p, partitions, 1)))]


def _create(admin: AdminClient, topics: Sequence[NewTopic]) -> None:
    """Raises UsageError where one is there already: the bench deletes what it made, and nothing else."""
    try:
        existing = admin.list_topics(timeout=10).topics
    except KafkaException as error:
        raise WeirError(f"no Kafka answers: {error.args[0].str()}") from None
    if taken := [topic.topic for topic in topics if topic.topic in existing]:
        raise UsageError(f"this Kafka has the topics {', '.join(taken)} already; use one without them")
    for made in admin.create_topics(list(topics)).values():
        made.result()


def _delete(admin: AdminClient, topics: Sequence[str]) -> None:
    for gone in admin.delete_topics(list(topics)).values():
        gone.result()


def _ours(group: str) -> bool:
    return group.startswith(("bench-", "payments"))


def deploy(address: str, model: Path, pipeline: Pipeline, spec_hash: str) -> None:
    """Makes `model` the champion, as `weir models deploy` would; spec_hash: of the worker's features."""
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    version = Version(
        model=pipeline.model,
        version="1",
        uri=model.as_uri(),
        sha256=sha256,
        spec_hash=spec_hash,
        output=pipeline.output,
    )
    deployment = promote(unscored(pipeline.model), version)
    producer = Producer({"bootstrap.servers": address, "log_level": 0})
    producer.produce(pipeline.topics.deployments, to_json(deployment), pipeline.model.encode())
    producer.flush()


@contextmanager
def _broker(given: str | None, say: Callable[[str], None]) -> Iterator[str]:
    if given is not None:
        yield given
        return
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="weir-kafka-") as folder,
        KafkaCluster(Path(folder), java_options=()) as kafka,
    ):
        say(f"Kafka is up after {time.monotonic() - began:.1f} s")
        yield kafka.address
