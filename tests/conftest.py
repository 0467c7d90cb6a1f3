"""Servers for tests: each is started when the first test asks for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from loadtest.kafka import KafkaCluster
from tests.redis_server import RedisServer

# How fast a machine makes inputs says nothing about what is tested.
settings.register_profile("weir", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("weir")

_LONG = ("faults", "integration", "parity", "loadtest", "examples")
"""Folders of tests that start processes and wait for them."""
LONG_S = 300
"""How long one of these may take: the processes of three tests share a machine, which may have two cores."""


def pytest_configure(config: pytest.Config) -> None:
    """Compiles the kernels, where tests run side by side: without it each of the first processes does, all at once, and
    the first workers are not there for a minute.
    """
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        subprocess.run([sys.executable, "-m", "tests.kernels"], check=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first: whatever file comes last has a process to itself, while the others have nothing to do."""
    folders = [*_LONG, *sorted({folder_of(item) for item in items} - set(_LONG))]
    items.sort(key=lambda item: folders.index(folder_of(item)))
    for item in items:
        if folder_of(item) in _LONG and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(LONG_S))


def folder_of(item: pytest.Item) -> str:
    """The folder of tests/ that a test is in; a file's name where it is in none."""
    return item.path.relative_to(Path(__file__).parent).parts[0]


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
