"""POST /features over real sockets, with a real Redis behind it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from examples.payments.pipeline import pipeline
from features.reader import StateReader
from features.redis_store import RedisStore
from monitors.metrics import Metrics
from streams.entity_readers import EntityReaders
from streams.features_http import BODY_BYTES, FeaturesEndpoint, Refusal, parse
from streams.http import HttpServer
from tests.redis_server import RedisServer
from tests.streams.stored import store_payments

T = 1_745_600_400_000


class Served:
    """A feature server of the payments example, whose state a worker's engine has written."""

    def __init__(self, redis: RedisServer) -> None:
        self.redis = redis
        self.store = RedisStore(redis.url, pipeline.name, command_timeout_s=0.5)
        self.metrics = Metrics()
        self.clock_s = 0.0
        reader = StateReader(pipeline.spec, self.store, key="user_id", now_ms=lambda: T)
        self.endpoint = FeaturesEndpoint(
            EntityReaders(reader, {}), self.metrics, pipeline=pipeline.name, most=50, monotonic_s=lambda: self.clock_s
        )
        self.server = HttpServer(
            "127.0.0.1",
            0,
            live=dict,
            ready=self.endpoint.ready,
            metrics=self.metrics.render,
            status=dict,
            routes=self.endpoint.routes,
        )

    async def write(self, users: list[str], amounts: list[float], *, state_hash: str = "") -> None:
        """Payments a minute before T, as a worker would keep them."""
        patient = RedisStore(self.redis.url, pipeline.name, command_timeout_s=30.0)
        await store_payments(patient, users, amounts, T - 60_000, state_hash=state_hash)
        await patient.close()

    async def post(self, body: Any) -> tuple[int, Any]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"{self.server.url}/features", content=content, timeout=30)
        assert answer.headers["content-type"] == "application/json"
        return answer.status_code, answer.json()

    async def get(self, path: str) -> tuple[int, Any]:
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{self.server.url}{path}", timeout=30)
        return answer.status_code, answer.json()


@pytest_asyncio.fixture
async def served(redis_server: RedisServer) -> AsyncIterator[Served]:
    found = Served(redis_server)
    await found.server.start()
    try:
        yield found
    finally:
        await found.server.stop()
        await found.store.close()


async def test_a_batch_is_answered_with_values_states_and_ages(served: Served) -> None:
    await served.write(["ann", "ann", "bob"], [10.0, 30.0, 5.0])
    names = ["user_id_mean_amount_1h", "user_id_count_24h"]
    asked = {"entities": [{"user_id": "ann"}, {"user_id": "eve"}], "features": names, "at": T}
    status, found = await served.post(asked)
    assert status == 200
    ages = [one.pop("checkpoint_age_s") for one in found["results"]]
    assert all(0 <= age < 60 for age in ages)
    assert found == {
        "pipeline": "payments",
        "at": T,
        "results": [
            {
                "entity": {"user_id": "ann"},
                "values": {"user_id_mean_amount_1h": 20.0, "user_id_count_24h": 2.0},
                "states": dict.fromkeys(names, "present"),
                "age_s": {"user_id": 60.0},
            },
            {
                "entity": {"user_id": "eve"},
                "values": {"user_id_mean_amount_1h": None, "user_id_count_24h": 0.0},
                "states": dict.fromkeys(names, "missing"),
                "age_s": {"user_id": None},
            },
        ],
    }
    everything = (await served.post({"entities": [{"user_id": "bob"}]}))[1]["results"][0]
    assert list(everything["values"]) == [a.name for a in pipeline.spec.aggregates]
    assert everything["values"]["user_id_since_last"] == 60.0
    later = (await served.post({"entities": [{"user_id": "bob"}], "at": T + 3_600_000}))[1]["results"][0]
    assert (later["values"]["user_id_count_1h"], later["states"]["user_id_count_1h"]) == (0.0, "expired")
    assert served.metrics.value("weir_feature_requests_total", status=200) == 3
    assert served.metrics.value("weir_feature_entities_total") == 4
    assert served.metrics.value("weir_feature_values_total", state="missing") == 2
    assert served.metrics.value("weir_feature_request_seconds") == 3


