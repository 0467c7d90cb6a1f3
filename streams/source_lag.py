"""Whether events wait for a worker: then their predictions are still to come, however quiet their topic is."""

from __future__ import annotations

import time

from confluent_kafka import Consumer, KafkaException, TopicPartition

from streams.kafka import Config

_ASK_S = 2.0
_KNOWN_S = 1.0


class SourceLag:
    """Asks Kafka what the workers' group has committed of `topic`, at most once a second for each partition.

    config: of a consumer in that group; it never joins.
    """

    def __init__(self, config: Config, topic: str) -> None:
        self._consumer = Consumer(config)
        self._topic = topic
        self._known: dict[int, tuple[float, bool]] = {}

    def waits(self, partition: int) -> bool:
        """Whether there are events that no worker has dealt with; true where Kafka does not say."""
        asked_s, found = self._known.get(partition, (-_KNOWN_S, True))
        now = time.monotonic()
        if now - asked_s >= _KNOWN_S:
            found = self._ask(TopicPartition(self._topic, partition))
            self._known[partition] = (now, found)
        return found

    def close(self) -> None:
        self._consumer.close()

    def _ask(self, place: TopicPartition) -> bool:
        try:
            low, high = self._consumer.get_watermark_offsets(place, timeout=_ASK_S)
            committed = self._consumer.committed([place], timeout=_ASK_S)[0].offset
        except KafkaException:
            return True
        return bool(max(committed, low) < high)
