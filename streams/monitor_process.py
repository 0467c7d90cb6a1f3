"""`weir monitor`: a monitor as a process, with its HTTP endpoint, until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import structlog

from monitors.metrics import Metrics
from streams.embedded import find_embedded
from streams.errors import WeirError
from streams.http import HttpServer
from streams.kafka import BrokerUnavailable, waiting_for
from streams.monitor import Monitor, archive_folder
from streams.pipeline import Pipeline
from streams.settings import Settings

log = structlog.get_logger(__name__)


def run_monitor(pipeline: Pipeline, settings: Settings) -> None:
    """`weir monitor`: until SIGTERM or Ctrl-C."""
    broker = settings.broker
    if settings.embedded_broker:
        running = find_embedded(settings.data_dir)
        if running is None:
            raise WeirError(
                f"no embedded broker of {settings.data_dir} is running; start `weir run`, or set WEIR_BROKER=host:port"
            )
        broker = running.broker
    asyncio.run(_serve(pipeline, settings, broker))


async def _serve(pipeline: Pipeline, settings: Settings, broker: str) -> None:
    metrics = Metrics()
    monitor = Monitor(pipeline, settings, broker, archive_folder(pipeline, settings), metrics=metrics)
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
        ready=lambda: (not waiting, waiting),
        metrics=metrics.render,
        status=lambda: {"pipeline": pipeline.name, "predictions": monitor.predictions},
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
