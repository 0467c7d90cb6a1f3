"""A consumer's offset commits, which do not keep its thread from polling: their answers come inside its polls."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

_Places = frozenset[tuple[str, int, int]]


class OffsetCommits:
    """All of it runs in the consumer's thread. An answer is a KafkaException where Kafka has refused."""

    def __init__(self) -> None:
        self._open: dict[_Places, tuple[Sequence[TopicPartition], Future[None]]] = {}

    def begin(self, consumer: Consumer, offsets: Sequence[TopicPartition], answer: Future[None]) -> None:
        """Commits, and goes on. One after the other: the next one begins when this one is answered."""
        try:
            consumer.commit(offsets=list(offsets), asynchronous=True)
        except KafkaException as error:
            answer.set_exception(error)
        else:
            self._open[_places(offsets)] = offsets, answer

    def on_commit(self, error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
        """The consumer's callback of this name. Of a commit that is not open (it was done again) it does nothing."""
        if (found := self._open.pop(_places(partitions), None)) is not None:
            _settle(found[1], error, partitions)

    def wait(self, consumer: Consumer) -> None:
        """Inside a callback of the consumer none of its polls brings an answer: commits that are open are done again,
        and waited for.
        """
        while self._open:
            _, (offsets, answer) = self._open.popitem()
            commit_now(consumer, offsets, answer)

    def drop(self) -> None:
        """What is open may not be committed again: its partitions are lost."""
        while self._open:
            _, (_, answer) = self._open.popitem()
            _settle(answer, KafkaError(KafkaError._STATE), ())


def commit_now(consumer: Consumer, offsets: Sequence[TopicPartition], answer: Future[None]) -> None:
    """Commits, and waits for the answer."""
    try:
        _settle(answer, None, consumer.commit(offsets=list(offsets), asynchronous=False))
    except KafkaException as error:
        answer.set_exception(error)


def _settle(answer: Future[None], error: KafkaError | None, partitions: Sequence[TopicPartition]) -> None:
    errors: list[Any] = [error, *(partition.error for partition in partitions)]
    if found := next(filter(None, errors), None):
        answer.set_exception(KafkaException(found))
    else:
        answer.set_result(None)


def _places(offsets: Sequence[TopicPartition]) -> _Places:
    return frozenset((t.topic, t.partition, t.offset) for t in offsets)
