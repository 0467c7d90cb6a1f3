"""The closed-loop bench: how fast each system works a full topic off, in turns, on one Kafka.

What is compared and how it is measured: docs/performance.md.
"""

from __future__ import annotations

import hashlib
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined, unused-ignore]

from examples.payments import generate
from examples.payments import model as payments_model
from loadtest.kafka import KafkaCluster
from loadtest.measure import Measured, OutputCount, steady, watch
from loadtest.report import Result
from loadtest.systems import PIPELINE, SYSTEMS, System, Task
from models.rollout import Version, promote, to_json, unscored
from streams.errors import UsageError, WeirError
from streams.loading import load_pipeline
from streams.pipeline import Pipeline

GROUPS_EMPTY_S = 30.0


@dataclass(frozen=True)
class Bench:
    """`records` payments in `partitions` partitions, worked off by each of `systems` in each of `rounds`.

    broker: host:port of a Kafka without the payments topics; None = one is started.
    """

    records: int = 1_000_000
    rounds: int = 2
    partitions: int = 4
    systems: tuple[System, ...] = SYSTEMS
    broker: str | None = None

    def run(self, say: Callable[[str], None]) -> list[Result]:
        """The median of each system's rounds, in the systems' order. Raises WeirError where one fails."""
        with _broker(self.broker, say) as address, tempfile.TemporaryDirectory(prefix="weir-bench-") as work:
            admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
            pipeline = load_pipeline(PIPELINE)
            topics = _topics(pipeline, self.systems, self.partitions)
            _create(admin, topics)
            try:
                model = payments_model.write(Path(work) / "payments.onnx")
                _deploy(address, pipeline, model)
                self._load(address, pipeline.lead.topic, say)
                return self._measure(admin, address, pipeline, model, Path(work), say)
            finally:
                if self.broker is not None:
                    _delete(admin, [topic.topic for topic in topics])

    def _load(self, address: str, topic: str, say: Callable[[str], None]) -> None:
        began = time.monotonic()
        generate.produce(address, topic, generate.Payments().records(self.records))
        say(f"{self.records:,} payments written in {time.monotonic() - began:.1f} s")

    def _measure(
        self,
        admin: AdminClient,
        address: str,
        pipeline: Pipeline,
        model: Path,
        work: Path,
        say: Callable[[str], None],
    ) -> list[Result]:
        measured: defaultdict[str, list[Measured]] = defaultdict(list)
        for turn in range(1, self.rounds + 1):
            for system in self.systems:
                task = Task(
                    broker=address,
                    input=pipeline.lead.topic,
                    output=_output(pipeline, system),
                    group=f"bench-{system.name}",
                    model=model,
                    records=max(1, round(self.records * system.share)),
                    work=work,
                    log=work / f"{system.name}.log",
                )
                found = _run(admin, system, task)
                measured[system.name].append(found)
                say(
                    f"round {turn} of {self.rounds}: {system.name} {found.records_per_s:,.0f} records/s, "
                    f"{found.cpu_us_per_record:.1f} µs of CPU a record, {found.peak_rss_mb:.0f} MB"
                )
        return [
            Result(name, *map(statistics.median, zip(*runs, strict=True))) for name, runs in measured.items()
        ]


def _run(admin: AdminClient, system: System, task: Task) -> Measured:
    count = OutputCount(admin, task.output)
    try:
        with system.run(task) as process:
            samples = watch(process, count, task.records)
    except WeirError as error:
        said = " | ".join(task.log.read_text(errors="replace").strip().splitlines()[-5:])
        raise WeirError(f"{system.name}: {error}{': ' if said else ''}{said}") from None
    _forget_groups(admin)
    return steady(samples)


def _output(pipeline: Pipeline, system: System) -> str:
    return pipeline.topics.predictions if system.name.startswith("weir") else f"bench.{system.name}"


def _topics(pipeline: Pipeline, systems: Sequence[System], partitions: int) -> list[NewTopic]:
    # The records' timestamps are event times, long past: a retention by time would delete them at once.
    keep = {"retention.ms": "-1"}
    names = [pipeline.lead.topic, pipeline.topics.dead_letters, *(_output(pipeline, s) for s in systems)]
    topics = [NewTopic(name, partitions, 1, config=keep) for name in dict.fromkeys(names)]
    alerts = NewTopic(pipeline.topics.alerts, 1, 1)
    return [*topics, alerts, NewTopic(pipeline.topics.deployments, 1, 1, config={"cleanup.policy": "compact"})]


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


def _forget_groups(admin: AdminClient) -> None:
    """Deletes this bench's consumer groups, so that the next round starts at the beginning."""
    deadline = time.monotonic() + GROUPS_EMPTY_S
    while groups := [g.group_id for g in admin.list_consumer_groups().result().valid if _ours(g.group_id)]:
        for gone in admin.delete_consumer_groups(groups).values():
            try:
                gone.result()
            except KafkaException as error:  # its member has not left yet
                if time.monotonic() > deadline:
                    raise WeirError(f"a consumer group could not be deleted: {error.args[0].str()}") from None
        time.sleep(0.2)


def _ours(group: str) -> bool:
    return group.startswith(("bench-", "payments"))


def _deploy(address: str, pipeline: Pipeline, model: Path) -> None:
    """Makes `model` the champion, as `weir models deploy` would."""
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    version = Version(
        model=pipeline.model,
        version="1",
        uri=model.as_uri(),
        sha256=sha256,
        spec_hash=pipeline.spec.hash,
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
