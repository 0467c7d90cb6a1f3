"""Servers for tests: each is started when the first test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from loadtest.kafka import KafkaCluster
from tests.redis_server import RedisServer

# How fast a machine makes inputs says nothing about what is tested.
settings.register_profile("weir", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("weir")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """One real broker for the session: a test takes topics and groups of its own, and leaves it running."""
    with KafkaCluster(tmp_path_factory.mktemp("kafka")) as cluster:
        yield cluster


@pytest.fixture
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A real redis-server, empty, for one test."""
    with RedisServer("redis", tmp_path_factory.mktemp("redis")) as server:
        yield server
