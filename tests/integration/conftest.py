"""The servers of a pipeline, embedded and real; each test names its pipeline, so that runs do not meet."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.kafka import KafkaCluster
from streams.embedded import start_embedded
from tests.integration.worker import Servers
from tests.redis_server import RedisServer


@pytest.fixture
def name() -> str:
    """A pipeline's name that no other test has."""
    return f"p{uuid.uuid4().hex[:8]}"


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Servers]:
    """The embedded pair, owned by the test: it outlives the workers."""
    folder = tmp_path / "data"
    with start_embedded(folder) as pair:
        yield Servers(pair.broker, pair.redis_url, folder)


@pytest.fixture
def real(kafka: KafkaCluster, redis_server: RedisServer, tmp_path: Path) -> Servers:
    """A real Kafka and a redis-server."""
    folder = tmp_path / "data"
    folder.mkdir()
    settings = {"WEIR_BROKER": kafka.address, "WEIR_REDIS": redis_server.url}
    return Servers(kafka.address, redis_server.url, folder, settings)
