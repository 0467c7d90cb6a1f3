"""The locust file runs as it is documented, against a real feature server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from examples.payments.pipeline import pipeline
from features.redis_store import RedisStore
from features.store import Meta
from tests.integration.worker import ROOT, Servers, Worker
from tests.redis_server import RedisServer

LOCUSTFILE = ROOT / "loadtest" / "locustfile.py"


@pytest.mark.slow
async def test_users_of_the_feature_server_are_answered(redis_server: RedisServer, tmp_path: Path) -> None:
    store = RedisStore(redis_server.url, pipeline.name)
    for partition in range(4):
        epoch, _ = await store.claim(partition, 4)
        await store.begin(partition, Meta(epoch, epoch, pipeline.spec.state_hash, (0,)))
    await store.close()
    servers = Servers("", redis_server.url, tmp_path, {"WEIR_REDIS": redis_server.url})
    with Worker(ROOT / "examples/payments/pipeline.py", servers, role="features serve") as server:
        server.wait_for(lambda: server.get("/health/ready")[0] == 200, 60)
        options = ["FeaturesUser", "--headless", "-u", "2", "-r", "2", "-t", "6s", "--json", "--entities", "7"]
        done = subprocess.run(  # noqa: ASYNC221 (nothing else runs here)
            [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), *options, "--host", server.url],
            capture_output=True,
            text=True,
            timeout=90,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        asked = server.metric("weir_feature_entities_total")
    assert done.returncode == 0, done.stderr[-2000:]
    (stats,) = json.loads(done.stdout)
    assert (stats["name"], stats["num_failures"]) == ("/features", 0)
    assert 0 < 7 * stats["num_requests"] <= asked
