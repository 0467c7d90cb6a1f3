"""The online store of a pipeline with remote groups: the reader goes to the store of whoever keeps an entity."""

from __future__ import annotations

import httpx
import numpy as np

from features.engine import FeatureEngine
from features.partitioner import partition_of
from features.redis_store import RedisStore
from features.round import Segment, StreamColumns
from features.store import Group, Meta
from monitors.metrics import Metrics
from streams import Event, Pipeline, Source
from streams.features_http import FeaturesEndpoint
from streams.http import HttpServer
from streams.online import FeatureReader
from streams.parts import Part, parts_of
from tests.redis_server import RedisServer

PARTITIONS = 3
T0 = 1_700_000_000_000


class Payment(Event):
    payment: str
    user: str
    shop: str
    city: str
    ts: int


PAYMENTS = Source("payments", Payment, key="user", id="payment", time="ts")
PIPELINE = Pipeline(
    "fraud",
    score=PAYMENTS,
    features=[
        PAYMENTS.by("user").count("1h"),
        PAYMENTS.by("shop").count("1h"),
        PAYMENTS.by("shop", "city", exact=True).count("1h"),
    ],
    model="fraud",
)
SENT = [("ann", "s1", "Bern"), ("ann", "s2", "Bern"), ("bob", "s1", "Chur")]


async def keep(part: Part, store: RedisStore) -> None:
    """What the workers of a part keep of SENT, one event a second."""
    spec = part.pipeline.spec
    (kind,) = spec.entities
    fields = ("user", "shop", "city")
    for partition in range(PARTITIONS):
        epoch, _ = await store.claim(partition, PARTITIONS)
        engine = FeatureEngine(spec, store)
        groups = {kind.number: Group(kind.hash, epoch) for kind in engine.layout.kinds}
        meta = Meta(epoch, epoch, spec.state_hash, (0,), groups=groups)
        await store.begin(partition, meta)
        engine.own(partition, meta, empty=True)
        mine = []
        for second, event in enumerate(SENT):
            key = "\x1f".join(event[fields.index(field)] for field in kind).encode()
            if partition_of(key, PARTITIONS, "crc32") == partition:
                mine.append((second, *event))
        n, (seconds, *columns) = len(mine), [list(column) for column in zip(*mine, strict=True)] or [[]] * 4
        times = T0 + 1000 * np.array(seconds, dtype=np.int64)
        of_fields = dict(zip(fields, columns, strict=True))
        round = (StreamColumns(0, (Segment(partition, 0, n),), np.arange(n), times, of_fields),)
        await engine.load(round)
        engine.fold(round)
        for copy in engine.snapshot({partition: (n,)}):
            await store.write(partition, copy.follows, copy.vector, copy.rows())


async def test_entities_of_every_group_are_found_and_read_in_its_own_store(redis_server: RedisServer) -> None:
    for part in parts_of(PIPELINE):
        store = RedisStore(redis_server.url, part.pipeline.name)
        await keep(part, store)
        await store.close()
    async with FeatureReader(PIPELINE, redis_server.url) as reader:
        found = {tuple(some[0]): some for some in await reader.some_entities()}
        assert found.keys() == {("user",), ("shop",), ("shop", "city")}
        read = {}
        for fields, some in found.items():
            readings = await reader.read(some, at=T0 + 60_000)
            (name,) = readings.names
            read[name] = {tuple(e.values()): value for e, (value,) in zip(some, readings.values.tolist(), strict=True)}
            assert len(fields) == len(some[0])
    assert read == {
        "user_count_1h": {("ann",): 2, ("bob",): 1},
        "shop_count_1h": {("s1",): 2, ("s2",): 1},
        "shop_city_count_1h": {("s1", "Bern"): 1, ("s2", "Bern"): 1, ("s1", "Chur"): 1},
    }


async def test_a_server_has_the_features_of_remote_groups_once_a_worker_of_each_has_begun(
    redis_server: RedisServer,
) -> None:
    async with FeatureReader(PIPELINE, redis_server.url) as reader:
        endpoint = FeaturesEndpoint(reader.readers, Metrics(), pipeline=PIPELINE.name, most=10)
        waits = []
        for part in parts_of(PIPELINE):
            await endpoint.look()
            waits.append(endpoint.ready())
            store = RedisStore(redis_server.url, part.pipeline.name)
            await keep(part, store)
            await store.close()
        await endpoint.look()
        assert endpoint.ready() == (True, {})
        answers = []
        server = HttpServer(
            "127.0.0.1", 0, live=dict, ready=endpoint.ready, metrics=str, status=dict, routes=endpoint.routes
        )
        await server.start()
        async with httpx.AsyncClient() as client:
            for entity in ({"user": "ann"}, {"shop": "s1"}, {"city": "Bern", "shop": "s1"}, {"city": "Bern"}):
                asked = {"entities": [entity], "at": T0 + 60_000}
                answers.append(await client.post(f"{server.url}/features", json=asked, timeout=30))
        await server.stop()
    assert [ready for ready, _ in waits] == [False] * 3
    waited_for = [why["features"].partition(":")[0] for _, why in waits[1:]]
    assert waited_for == ["remote group shop_city", "remote group shop"]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 422]
    assert [answer.json()["results"][0]["values"] for answer in answers[:3]] == [
        {"user_count_1h": 2.0},
        {"shop_count_1h": 2.0},
        {"shop_city_count_1h": 1.0},
    ]
    assert reader.readers.features == ["user_count_1h", "shop_city_count_1h", "shop_count_1h"]
