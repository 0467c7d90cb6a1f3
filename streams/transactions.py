"""Exactly once: outputs and the offsets of their events in one transaction, one producer a worker (KIP-447).

An error of a transaction means one of three things. Retriable: the same call again. Fatal, or fenced: the process ends,
and starts again. Anything else: what was sent since the last commit is void; the producer aborts it, and reading begins
again where Kafka has committed.

Where it is not known what has become of a commit or of an abort, or it was slow, a new producer of the same id takes
its place: librdkafka does not yet speak KIP-890, so that the answer to an EndTxn that was sent twice could act on the
next transaction.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import structlog
from confluent_kafka import KafkaException, TopicPartition

from streams.kafka import Config, is_fatal
from streams.outputs import OutputFailed, Outputs
from streams.pipeline import Pipeline

log = structlog.get_logger(__name__)

SLOW_COMMIT_S = 3.0
STUCK_S = 20.0
STUCK_EXIT = 70
_CALL_S = 5.0
_ABORT_S = 3.0
_RETRY_S = 0.1


class Void(Exception):
    """What was sent since the last commit is void: begin again from the committed offsets.

    number: of the outputs when it was sent; None = of any.
    """

    def __init__(self, reason: str, number: int | None = None) -> None:
        super().__init__(reason)
        self.number = number


class TransactionalOutputs(Outputs):
    """Outputs in transactions. `send` begins one; `commit` ends it with the offsets it covers."""

    def __init__(self, pipeline: Pipeline, config: Config, largest_dead_letter: int) -> None:
        self._watchdog = Watchdog(STUCK_S)
        self._open = self._doubtful = False
        self.number = 0
        """How often what had been sent was void."""
        super().__init__(pipeline, config, largest_dead_letter)

    def start(self) -> None:
        """Fences whoever had this id before, and ends its transaction. Blocks."""
        self._patiently("init_transactions", lambda: self._producer.init_transactions(_CALL_S))

    def commit(self, offsets: Sequence[TopicPartition], group: Any) -> None:
        """Commits what was sent, with the offsets that it covers. Blocks.

        group: the consumer's group metadata of now. Raises Void, or OutputFailed when the process must end.
        """
        began = time.monotonic()
        self._check()  # what was dropped has been acknowledged: its offsets may not be committed
        self._begin()
        self._patiently(
            "send_offsets_to_transaction",
            lambda: self._producer.send_offsets_to_transaction(list(offsets), group, _CALL_S),
        )
        self._doubtful = True
        self._patiently("commit_transaction", lambda: self._producer.commit_transaction())
        self._open = False
        if (took_s := time.monotonic() - began) > SLOW_COMMIT_S:
            raise Void(f"a commit took {took_s:.1f} s", self.number)
        self._doubtful = False

    def start_over(self) -> None:
        """Aborts what was sent since the last commit. Blocks."""
        with self._watchdog.watch("abort"):
            sound = self._aborted() and not self._doubtful
            self._open = self._doubtful = False
            self.number += 1
            self._failed.clear()
            self._dropped = None
            if not sound:
                self._producer = self._new_producer()
        if not sound:
            log.info("a new producer takes the place of one that is in doubt")
            self.start()

    def _aborted(self) -> bool:
        """Whether nothing is open any more, and the broker has said so in time."""
        began = time.monotonic()
        with contextlib.suppress(KafkaException):
            if self._doubtful:
                self._producer.purge()
            if self._open:
                self._producer.abort_transaction(_ABORT_S)
            return time.monotonic() - began < SLOW_COMMIT_S
        with contextlib.suppress(KafkaException):
            self._producer.purge()
        return False

    def _begin(self) -> None:
        if not self._open:
            self._patiently("begin_transaction", self._producer.begin_transaction)
            self._open = True

    def _undelivered(self, reason: str) -> Exception:
        return Void(reason, self.number)

    def _patiently(self, what: str, call: Callable[[], Any]) -> None:
        while True:
            try:
                with self._watchdog.watch(what):
                    call()
                return
            except KafkaException as exception:
                error = exception.args[0]
                if is_fatal(error):
                    raise OutputFailed(f"the producer ended: {error.str()}") from exception
                if not error.retriable() or error.txn_requires_abort():
                    raise Void(error.str(), self.number) from exception
                time.sleep(_RETRY_S)


class Watchdog:
    """Ends the process when one call into librdkafka takes too long: some hang, whatever their timeout says."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s

    @contextlib.contextmanager
    def watch(self, what: str) -> Iterator[None]:
        timer = threading.Timer(self._limit_s, self._end, [what])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _end(self, what: str) -> None:
        log.critical("no progress, the process ends to start again", call=what, after_s=self._limit_s)
        os._exit(STUCK_EXIT)
