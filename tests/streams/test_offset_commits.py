"""Offset commits whose answers come inside polls: each is answered once, whatever comes in between."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from streams.offset_commits import OffsetCommits


class Asked:
    """A consumer that answers commits which wait for it, with `refusal` if there is one."""

    def __init__(self) -> None:
        self.commits: list[tuple[list[int], bool]] = []
        self.refusal: KafkaError | None = None

    def commit(self, offsets: list[TopicPartition], *, asynchronous: bool) -> list[TopicPartition] | None:
        self.commits.append(([t.offset for t in offsets], asynchronous))
        if self.refusal is not None:
            raise KafkaException(self.refusal)
        return None if asynchronous else offsets


@pytest.fixture
def asked() -> Asked:
    return Asked()


def at(*offsets: int) -> list[TopicPartition]:
    return [TopicPartition("t", partition, offset) for partition, offset in enumerate(offsets)]


def begun(commits: OffsetCommits, asked: Asked, offsets: Sequence[TopicPartition]) -> Future[None]:
    answer: Future[None] = Future()
    commits.begin(cast(Consumer, asked), offsets, answer)
    return answer


def refused(answer: Future[None]) -> Any:
    error = answer.exception(0)
    assert isinstance(error, KafkaException)
    return error.args[0].code()


def test_the_callback_answers_the_commit_of_its_offsets(asked: Asked) -> None:
    commits = OffsetCommits()
    answer = begun(commits, asked, at(5, 7))
    commits.on_commit(None, at(5, 6))
    assert not answer.done()
    commits.on_commit(None, at(5, 7)[::-1])
    assert answer.result(0) is None


def test_an_error_of_all_or_of_one_partition_is_the_answer(asked: Asked) -> None:
    commits = OffsetCommits()
    answer = begun(commits, asked, at(5))
    commits.on_commit(KafkaError(KafkaError.ILLEGAL_GENERATION), at(5))
    assert refused(answer) == KafkaError.ILLEGAL_GENERATION
    asked.refusal = KafkaError(KafkaError._STATE)
    assert refused(begun(commits, asked, at(6))) == KafkaError._STATE


def test_inside_a_callback_open_commits_are_done_again_and_their_late_answers_count_for_nothing(asked: Asked) -> None:
    commits = OffsetCommits()
    answer = begun(commits, asked, at(5))
    commits.wait(cast(Consumer, asked))
    assert answer.result(0) is None
    assert asked.commits == [([5], True), ([5], False)]
    after = begun(commits, asked, at(6))
    commits.on_commit(None, at(5))  # of the first, at last
    assert not after.done()
    commits.on_commit(None, at(6))
    assert after.done()


def test_what_is_refused_when_it_is_done_again_is_the_answer(asked: Asked) -> None:
    commits = OffsetCommits()
    answer = begun(commits, asked, at(5))
    asked.refusal = KafkaError(KafkaError.UNKNOWN_MEMBER_ID)
    commits.wait(cast(Consumer, asked))
    assert refused(answer) == KafkaError.UNKNOWN_MEMBER_ID


def test_what_is_lost_is_not_committed_again(asked: Asked) -> None:
    commits = OffsetCommits()
    answer = begun(commits, asked, at(5))
    commits.drop()
    assert refused(answer) == KafkaError._STATE
    assert asked.commits == [([5], True)]
