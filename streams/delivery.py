"""The two guarantees: how outputs are delivered and offsets committed at a boundary."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog
from confluent_kafka import KafkaException

from streams.intake import Intake
from streams.lane import Position
from streams.outputs import Outputs
from streams.transactions import TransactionalOutputs

log = structlog.get_logger(__name__)

_FLUSH_S = 1.0

Positions = Mapping[tuple[int, int], Position]
"""By (stream, partition)."""


class Delivery(Protocol):
    """A guarantee. What was sent when `commit` is called belongs to `positions`, and outputs are held until it returns,
    or has called `delivered`, which gives those that are still to be committed: not of partitions that went meanwhile.
    """

    async def commit(
        self, positions: Positions, give_up: Callable[[], bool], delivered: Callable[[], Positions]
    ) -> bool:
        """False if it could not be done now: the same positions come again.

        Raises Void where they cannot be committed any more, OutputFailed when the process must end.
        """


class AtLeastOnce:
    """Delivered, then committed: what was delivered and not committed is sent again after a crash."""

    def __init__(self, outputs: Outputs, intake: Intake) -> None:
        self._outputs, self._intake = outputs, intake

    async def commit(
        self, positions: Positions, give_up: Callable[[], bool], delivered: Callable[[], Positions]
    ) -> bool:
        began, said = time.monotonic(), False
        while not await asyncio.to_thread(self._outputs.flush, _FLUSH_S):
            if give_up():
                return False
            if not said:
                said = True
                log.warning("kafka does not take the predictions, waiting")
        if said:
            log.info("kafka takes predictions again", waited_s=round(time.monotonic() - began, 1))
        left = delivered()
        try:
            return await self._intake.commit(left)
        except KafkaException as error:
            log.warning("commit failed, trying again", error=error.args[0].str())
            return False


class ExactlyOnce:
    """Predictions, dead letters and offsets in one transaction."""

    def __init__(self, outputs: TransactionalOutputs, intake: Intake) -> None:
        self._outputs, self._intake = outputs, intake

    async def commit(
        self, positions: Positions, give_up: Callable[[], bool], delivered: Callable[[], Positions]
    ) -> bool:
        offsets, group = await self._intake.offsets_and_group(positions)
        await asyncio.to_thread(self._outputs.commit, offsets, group)
        return True
