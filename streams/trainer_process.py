"""`weir trainer`: a trainer as a process, with its HTTP endpoint, until it is told to stop."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
from typing import Any

import structlog

from monitors.metrics import Metrics
from streams.embedded import find_embedded
from streams.errors import UsageError, WeirError
from streams.http import HttpServer
from streams.kafka import BrokerUnavailable, waiting_for
from streams.pipeline import Pipeline
from streams.settings import Settings
from streams.tracing import Tracer
from streams.trainer import Trainer
from streams.training import NO_TORCH

log = structlog.get_logger(__name__)

_RETRY_S = 0.5


def cannot_train(pipeline: Pipeline) -> str:
    """Why this pipeline has no trainer here; empty where it has."""
    if pipeline.retrain is None:
        return f"pipeline {pipeline.name} declares no retrain=Retrain(…)"
    if pipeline.retrain.function is None and importlib.util.find_spec("torch") is None:
        return NO_TORCH
    return ""


def run_trainer(where: str, pipeline: Pipeline, settings: Settings) -> None:
    """`weir trainer`: until SIGTERM or Ctrl-C. where: the pipeline, as on the command line."""
    if reason := cannot_train(pipeline):
        raise UsageError(reason)
    broker = settings.broker
    if settings.embedded_broker:
        running = find_embedded(settings.data_dir)
        if running is None:
            raise WeirError(
                f"no embedded broker of {settings.data_dir} is running; start `weir run`, or set WEIR_BROKER=host:port"
            )
        broker = running.broker
    # a registry that is away is tried again by the trainer, which can be stopped meanwhile
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    asyncio.run(_serve(where, pipeline, settings, broker))


async def _serve(where: str, pipeline: Pipeline, settings: Settings, broker: str) -> None:
    metrics = Metrics()
    tracer = Tracer.from_environment(pipeline.name)
    trainer = Trainer(where, pipeline, settings, broker, metrics=metrics, tracer=tracer)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stopping.set)
    waiting: dict[str, Any] = {"broker": waiting_for(broker)}

    def ready() -> tuple[bool, dict[str, Any]]:
        reasons = {**waiting, **({"trainer": trainer.failing} if trainer.failing else {})}
        return not reasons, reasons

    host, port = settings.http_address
    server = HttpServer(
        host, port, live=dict, ready=ready, metrics=metrics.render, status=lambda: trainer.status
    )  # fmt: skip
    await server.start()
    try:
        while waiting and not stopping.is_set():
            await _try_to_connect(trainer, broker, waiting, stopping)
        while not stopping.is_set():
            await asyncio.to_thread(trainer.poll, 0.1)
    finally:
        await asyncio.to_thread(trainer.close)
        await asyncio.to_thread(tracer.shutdown)
        await server.stop()


async def _try_to_connect(trainer: Trainer, broker: str, waiting: dict[str, Any], stopping: asyncio.Event) -> None:
    before = dict(waiting)
    try:
        reason = await asyncio.to_thread(trainer.connect)
    except (BrokerUnavailable, OSError) as error:
        reason = f"{waiting_for(broker)}: {error}" if isinstance(error, BrokerUnavailable) else str(error)
    if not reason:
        waiting.clear()
        log.info("ready for retrain events")
        return
    waiting["broker"] = reason
    if waiting != before:
        log.warning(reason)
    try:
        await asyncio.wait_for(stopping.wait(), _RETRY_S)
    except TimeoutError:
        return
