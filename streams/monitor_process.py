"""`weir monitor`: a monitor as a process, with its HTTP endpoint, until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import signal
from typing import Any

import structlog

from monitors.join_store import JoinStoreAway
from monitors.metrics import Metrics
from streams.embedded import find_embedded
from streams.errors import WeirError
from streams.http import HttpServer
from streams.kafka import BrokerUnavailable, waiting_for
from streams.monitor import Monitor, archive_folder
from streams.pipeline import Pipeline
from streams.schemas.registry import RegistryAway
from streams.settings import Settings

log = structlog.get_logger(__name__)


def run_monitor(pipeline: Pipeline, settings: Settings) -> None:
    """`weir monitor`: until SIGTERM or Ctrl-C."""
    broker, redis_url = settings.broker, settings.redis
    if settings.embedded_broker or settings.embedded_redis:
        running = find_embedded(settings.data_dir)
        if running is None:
            raise WeirError(
                f"no embedded servers of {settings.data_dir} are running; start `weir run`, or set "
                "WEIR_BROKER=host:port and WEIR_REDIS=redis://host:port"
            )
        broker = running.broker if settings.embedded_broker else broker
        redis_url = running.redis_url if settings.embedded_redis else redis_url
    asyncio.run(_serve(pipeline, settings, broker, redis_url))


async def _serve(pipeline: Pipeline, settings: Settings, broker: str, redis_url: str) -> None:
    # What waits for its label is millions of objects without cycles, which the collector would walk over and over.
    gc.set_threshold(100_000, 50, 1000)
    metrics = Metrics()
    folder = archive_folder(pipeline, settings)
    monitor = Monitor(pipeline, settings, broker, redis_url, folder, metrics=metrics)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stopping.set)
    waiting: dict[str, Any] = {"broker": waiting_for(broker)}
    host, port = settings.http_address
    server = HttpServer(
        host,
        port,
        live=dict,
        ready=lambda: _ready(monitor, waiting),
        metrics=metrics.render,
        status=lambda: _status(pipeline, monitor, waiting),
    )
    await server.start()
    try:
        while waiting and not stopping.is_set():
            await _try_to_connect(monitor, broker, waiting, stopping)
        while not stopping.is_set():
            await asyncio.to_thread(monitor.poll, 0.1)
        if not waiting:
            await asyncio.to_thread(monitor.close)
    finally:
        await server.stop()


def _ready(monitor: Monitor, waiting: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
    reasons = waiting or ({"held": monitor.held} if monitor.held else {})
    return not reasons, reasons


def _status(pipeline: Pipeline, monitor: Monitor, waiting: dict[str, Any]) -> dict[str, Any]:
    last = None if waiting else monitor.last_block
    return {
        "pipeline": pipeline.name,
        "role": "monitor",
        "predictions": monitor.predictions,
        "held": monitor.held,
        "block": None if last is None else {"id": last.id, "end": last.end},
    }


async def _try_to_connect(
    monitor: Monitor, broker: str, waiting: dict[str, Any], stopping: asyncio.Event
) -> None:
    before = dict(waiting)
    try:
        connected = await asyncio.to_thread(monitor.connect)
        waiting["broker"] = "the pipeline's topics do not exist yet"
    except BrokerUnavailable as error:
        connected = False
        waiting["broker"] = f"{waiting_for(broker)}: {error}"
    except JoinStoreAway as error:
        connected = False
        waiting["broker"] = f"waiting for the label join's state: {error}"
    except RegistryAway as error:
        connected = False
        waiting["broker"] = f"waiting for the labels' schemas: {error}"
    if connected:
        waiting.clear()
        log.info("monitoring")
        return
    if waiting != before:
        log.warning(waiting["broker"])
    try:
        await asyncio.wait_for(stopping.wait(), 0.5)
    except TimeoutError:
        return
