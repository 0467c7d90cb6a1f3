"""Which topics the names of a pipeline's sources mean: a topic that is deleted and made again has another id.

What was committed for the one means nothing for the other, and Kafka lets it be committed all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined, unused-ignore]

log = structlog.get_logger(__name__)

_REQUEST_S = 5.0


class TopicIds:
    """The ids of `topics` as they were when each was first seen. admin: None = of a broker that has no ids."""

    def __init__(self, admin: AdminClient | None, topics: Sequence[str]) -> None:
        self._admin, self._topics = admin, list(topics)
        self._known: dict[str, str] = {}

    def __getitem__(self, topic: str) -> str:
        """Empty where it is not known."""
        return self._known.get(topic, "")

    def now(self, topic: str) -> str:
        """As it is now; empty where that is not to be had. Blocks."""
        return self._ask().get(topic, "")

    def changed(self) -> str:
        """The topic that is another one by now; empty if none is, as long as it is away, too. Blocks."""
        for topic, found in self._ask().items():
            if self._known.setdefault(topic, found) != found:
                return topic
        return ""

    def _ask(self) -> dict[str, str]:
        found = {}
        if self._admin is not None:
            asked = self._admin.describe_topics(TopicCollection(self._topics), request_timeout=_REQUEST_S)
            for topic, answer in asked.items():
                try:
                    found[topic] = str(answer.result().topic_id)
                except KafkaException as error:
                    log.debug("a topic's id is not to be had", topic=topic, error=error.args[0].str())
        return found
