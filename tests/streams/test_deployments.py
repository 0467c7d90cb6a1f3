"""Deployments: read to the end before the first round, loaded aside, switched between rounds."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Consumer, Producer
from structlog.testing import capture_logs

from models.rollout import Deployment, Version, to_json
from models.scorer import Scorer
from monitors.metrics import Metrics
from streams import Event, Pipeline, Source, deployments
from streams.deployments import DeploymentReader, Serving
from streams.embedded import Embedded, start_embedded
from streams.kafka import client_config
from streams.settings import Settings
from tests.models.graphs import constant_score


class Payment(Event):
    user: str
    amount: float
    ts: int


PAYMENTS = Source("payments", Payment, key="user", time="ts")


def pipeline_of(name: str) -> Pipeline:
    return Pipeline(name, score=PAYMENTS, features=[PAYMENTS.field("amount")], model="fraud")


def version(name: str, uri: str = "file:///nowhere", sha256: str = "0" * 64, spec_hash: str = "") -> Version:
    spec_hash = spec_hash or pipeline_of("p").spec.hash
    return Version(model="fraud", version=name, uri=uri, sha256=sha256, spec_hash=spec_hash)


def deployment(id: str, champion: Version | None = None, shadows: tuple[Version, ...] = ()) -> Deployment:
    return Deployment(id=id, model="fraud", champion=champion, shadows=shadows)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    with start_embedded(tmp_path_factory.mktemp("deployments")) as started:
        yield started


@dataclass
class Follower:
    """A reader of a topic of its own; `found` are the ids that it told."""

    broker: str
    pipeline: Pipeline
    found: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = client_config(Settings(broker=self.broker), self.broker, "test", lambda _: None)
        self.reader = DeploymentReader(self.pipeline, config, lambda d: self.found.append(d.id))
        Producer({"bootstrap.servers": self.broker}).list_topics(self.pipeline.topics.deployments, timeout=10)

    def write(self, *values: bytes | None, key: str = "fraud") -> None:
        producer = Producer({"bootstrap.servers": self.broker})
        for value in values:
            producer.produce(self.pipeline.topics.deployments, value, key)
        assert producer.flush(10) == 0

    async def read_to_the_end(self) -> None:
        self.reader.begin(asyncio.get_running_loop())
        await asyncio.wait_for(self.reader.at_end.wait(), 10)

    async def tells(self, count: int) -> list[str]:
        async with asyncio.timeout(10):
            while len(self.found) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return self.found


@pytest.fixture
async def follower(broker: Embedded, request: pytest.FixtureRequest) -> AsyncIterator[Follower]:
    made = Follower(broker.broker, pipeline_of(str(request.node.name).replace("_", "-")))
    yield made
    await made.reader.stop()


async def test_an_empty_topic_has_been_read_to_its_end_at_once(follower: Follower) -> None:
    await follower.read_to_the_end()
    assert follower.found == []


async def test_of_what_is_there_at_the_start_only_the_newest_counts(follower: Follower) -> None:
    follower.write(to_json(deployment("d1")), to_json(deployment("d2")))
    await follower.read_to_the_end()
    assert follower.found == ["d2"]


async def test_every_later_deployment_is_told(follower: Follower) -> None:
    await follower.read_to_the_end()
    follower.write(to_json(deployment("d1")), to_json(deployment("d2")))
    assert await follower.tells(2) == ["d1", "d2"]


async def test_other_models_are_not_this_pipelines(follower: Follower) -> None:
    follower.write(to_json(deployment("other")), key="churn")
    await follower.read_to_the_end()
    assert follower.found == []


async def test_a_record_that_is_not_readable_leaves_the_one_before(follower: Follower) -> None:
    follower.write(to_json(deployment("d1")), b"not json", b'{"deployment": 1}', None)
    await follower.read_to_the_end()
    assert follower.found == ["d1"]
    follower.write(b"\xff", None, to_json(deployment("d2")))
    assert await follower.tells(2) == ["d1", "d2"]


async def test_a_reader_that_fails_says_so_and_begins_again(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail = [True]  # once before the end, once after it

    class Failing(Consumer):
        def poll(self, *args: Any) -> Any:
            if fail.pop() if fail else False:
                raise RuntimeError("a fault of the client")
            return super().poll(*args)

    monkeypatch.setattr(deployments, "Consumer", Failing)
    monkeypatch.setattr(deployments, "_RETRY_S", 0.01)
    follower.write(to_json(deployment("d1")))
    with capture_logs() as lines:
        await follower.read_to_the_end()
        fail.append(True)
        async with asyncio.timeout(10):
            while fail:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        follower.write(to_json(deployment("d2")))
        assert await follower.tells(2) == ["d1", "d2"]
    assert [line["error"] for line in lines] == ["RuntimeError('a fault of the client')"] * 2


class Models:
    """A Serving, and model files to serve."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spec = pipeline_of("p").spec
        self.metrics = Metrics()
        self.serving = Serving(self.spec, self.metrics, cache_dir=folder / "cache", threads=1)

    def version(self, name: str, score: float) -> Version:
        data = constant_score(score, features=1)
        path = self.folder / f"{name}.onnx"
        path.write_bytes(data)
        return version(name, str(path), hashlib.sha256(data).hexdigest())

    async def load(self, wanted: Deployment) -> None:
        self.serving.want(wanted)
        await asyncio.wait_for(self.serving.loaded(), 20)

    def score(self) -> float | None:
        scorer = self.serving.scorer
        scores = None if scorer is None else scorer.score(np.zeros((1, 1), np.float32), [b"k"]).score
        return None if scores is None else round(float(scores[0]), 3)


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models(tmp_path)


