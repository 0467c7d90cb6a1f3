"""A small topic, read to its end: what is on it now."""

from __future__ import annotations

import time
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from streams.errors import WeirError
from streams.kafka import Config

_LONGEST_S = 120.0


def read_topic(config: Config, topic: str, partitions: int) -> list[Any]:
    """The committed records of `topic`, by partition and in their order. Raises WeirError where that takes too long.

    config: of a client; partitions: how many the topic has.
    """
    consumer = Consumer(
        {
            **config,
            "group.id": f"{topic}-read",  # never joined, nothing is committed
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 20,
        }
    )
    found: list[list[Any]] = [[] for _ in range(partitions)]
    open_ends = set(range(partitions))
    deadline = time.monotonic() + _LONGEST_S
    try:
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(partitions)])
        while open_ends:
            messages: list[Any] = consumer.consume(1000, 0.5)
            for message in messages:
                error = message.error()
                if error is None:
                    found[message.partition()].append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_ends.discard(message.partition())
            if time.monotonic() > deadline:
                raise WeirError(f"{topic} could not be read to its end in {_LONGEST_S:.0f} s")
    finally:
        consumer.close()
    return [message for partition in found for message in partition]
