"""Faust's part of a worker: one agent, which takes polls from a bounded channel, one after the other.

To import Faust takes a good part of a worker's start: the worker does it in a thread, while it waits for Kafka.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import faust
from faust.app.base import BootStrategy as FaustBoot

from streams.batches import Poll, Waiting

_CHANNEL = 16
"""More than the intake may have in hand, so that a put never waits."""


class App(faust.App):
    """Faust runs the agents; Kafka is the intake's."""

    logger = logging.getLogger("faust.app")  # else its news come under this module's name

    class BootStrategy(FaustBoot):
        enable_kafka = False
        enable_web = False


class Agent:
    """Awaits `work` with what has been delivered, up to `most` records at once. `work` raises nothing. To be made in
    the event loop.
    """

    def __init__(self, name: str, datadir: Path, work: Callable[[Poll], Awaitable[None]], most: int) -> None:
        self._work, self._waiting = work, Waiting(most)
        self._app = App(name, broker="kafka://unused", datadir=datadir)
        self._polls: Any = self._app.channel(maxsize=_CHANNEL)
        self._puts: set[asyncio.Future[Any]] = set()
        self._app.agent(self._polls)(self._run)

    async def start(self) -> None:
        self._app.finalize()
        await self._app.start()
        self._app.flow_control.resume()

    async def stop(self) -> None:
        await self._app.stop()

    def deliver(self, poll: Poll) -> None:
        if self._waiting.takes_in(poll):
            return
        self._puts.add(put := asyncio.ensure_future(self._polls.put(poll)))
        put.add_done_callback(self._puts.discard)

    async def _run(self, polls: Any) -> None:
        async for poll in polls:
            self._waiting.taken(poll)
            await self._work(poll)