async def test_a_loaded_deployment_waits_for_the_switch(models: Models) -> None:
    await models.load(deployment("d1", models.version("1", 0.25)))
    assert models.serving.deployment is None
    models.serving.switch()
    assert (models.score(), models.serving.versions()) == (0.25, [("champion", "1")])
    models.serving.switch()  # nothing further to switch to
    assert models.score() == 0.25
    assert models.metrics.total("weir_model_switches_total") == 1


async def test_the_champion_before_scores_on_while_and_after_the_next_loads(models: Models) -> None:
    first, second = models.version("1", 0.25), models.version("2", 0.75)
    await models.load(deployment("d1", first))
    models.serving.switch()
    await models.load(deployment("d2", second, (first,)))
    assert models.score() == 0.25
    models.serving.switch()
    assert (models.score(), models.serving.versions()) == (0.75, [("champion", "2"), ("shadow", "1")])


async def test_of_deployments_that_come_while_one_loads_the_newest_is_served(models: Models) -> None:
    for id, name, score in (("d1", "1", 0.25), ("d2", "2", 0.5), ("d3", "3", 0.75)):
        models.serving.want(deployment(id, models.version(name, score)))
    await asyncio.wait_for(models.serving.loaded(), 20)
    models.serving.switch()
    assert models.score() == 0.75


async def test_a_deployment_replaced_before_the_switch_is_never_served(models: Models) -> None:
    await models.load(deployment("d1", models.version("1", 0.25)))
    await models.load(deployment("d2", models.version("2", 0.75)))
    models.serving.switch()
    assert models.score() == 0.75


async def test_a_deployment_without_champion_ends_the_scores(models: Models) -> None:
    await models.load(deployment("d1", models.version("1", 0.25)))
    models.serving.switch()
    await models.load(deployment("d2"))
    models.serving.switch()
    assert (models.score(), models.serving.versions()) == (None, [])


