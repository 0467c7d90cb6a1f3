"""A model that fails gives way to the deployment before it, and the failure carries its own name."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper
from structlog.testing import capture_logs

from models import rollout
from models.rollout import Deployment, Version
from models.scorer import Scores
from monitors.metrics import Metrics
from streams import Event, Pipeline, Source
from streams.deployments import Serving
from streams.inference import Inference
from tests.models.graphs import constant_score, graph_of


class Payment(Event):
    user: str
    amount: float
    ts: int


PAYMENTS = Source("payments", Payment, key="user", time="ts")
SPEC = Pipeline("p", score=PAYMENTS, features=[PAYMENTS.field("amount")], model="fraud").spec
ROWS = np.full((64, 1), 7, np.float32)
KEYS = [str(i).encode() for i in range(64)]
MANY = np.full((512, 1), 7, np.float32)
KEYS_OF_MANY = [str(i).encode() for i in range(512)]


CALLS = [  # rows, ms that they take, whether they go to a thread
    (2, 0.02, True),  # not known
    (64, 0.02, False),  # as long as 2: both are padded to 64
    (64, 100, False),  # slow once, they stay
    (64, 100, False),
    (64, 0.5, True),  # slow twice, they do not
    (2, 0.5, False),  # fast again, they come back
    (500, 0.1, True),  # might take eight times as long
    (200, 100, False),  # no longer than 500
    (512, 0.1, False),
    (250, 100, True),  # as 200 did, whatever 512 take
    (64, 100, False),
    (64, 100, False),
    (64, 100, True),  # as they did, whatever 512 take
]


def failing() -> bytes:
    """Raises unless the feature is 0 or 1, as it is where a model is warmed up."""
    return graph_of(
        [
            helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "i"], ["y"]),
        ],
        [("x", TensorProto.FLOAT, ["n", 1])],
        [("y", TensorProto.FLOAT, ["n", 1])],
        {"table": np.array([0.25, 0.75], dtype=np.float32)},
    ).SerializeToString()


class Models:
    """Model files, and an Inference on what is deployed of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.metrics = Metrics()
        self.serving = Serving(SPEC, self.metrics, cache_dir=folder / "cache", threads=1)
        self.inference = Inference(self.serving, self.metrics)

    def version(self, name: str, model: bytes) -> Version:
        path = self._folder / f"{name}.onnx"
        path.write_bytes(model)
        return Version("fraud", name, str(path), hashlib.sha256(model).hexdigest(), SPEC.hash)

    async def serve(self, deployment: Deployment) -> Deployment:
        self.serving.want(deployment)
        await self.serving.loaded()
        self.serving.switch()
        return deployment

    def failures(self, version: str) -> float:
        return self.metrics.value("weir_scoring_failures_total", version=version)


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models(tmp_path)


async def test_without_a_deployment_there_are_no_scores(models: Models) -> None:
    assert await models.inference.score(ROWS, KEYS) is None


async def test_a_canary_that_fails_is_named_and_the_deployment_before_scores(models: Models) -> None:
    champion = models.version("1", constant_score(0.25, features=1))
    first = await models.serve(rollout.promote(rollout.unscored("fraud"), champion))
    second = await models.serve(rollout.add_canary(first, models.version("2", failing()), 0.5))
    with capture_logs() as lines:
        scores = await models.inference.score(ROWS, KEYS)
    assert scores is not None
    assert scores.score is not None
    assert (scores.arms, scores.score.round(3).tolist()) == ((("champion", "1"),), [0.25] * 64)
    assert (models.failures("1"), models.failures("2")) == (0, 1)
    (alert,) = models.inference.alerts
    assert (alert["deployment"], alert["version"], alert["serving"]) == (second.id, "2", first.id)
    assert [line["version"] for line in lines if line["log_level"] == "error"] == ["2"]


async def test_a_champion_that_fails_with_nothing_before_it_leaves_rows_unscored(models: Models) -> None:
    only = await models.serve(rollout.promote(rollout.unscored("fraud"), models.version("9", failing())))
    assert await models.inference.score(ROWS, KEYS) is None
    assert models.failures("9") == 1
    (alert,) = models.inference.alerts
    assert (alert["deployment"], alert["version"], alert["serving"]) == (only.id, "9", None)


async def test_a_shadow_that_fails_costs_nothing_and_is_named(models: Models) -> None:
    champion = models.version("1", constant_score(0.25, features=1))
    first = rollout.promote(rollout.unscored("fraud"), champion)
    await models.serve(rollout.add_shadow(first, models.version("2", failing())))
    scores = await models.inference.score(ROWS, KEYS)
    assert scores is not None
    assert scores.score is not None
    assert (models.failures("1"), models.failures("2"), models.inference.alerts) == (0, 1, [])


async def test_only_what_the_model_is_slow_at_goes_to_a_thread(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion = models.version("1", constant_score(0.25, features=1))
    await models.serve(rollout.promote(rollout.unscored("fraud"), champion))
    threads: list[int] = []

    async def to_thread(call: Callable[[], Scores]) -> Scores:
        threads.append(1)
        return call()

    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    clock = itertools.chain.from_iterable((0.0, took_ms / 1000) for _, took_ms, _ in CALLS)
    monkeypatch.setattr("streams.inference.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    for place, (rows, _, in_thread) in enumerate(CALLS):
        before = len(threads)
        await models.inference.score(MANY[:rows], KEYS_OF_MANY[:rows])
        assert (len(threads) > before) is in_thread, f"call {place}"
