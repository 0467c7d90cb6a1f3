"""Alerts for whoever runs a pipeline, apart from its predictions: one that cannot be told does them no harm."""

from __future__ import annotations

import threading
import time

import orjson
import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.kafka import Config

log = structlog.get_logger(__name__)

TELL_S = 30.0
_LAST_WORD_S = 5.0  # librdkafka looks for what is overdue once a second
_OF_TRANSACTIONS = ("transactional.id", "transaction.timeout.ms")


class Alerts:
    """Tells alerts on `topic`, each by a producer of its own, outside any transaction; they are rare.

    config: of a producer; tell_s: how long one may take to be told. What cannot be told is logged.
    """

    def __init__(self, pipeline: str, topic: str, config: Config, tell_s: float = TELL_S) -> None:
        self._pipeline, self._topic, self._tell_s = pipeline, topic, tell_s
        plain = {name: value for name, value in config.items() if name not in _OF_TRANSACTIONS}
        self._config = {**plain, "message.timeout.ms": int(tell_s * 1000)}

    def send(self, kind: str, **detail: str | None) -> threading.Thread:
        """Begins to tell an alert; never blocks, never raises. `kind` is one of a few words."""
        value = {"time": time.time_ns() // 1_000_000, "pipeline": self._pipeline, "kind": kind, **detail}
        telling = threading.Thread(target=self._tell, args=(kind, orjson.dumps(value)), name="alert", daemon=True)
        telling.start()
        return telling

    def _tell(self, kind: str, value: bytes) -> None:
        errors: list[str] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                errors.append(error.str())

        try:
            producer = Producer({**self._config, "on_delivery": delivered})
            producer.produce(self._topic, value, kind.encode())
            if producer.flush(self._tell_s + _LAST_WORD_S):
                errors.append("no answer")
        except (KafkaException, BufferError) as error:
            errors.append(str(error))
        if errors:
            log.error("an alert could not be told", kind=kind, topic=self._topic, error=errors[0])
