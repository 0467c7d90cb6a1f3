"""The two guarantees: when sending may go on, and what is committed then."""

from __future__ import annotations

from typing import Any, cast

from streams.delivery import AtLeastOnce, ExactlyOnce, Positions
from streams.intake import Intake
from streams.lane import Position
from streams.outputs import Outputs
from streams.transactions import TransactionalOutputs

POSITIONS: dict[tuple[int, int], Position] = {(0, 0): Position(5), (0, 1): Position(7)}
LEFT = {(0, 0): Position(5)}
"""When all is delivered: the other partition has gone."""


class Kafka:
    """Outputs and intake in one, which note in which order they are asked for what. left: flushes that are not done."""

    def __init__(self, left: int = 0) -> None:
        self.asked: list[str] = []
        self.left = left
        self.committed: Positions = {}

    def flush(self, timeout_s: float) -> bool:
        self.asked.append("flush")
        self.left -= 1
        return self.left < 0

    async def offsets_and_group(self, positions: Positions) -> tuple[list[Any], Any]:
        return [], None

    def delivered(self) -> Positions:
        self.asked.append("delivered")
        return LEFT


class Waits(Kafka):
    async def commit(self, positions: Positions) -> bool:
        self.asked.append("commit")
        self.committed = positions
        return True


class Transacts(Kafka):
    def commit(self, offsets: list[Any], group: Any) -> None:
        self.asked.append("commit")


def at_least_once(kafka: Kafka) -> AtLeastOnce:
    return AtLeastOnce(cast(Outputs, kafka), cast(Intake, kafka))


async def test_at_least_once_sending_goes_on_when_all_is_delivered_and_before_the_commit() -> None:
    kafka = Waits(left=2)
    assert await at_least_once(kafka).commit(POSITIONS, lambda: False, kafka.delivered)
    assert kafka.asked == ["flush", "flush", "flush", "delivered", "commit"]
    assert kafka.committed == LEFT


async def test_what_cannot_be_delivered_is_not_committed_by_who_gives_up() -> None:
    kafka = Waits(left=9)
    assert not await at_least_once(kafka).commit(POSITIONS, lambda: True, kafka.delivered)
    assert kafka.asked == ["flush"]


async def test_exactly_once_nothing_is_sent_before_the_transaction_has_ended() -> None:
    kafka = Transacts()
    delivery = ExactlyOnce(cast(TransactionalOutputs, kafka), cast(Intake, kafka))
    assert await delivery.commit(POSITIONS, lambda: False, kafka.delivered)
    assert kafka.asked == ["commit"]