@pytest.mark.parametrize(
    ("body", "status", "field", "said"),
    [
        (b"{", 400, "", "is no JSON"),
        (b"\xff\xfe", 400, "", "is no JSON"),
        ([], 400, "", "no JSON object"),
        ({}, 422, "entities", "list of one entity"),
        ({"entities": {}}, 422, "entities", "list of one entity"),
        ({"entities": []}, 422, "entities", "list of one entity"),
        ({"entities": [{"user_id": "a"}], "feature": ["x"]}, 422, "feature", "not a field"),
        ({"entities": ["ann"]}, 422, "entities[0]", "must be an object"),
        ({"entities": [{"user_id": "a"}, {"user_id": None}]}, 422, "entities[1].user_id", "null names no entity"),
        ({"entities": [{"user_id": {"a": 1}}]}, 422, "entities[0].user_id", "dict names no entity"),
        ({"entities": [{"merchant": "m"}]}, 422, "field merchant", "no feature is grouped by it"),
        ({"entities": [{}]}, 422, "", "give the fields"),
        ({"entities": [{"user_id": "a"}], "features": ["amount"]}, 422, "features[0]", "only when an event comes"),
        ({"entities": [{"user_id": "a"}], "features": []}, 422, "features", "list of names"),
        ({"entities": [{"user_id": "a"}], "features": [1]}, 422, "features", "list of names"),
        ({"entities": [{"user_id": "a"}], "at": "now"}, 422, "at", "whole ms"),
        ({"entities": [{"user_id": "a"}], "at": 1.5}, 422, "at", "whole ms"),
        ({"entities": [{"user_id": "a"}], "at": True}, 422, "at", "whole ms"),
        ({"entities": [{"user_id": "a"}], "at": 2**62}, 422, "at", "is no time"),
        ({"entities": [{"user_id": "a"}] * 51}, 413, "entities", "51 entities are too many"),
        (b'{"entities": ["' + b"x" * BODY_BYTES + b'"]}', 413, "", "is longer than"),
    ],
)
async def test_a_request_that_cannot_be_answered_names_the_place_and_the_mend(
    served: Served, body: Any, status: int, field: str, said: str
) -> None:
    await served.write([], [])
    found = await served.post(body)
    assert found[0] == status
    error = found[1]["error"]
    assert (error["field"], said in error["message"]) == (field, True), error
    assert served.metrics.value("weir_feature_requests_total", status=status) == 1


async def test_until_a_worker_has_begun_the_server_is_not_ready(served: Served) -> None:
    await served.endpoint.look()
    assert (await served.get("/health/ready"))[0] == 503
    status, found = await served.post({"entities": [{"user_id": "ann"}]})
    assert (status, "start one" in found["error"]["message"]) == (503, True)
    await served.write([], [])
    await served.endpoint.look()
    assert await served.get("/health/ready") == (200, {"ready": True, "reasons": {}})
    assert (await served.get("/health/live"))[0] == 200


async def test_the_state_of_other_features_is_not_served(served: Served) -> None:
    await served.write([], [], state_hash="0123456789abcdef")
    status, found = await served.post({"entities": [{"user_id": "ann"}]})
    assert (status, "0123456789abcdef" in found["error"]["message"]) == (503, True)
    await served.endpoint.look()
    assert (await served.get("/health/ready"))[1]["reasons"].keys() == {"features"}


async def test_while_redis_is_away_the_answer_is_503_at_once_and_comes_back_with_it(served: Served) -> None:
    await served.write(["ann"], [1.0])
    assert (await served.post({"entities": [{"user_id": "ann"}]}))[0] == 200
    served.redis.kill()
    status, found = await served.post({"entities": [{"user_id": "ann"}]})
    assert (status, str(served.redis.port) in found["error"]["message"]) == (503, True)
    served.redis.start()
    await served.write(["ann"], [1.0])
    status, found = await served.post({"entities": [{"user_id": "ann"}]})
    assert (status, str(served.redis.port) in found["error"]["message"]) == (503, True)  # it is not asked
    assert (await served.get("/health/ready"))[0] == 503
    served.clock_s = 1.0
    await served.endpoint.look()
    assert (await served.get("/health/ready"))[0] == 200
    assert (await served.post({"entities": [{"user_id": "ann"}]}))[0] == 200


async def test_a_redis_that_stands_still_costs_the_timeout_once(served: Served) -> None:
    await served.write(["ann"], [1.0])
    served.redis.pause()
    try:
        assert (await served.post({"entities": [{"user_id": "ann"}]}))[0] == 503
        asked = served.store._redis._running.copy()
        assert (await served.post({"entities": [{"user_id": "ann"}]}))[0] == 503
        assert served.store._redis._running <= asked
    finally:
        served.redis.resume()


def test_numbers_and_texts_name_entities() -> None:
    question = parse(b'{"entities": [{"user_id": 7}, {"user_id": "7"}], "features": null, "at": null}', 2)
    assert question == ([{"user_id": 7}, {"user_id": "7"}], None, None)
    with pytest.raises(Refusal, match="3 entities"):
        parse(b'{"entities": [{}, {}, {}]}', 2)
