"""What the monitor writes: blocks, drifts and retrain events, with the offsets that they came of.

On a real broker in one transaction; on the embedded one, which has none, the records first and the offsets after, so
that a crash between the two writes some again: they carry ids, and who reads them goes by these.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from streams.errors import WeirError
from streams.kafka import Config, is_fatal, producer_config, transactional_config
from streams.transactions import SLOW_COMMIT_S, STUCK_S, Watchdog

_CALL_S = 10.0
_FLUSH_S = 20.0
_RETRY_S = 0.1
_PATIENCE_S = 20.0
"""How long one call is repeated: who waits here hears of nothing else, not even of being told to stop."""


class CommitFailed(Exception):
    """Nothing of it counts, or it is not known to: begin again from what is committed."""


class Record(NamedTuple):
    """One record; its topic has one partition that matters, the first."""

    topic: str
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class LoopOutputs(Protocol):
    """Writes and commits."""

    def start(self) -> None:
        """Fences whoever wrote before. Blocks."""

    def commit(self, records: Sequence[Record], offsets: Sequence[TopicPartition]) -> None:
        """Both or neither; blocks. Raises CommitFailed, and WeirError where the process must end."""


class Transactional:
    """One transaction a commit. consumer: whose group the offsets are of."""

    def __init__(self, base: Config, transactional_id: str, consumer: Callable[[], Consumer]) -> None:
        self._config = transactional_config(base, transactional_id, 1000)
        self._consumer = consumer
        self._producer: Producer | None = None
        self._watchdog = Watchdog(STUCK_S)

    def start(self) -> None:
        self._producer = None  # the old one first: two of one id fence each other
        self._producer = Producer(self._config)
        self._call(self._producer.init_transactions, _CALL_S)

    def commit(self, records: Sequence[Record], offsets: Sequence[TopicPartition]) -> None:
        producer = self._producer
        assert producer is not None
        began = time.monotonic()
        try:
            self._call(producer.begin_transaction)
            for record in records:
                _produce(producer, record)
            group: Any = self._consumer().consumer_group_metadata()
            self._call(producer.send_offsets_to_transaction, list(offsets), group, _CALL_S)
            self._call(producer.commit_transaction, _CALL_S)
        except CommitFailed:
            with contextlib.suppress(KafkaException):
                producer.purge()
                with self._watchdog.watch("abort_transaction"):
                    producer.abort_transaction(_CALL_S)
            raise
        if time.monotonic() - began > SLOW_COMMIT_S:  # see streams.transactions: no KIP-890
            self.start()

    def _call(self, call: Callable[..., Any], *args: Any) -> None:
        until = time.monotonic() + _PATIENCE_S
        while True:
            try:
                with self._watchdog.watch(call.__name__):
                    call(*args)
                return
            except KafkaException as exception:
                error: KafkaError = exception.args[0]
                if is_fatal(error):
                    raise WeirError(
                        f"the monitor's producer ended: {error.str()}; is a second monitor of this pipeline running?"
                    ) from exception
                if not error.retriable() or error.txn_requires_abort() or time.monotonic() > until:
                    raise CommitFailed(error.str()) from exception
                time.sleep(_RETRY_S)


def _produce(producer: Producer, record: Record, **options: Any) -> None:
    try:
        producer.produce(
            record.topic, record.value, record.key, partition=0, headers=list(record.headers) or None, **options
        )
    except KafkaException as exception:
        error: KafkaError = exception.args[0]
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:  # however often it is tried
            raise WeirError(f"a record of {record.topic} has {len(record.value)} bytes: {error.str()}") from exception
        raise CommitFailed(error.str()) from exception  # the transaction has failed by itself
    except BufferError as error:
        raise CommitFailed(str(error)) from error


class Plain:
    """Records first, then offsets."""

    def __init__(self, base: Config, consumer: Callable[[], Consumer]) -> None:
        self._producer = Producer({**producer_config(base), "message.timeout.ms": int(_FLUSH_S * 1000)})
        self._consumer = consumer
        self._failed: list[str] = []

    def start(self) -> None:
        self._failed.clear()

    def commit(self, records: Sequence[Record], offsets: Sequence[TopicPartition]) -> None:
        for record in records:
            _produce(self._producer, record, on_delivery=self._delivered)
        if records and (self._producer.flush(_FLUSH_S) or self._failed):
            reason = self._failed[0] if self._failed else f"no answer in {_FLUSH_S:.0f} s"
            raise CommitFailed(f"records could not be delivered: {reason}")
        try:
            self._consumer().commit(offsets=list(offsets), asynchronous=False)
        except KafkaException as error:
            raise CommitFailed(error.args[0].str()) from error

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failed.append(error.str())
