"""`weir features serve`: online features over HTTP, as a process that needs Redis alone."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import structlog

from features.read_plan import readable
from features.store import StoreMisconfigured
from monitors.metrics import Metrics
from streams.errors import UsageError
from streams.features_http import FeaturesEndpoint
from streams.http import HttpServer
from streams.online import FeatureReader
from streams.parts import parts_of
from streams.pipeline import Pipeline
from streams.settings import Settings

log = structlog.get_logger(__name__)

_LOOK_S = 1.0


def run_features(pipeline: Pipeline, settings: Settings, *, most: int) -> None:
    """Serves until SIGTERM or Ctrl-C. most: entities of one request."""
    if not any(readable(part.pipeline.spec) for part in parts_of(pipeline)):
        raise UsageError(f"pipeline {pipeline.name} has no features of entities to serve")
    try:
        asyncio.run(_serve(pipeline, settings, most))
    except StoreMisconfigured as error:
        raise UsageError(str(error)) from error


async def _serve(pipeline: Pipeline, settings: Settings, most: int) -> None:
    metrics = Metrics()
    host, port = settings.http_address
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stopping.set)
    async with FeatureReader(pipeline) as reader:
        endpoint = FeaturesEndpoint(reader.readers, metrics, pipeline=pipeline.name, most=most)
        server = HttpServer(
            host,
            port,
            live=dict,
            ready=endpoint.ready,
            metrics=metrics.render,
            status=lambda: _status(pipeline, reader, endpoint),
            routes=endpoint.routes,
        )
        await server.start()
        log.info("serving features", url=f"{server.url}/features", ready=f"{server.url}/health/ready")
        try:
            was: tuple[bool, dict[str, Any]] | None = None
            while not stopping.is_set():
                await endpoint.look()
                if (now := endpoint.ready()) != was:
                    (log.info if now[0] else log.warning)("ready" if now[0] else "not ready", **now[1])
                    was = now
                try:
                    await asyncio.wait_for(stopping.wait(), _LOOK_S)
                except TimeoutError:
                    continue
        finally:
            await server.stop()


def _status(pipeline: Pipeline, reader: FeatureReader, endpoint: FeaturesEndpoint) -> dict[str, Any]:
    return {
        "pipeline": pipeline.name,
        "role": "features",
        "features": reader.readers.features,
        "partitions": reader.readers.own.partitions,
        "waiting": endpoint.ready()[1],
    }
