"""Implementations of the store, each with the means to do to it what happens to servers."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from copy import deepcopy
from functools import cache
from typing import Any, Protocol

import pytest
import pytest_asyncio

from features.memory_store import MemoryStore
from features.redis_store import RedisStore
from features.store import Store
from tests.redis_cluster import Cluster
from tests.redis_server import KINDS, RedisServer

SHARED = (*KINDS, "cluster")


class Backing(Protocol):
    """What several stores (workers) share."""

    def store(self) -> Store:
        """Another worker's store on the same data."""

    def wipe(self) -> None: ...

    def snapshot(self) -> Any: ...

    def restore(self, snapshot: Any) -> None: ...

    async def close(self) -> None: ...


class MemoryBacking:
    def __init__(self) -> None:
        self._store = MemoryStore()

    def store(self) -> Store:
        return self._store

    def wipe(self) -> None:
        self._store._partitions.clear()

    def snapshot(self) -> Any:
        return deepcopy(self._store._partitions)

    def restore(self, snapshot: Any) -> None:
        self._store._partitions = snapshot

    async def close(self) -> None: ...


class ServerBacking:
    def __init__(self, server: RedisServer | Cluster) -> None:
        self.server = server
        self.pipeline = f"fraud-{uuid.uuid4().hex[:8]}"
        self._stores: list[Store] = []

    def store(self, **options: Any) -> RedisStore:
        patient = {"connect_timeout_s": 10.0, "command_timeout_s": 10.0}
        store = RedisStore(self.server.url, self.pipeline, **{**patient, **options})
        self._stores.append(store)
        return store

    def wipe(self) -> None:
        with self.server.admin() as admin:
            admin.flushall()

    def snapshot(self) -> Any:
        with self.server.admin() as admin:
            return {key: admin.dump(key) for key in self.server.all_keys()}

    def restore(self, snapshot: Any) -> None:
        self.wipe()
        with self.server.admin() as admin:
            for key, value in snapshot.items():
                admin.restore(key, 0, value)

    async def close(self) -> None:
        for store in self._stores:
            await store.close()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], RedisServer | Cluster]]:
    """The server of a kind, which all tests share; each test has a pipeline of its own."""
    with ExitStack() as running:

        @cache
        def server(kind: str) -> RedisServer | Cluster:
            folder = tmp_path_factory.mktemp(kind)
            return running.enter_context(Cluster(folder) if kind == "cluster" else RedisServer(kind, folder))

        yield server


@pytest_asyncio.fixture(params=["memory", *SHARED])
async def backing(
    request: pytest.FixtureRequest, servers: Callable[[str], RedisServer | Cluster]
) -> AsyncIterator[MemoryBacking | ServerBacking]:
    """Every implementation."""
    found = MemoryBacking() if request.param == "memory" else ServerBacking(servers(request.param))
    yield found
    await found.close()


@pytest_asyncio.fixture(params=SHARED)
async def shared(
    request: pytest.FixtureRequest, servers: Callable[[str], RedisServer | Cluster]
) -> AsyncIterator[ServerBacking]:
    """Every server, shared with other tests."""
    found = ServerBacking(servers(request.param))
    yield found
    await found.close()


@pytest_asyncio.fixture(params=KINDS)
async def own(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerBacking]:
    """Every server, this test's alone: to be killed, paused or given passwords."""
    with RedisServer(request.param, tmp_path_factory.mktemp(request.param)) as running:
        found = ServerBacking(running)
        yield found
        await found.close()
