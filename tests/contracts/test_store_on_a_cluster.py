"""What befalls a store because a cluster is behind it: slots move, primaries die, nodes are away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from features.redis_store import RedisStore
from features.store import RowKey, StoreMisconfigured, StoreUnavailable
from tests.contracts.conftest import ServerBacking
from tests.contracts.test_store import KEYS, begun, rows
from tests.redis_cluster import Cluster
from tests.redis_server import RedisServer


@pytest_asyncio.fixture
async def moving(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerBacking]:
    """Three primaries, this test's alone."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        found = ServerBacking(cluster)
        yield found
        await found.close()


async def test_partitions_are_on_all_nodes_and_read_in_one_call(moving: ServerBacking) -> None:
    store, cluster = moving.store(), moving.server
    assert isinstance(cluster, Cluster)
    metas = {p: await begun(store, p) for p in range(8)}
    for p, meta in metas.items():
        metas[p] = await store.write(p, meta, (1, p), rows(meta, KEYS, p))
    assert await store.load(dict.fromkeys(metas, KEYS), metas) == {
        p: [value for _, value in rows(metas[p], KEYS, p, vector=(0, 0))] for p in metas
    }
    homes = {cluster.node_of(f"weir:{{{moving.pipeline}:{p}}}:meta".encode()).port for p in metas}
    assert homes == {node.port for node in cluster.nodes}
    assert {where.rpartition(":")[2] for where in await store.servers()} == {str(port) for port in homes}


async def test_a_partition_whose_slot_moves_is_followed(moving: ServerBacking) -> None:
    store, cluster = moving.store(), moving.server
    assert isinstance(cluster, Cluster)
    meta = await begun(store)
    meta = await store.write(0, meta, (1, 0), written := rows(meta, KEYS, 1.0))
    key = f"weir:{{{moving.pipeline}:0}}:meta".encode()
    cluster.move(key, next(node for node in cluster.nodes if node is not cluster.node_of(key)))
    assert await store.load({0: KEYS}, {0: meta}) == {0: [value for _, value in written]}
    meta = await store.write(0, meta, (2, 0), written := rows(meta, KEYS, 2.0))
    assert await moving.store().read({0: KEYS}) == {0: (meta, [value for _, value in written])}


async def test_a_partition_in_the_middle_of_a_move_is_whole_or_unavailable(moving: ServerBacking) -> None:
    store, cluster = moving.store(), moving.server
    assert isinstance(cluster, Cluster)
    meta = await begun(store)
    keys = [RowKey(0, f"user-{n}") for n in range(50)]
    meta = await store.write(0, meta, (1, 0), written := rows(meta, keys, 1.0))
    key = f"weir:{{{moving.pipeline}:0}}:meta".encode()
    source = cluster.node_of(key)
    target = next(node for node in cluster.nodes if node is not source)
    half = [k for k in cluster.all_keys() if b":row:" in k][:25]
    cluster.begin_move(key, source, target, half)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await store.load({0: keys}, {0: meta})
    cluster.end_move(key, source, target)
    assert await store.load({0: keys}, {0: meta}) == {0: [value for _, value in written]}


async def test_a_primary_that_dies_is_unavailable_until_its_replica_has_its_place(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with Cluster(tmp_path_factory.mktemp("cluster"), replicas=True) as cluster:
        store = RedisStore(cluster.urls, "fraud")
        meta = await begun(store)
        meta = await store.write(0, meta, (1, 0), written := rows(meta, KEYS, 1.0))
        node = cluster.node_of(b"weir:{fraud:0}:meta")
        with node.admin() as admin:
            assert admin.wait(1, 10_000) == 1
        node.kill()
        with pytest.raises(StoreUnavailable):
            await store.write(0, meta, (2, 0), written)
        deadline = time.monotonic() + 60
        while True:
            try:
                found = await store.load({0: KEYS}, {0: meta})
                break
            except StoreUnavailable:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
        assert found == {0: [value for _, value in written]}
        moved = await store.write(0, meta, (2, 0), [])  # the functions came with the replica
        assert moved.vector == (2, 0)
        await store.close()


async def test_one_node_that_answers_is_enough_to_find_the_cluster(moving: ServerBacking) -> None:
    assert isinstance(moving.server, Cluster)
    store = RedisStore(f"redis://127.0.0.1:1,{moving.server.nodes[2].url.removeprefix('redis://')}", "fraud")
    await begun(store)
    await store.close()
    away = RedisStore("redis://127.0.0.1:1,127.0.0.1:2", "fraud")
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1,127\.0\.0\.1:2"):
        await away.claim(0)
    await away.close()


async def test_a_database_of_a_cluster_and_several_addresses_of_one_server_are_refused(
    moving: ServerBacking, redis_server: RedisServer
) -> None:
    numbered = RedisStore(f"{moving.server.url}/3", "fraud")
    with pytest.raises(StoreMisconfigured, match="has one database"):
        await numbered.claim(0)
    await numbered.close()
    several = RedisStore(f"{redis_server.url},127.0.0.1:1", "fraud")
    with pytest.raises(StoreMisconfigured, match="is no cluster but a standalone server: give its address alone"):
        await several.claim(0)
    await several.close()
