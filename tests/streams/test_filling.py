"""What a fill asks Kafka; what it sends is shown on a real one (tests/integration/test_fill.py)."""

from __future__ import annotations

from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streams.filling import edges


class Asked:
    """Of a consumer, what answers about a partition: each error once, then (3, 7)."""

    def __init__(self, *errors: int) -> None:
        self._errors = list(errors)
        self.times = 0

    def get_watermark_offsets(self, _: TopicPartition, *, timeout: float) -> tuple[int, int]:
        assert timeout > 0
        self.times += 1
        if self._errors:
            raise KafkaException(KafkaError(self._errors.pop(0)))
        return 3, 7


async def test_a_topic_that_was_made_a_moment_ago_is_asked_about_until_its_leader_answers() -> None:
    asked = Asked(KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
    assert await edges(cast("Consumer", cast("Any", asked)), "topic", 0) == (3, 7)
    assert asked.times == 3


async def test_what_no_other_try_mends_is_said_at_once() -> None:
    asked = Asked(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
        await edges(cast("Consumer", cast("Any", asked)), "topic", 0)
    assert asked.times == 1
