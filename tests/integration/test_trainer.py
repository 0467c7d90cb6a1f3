"""`weir trainer` as a process: a retrain event becomes one version and one deployment, whatever kills it on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import polars as pl
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from models.registry import Registered, Registry
from monitors import block as blocks
from monitors import loop
from monitors.block import Block, Column, Paired, VersionLoss
from monitors.loop import RetrainEvent
from streams.loading import load_pipeline
from streams.pipeline import Pipeline
from tests.integration.outputs import Reader
from tests.integration.worker import Servers, Worker
from tests.streams.retrained import DAY_MS, START, archive, declare, event_of, rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
LONG_S = 240.0  # a training process imports its libraries first; the machine may be busy


class Site:
    """A pipeline with an archive of a few weeks, its topics, and a trainer to start and to kill."""

    def __init__(self, servers: Servers, name: str, function: str) -> None:
        self.servers, self.name = servers, name
        self.path = declare(servers.data_dir / "declared", name, function)
        self.pipeline: Pipeline = load_pipeline(str(self.path))
        self.table: pl.DataFrame = rows(2000)
        archive(servers.data_dir / "archive" / name, self.table)
        self.began, self.goes_on = servers.data_dir / "began", servers.data_dir / "goes-on"
        topics = self.pipeline.topics
        if servers.settings:
            admin = AdminClient({"bootstrap.servers": servers.broker})
            wanted = [topics.retrain, topics.blocks, topics.deployments, topics.alerts]
            for made in admin.create_topics([NewTopic(topic, 1) for topic in wanted]).values():
                made.result()
        self._producer = Producer({"bootstrap.servers": servers.broker})

    def trainer(self) -> Worker:
        said = {"TRAINING_BEGAN": str(self.began), "TRAINING_GOES_ON": str(self.goes_on)}
        return Worker(self.path, self.servers, role="trainer", **said)

    def event(self, id: str, **changes: Any) -> RetrainEvent:
        return event_of(self.pipeline, self.table, id, **{"reason": "manual", **changes})

    def send(self, *records: RetrainEvent | Block) -> None:
        topics = self.pipeline.topics
        for record in records:
            if isinstance(record, Block):
                self._producer.produce(topics.blocks, blocks.to_json(record), self.name, partition=0)
            else:
                self._producer.produce(topics.retrain, loop.to_json(record), self.name, partition=0)
        assert self._producer.flush(30) == 0

    def wait_for_attempts(self, trainer: Worker, n: int) -> None:
        """Waits until the training of `train_slowly` has been begun `n` times."""
        trainer.wait_for(lambda: self.began.exists() and len(self.began.read_text()) == n, LONG_S)

    def versions(self) -> list[Registered]:
        registry = Registry(f"sqlite:///{self.servers.data_dir}/registry.db", self.servers.data_dir / "models")
        return registry.versions(self.name)

    def records(self, topic: str, n: int) -> list[dict[str, Any]]:
        """What a topic holds, once it holds `n` records."""
        with Reader(self.servers.broker, topic) as reader:
            found = reader.until(lambda r: len(r.found) >= n)
            return [json.loads(output.value or b"") for output in found]

    def deployments(self, n: int) -> list[dict[str, Any]]:
        """The deployments that were made, each once: a start publishes the current one again."""
        found = self.records(self.pipeline.topics.deployments, n)
        return list({record["deployment"]: record for record in found}.values())


def wait_for(trainer: Worker, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    trainer.wait_for(lambda: what(trainer.status()), LONG_S)
    return trainer.status()


def block(number: int, shadow: str, served: str, difference: float, n: int = 300) -> Block:
    """A day in which `shadow` was worse by `difference` a row than `served`."""
    return Block(
        f"b-{number}", "b", number, START + number * DAY_MS, START + (number + 1) * DAY_MS,
        predictions=n, served={served: n}, score=Column(n, least=0.1, most=0.9),
        versions={v: VersionLoss(n, n, 0.5, 0.2, 0.2, 0.5, 0.5) for v in (shadow, served)},
        paired=(Paired(shadow, served, n, n * difference, n * (difference**2 + 0.0001)),),
    )  # fmt: skip


def test_from_the_first_event_to_a_promotion_and_a_rollback(embedded: Servers, name: str) -> None:
    site = Site(embedded, name, "train")
    with site.trainer() as trainer:
        trainer.wait_for(lambda: trainer.get("/health/ready")[0] == 200, LONG_S)
        assert trainer.status()["state"] == "idle"
        site.send(site.event("first"))
        status = wait_for(trainer, lambda s: s["worked_off"] == 1)
        assert (status["last"]["outcome"], status["champion"], status["state"]) == ("champion", "1", "idle")

        site.send(site.event("first"), site.event("second"))  # the one comes twice
        status = wait_for(trainer, lambda s: s["worked_off"] == 3)
        assert (status["champion"], status["candidate"], status["state"]) == ("1", "2", "rolling out")

        site.send(block(100, "2", "1", -0.01))
        status = wait_for(trainer, lambda s: s["champion"] == "2")
        assert (status["candidate"], status["previous"], status["state"]) == (None, "1", "rolling out")

        site.send(block(101, "1", "2", -0.2, n=1000))  # the former champion is far better
        status = wait_for(trainer, lambda s: s["champion"] == "1")
        assert (status["candidate"], status["previous"], status["state"]) == (None, None, "idle")
        assert trainer.stop() == 0
        trainer.assert_calm()

    assert {found.lineage["retrain"] for found in site.versions()} == {"first", "second"}
    assert [d["cause"] for d in site.deployments(4)] == ["first", "second", "promoted", "rolled_back"]
    alerts = site.records(site.pipeline.topics.alerts, 4)
    assert [(a["kind"], a["retrain"], a["version"]) for a in alerts] == [
        ("champion", "first", "1"), ("candidate", "second", "2"), ("promoted", "second", "2"),
        ("rolled_back", "second", "2"),
    ]  # fmt: skip
    (lineage,) = [found.lineage for found in site.versions() if found.version.version == "2"]
    assert json.loads(lineage["gate"])["evidence"]["against"] == "champion"


def test_a_killed_trainer_is_taken_up_again_and_leaves_one_version_and_one_deployment(real: Servers, name: str) -> None:
    site = Site(real, name, "train_slowly")
    site.send(site.event("e1"))
    with ExitStack() as started:
        trainer = started.enter_context(site.trainer())
        site.wait_for_attempts(trainer, 1)  # in the middle of the training
        assert trainer.status()["state"] == "training"
        trainer.kill()
        site.goes_on.touch()
        trainer = started.enter_context(site.trainer())
        trainer.wait_for(lambda: bool(site.versions()), LONG_S)
        trainer.kill()  # between the registry and the commit, or thereabouts
        trainer = started.enter_context(site.trainer())
        status = wait_for(trainer, lambda s: s.get("champion") == "1" and s["state"] == "idle")
        assert not status["failing"]
        assert site.began.read_text() == "xx"
        site.send(site.event("e1", labels=7))  # it came twice: this one does nothing, and is the last to be done
        wait_for(trainer, lambda s: s["last"] is not None and s["waiting_events"] == 0 and s["state"] == "idle")
        assert trainer.stop() == 0
    (version,) = site.versions()
    assert (version.version.version, version.lineage["retrain"]) == ("1", "e1")
    (deployment,) = site.deployments(1)
    assert (deployment["cause"], deployment["champion"]["version"]) == ("e1", "1")


def test_an_event_whose_training_dies_twice_is_rejected(embedded: Servers, name: str) -> None:
    site = Site(embedded, name, "train_slowly")
    site.send(site.event("e1"))
    for attempts in (1, 2):
        with site.trainer() as trainer:
            site.wait_for_attempts(trainer, attempts)
            trainer.kill()
    with site.trainer() as trainer:
        status = wait_for(trainer, lambda s: s.get("last") is not None)
    assert (status["last"]["outcome"], status["last"]["reasons"]) == ("rejected", ["its training died twice"])
    assert site.versions() == []
    (alert,) = site.records(site.pipeline.topics.alerts, 1)
    assert (alert["kind"], alert["retrain"], alert["version"]) == ("rejected", "e1", None)


def test_a_trainer_that_is_stopped_in_order_has_not_used_up_its_attempt(embedded: Servers, name: str) -> None:
    site = Site(embedded, name, "train_slowly")
    site.send(site.event("e1"))
    for attempts in (1, 2, 3):
        with site.trainer() as trainer:
            site.wait_for_attempts(trainer, attempts)
            assert trainer.stop() == 0
            trainer.assert_calm()
    site.goes_on.touch()
    with site.trainer() as trainer:
        assert wait_for(trainer, lambda s: s.get("last") is not None)["last"]["outcome"] == "champion"


def test_a_second_trainer_waits_until_the_first_is_gone(embedded: Servers, name: str) -> None:
    site = Site(embedded, name, "train")
    with site.trainer() as first, site.trainer() as second:
        first.wait_for(lambda: 200 in (first.get("/health/ready")[0], second.get("/health/ready")[0]), LONG_S)
        here, there = (first, second) if first.get("/health/ready")[0] == 200 else (second, first)
        there.wait_for(lambda: "another trainer" in json.dumps(there.get("/health/ready")[1]), LONG_S)
        here.kill()
        there.wait_for(lambda: there.get("/health/ready")[0] == 200, LONG_S)