async def test_a_refused_deployment_leaves_the_one_before_and_says_why(models: Models) -> None:
    good = models.version("1", 0.25)
    await models.load(deployment("d1", good))
    models.serving.switch()
    await models.load(deployment("d2", version("2", good.uri, good.sha256, spec_hash="other")))
    models.serving.switch()
    assert models.score() == 0.25
    assert "made for other features (spec other, " in models.serving.refused
    await models.load(deployment("d3", models.version("3", 0.75)))
    models.serving.switch()
    assert (models.score(), models.serving.refused) == (0.75, "")


async def test_a_model_that_cannot_be_fetched_now_is_tried_until_another_is_wanted(models: Models) -> None:
    models.serving.want(deployment("d1", version("1", str(models.folder / "missing.onnx"))))
    async with asyncio.timeout(10):
        while not models.serving.refused:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert "trying again" in models.serving.refused
    await models.load(deployment("d2", models.version("2", 0.75)))
    models.serving.switch()
    assert (models.score(), models.serving.refused) == (0.75, "")


async def test_a_cache_that_cannot_be_used_is_said_and_tried_again(models: Models) -> None:
    cache = models.folder / "cache"
    cache.write_text("a file in the directory's place")
    models.serving.want(deployment("d1", models.version("1", 0.25)))
    async with asyncio.timeout(10):
        while not models.serving.refused:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert "Not a directory" in models.serving.refused
    cache.unlink()
    await asyncio.wait_for(models.serving.loaded(), 20)
    models.serving.switch()
    assert models.score() == 0.25


async def test_a_fault_while_loading_is_a_refusal(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    load: Callable[..., Any] = Scorer.load

    def faulty(wanted: Deployment, *args: Any, **kwargs: Any) -> Any:
        if wanted.id == "d2":
            raise RuntimeError("a fault of the loader")
        return load(wanted, *args, **kwargs)

    monkeypatch.setattr(Scorer, "load", faulty)
    first = models.version("1", 0.25)
    await models.load(deployment("d1", first))
    models.serving.switch()
    with capture_logs() as lines:
        await models.load(deployment("d2", first))
    models.serving.switch()
    assert models.score() == 0.25
    assert "a fault of the loader" in models.serving.refused
    assert [(line["log_level"], line["deployment"]) for line in lines] == [("error", "d2")]
    assert models.metrics.value("weir_model_switches_total", result="refused") == 1


async def test_a_scorer_that_cannot_be_freed_is_said_and_the_next_one_serves(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(_: Scorer) -> None:
        raise RuntimeError("a fault of the runtime")

    monkeypatch.setattr(Scorer, "close", faulty)
    versions = [models.version(str(i), i / 10) for i in range(1, 6)]
    with capture_logs() as lines:
        await models.load(deployment("d1", versions[0]))
        await models.load(deployment("d2", versions[1]))  # d1 goes before its switch
        models.serving.switch()
        for i in (2, 3):
            await models.load(deployment(f"d{i + 1}", versions[i]))
            models.serving.switch()  # the second frees d2
        models.serving.fall_back("it fails")  # frees d4
    assert models.score() == 0.3
    errors = [line for line in lines if line["log_level"] == "error"]
    assert [line["deployment"] for line in errors] == ["d1", "d2", "d4"]
    assert {line["error"] for line in errors} == {"RuntimeError('a fault of the runtime')"}


async def test_the_metrics_name_the_deployment_that_is_fallen_back_to(models: Models) -> None:
    def shown(id: str, name: str) -> float:
        return models.metrics.value("weir_model_info", model="fraud", version=name, arm="champion", deployment=id)

    for id, name in (("d1", "1"), ("d2", "2")):
        await models.load(deployment(id, models.version(name, 0.25)))
        models.serving.switch()
    assert (shown("d1", "1"), shown("d2", "2")) == (0, 1)
    models.serving.fall_back("it fails")
    assert (shown("d1", "1"), shown("d2", "2")) == (1, 0)
    models.serving.fall_back("it fails too")
    assert (shown("d1", "1"), shown("d2", "2")) == (0, 0)
