"""The consumer's thread: what it may do inside a rebalance, and what must wait."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import Future

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from streams.intake import Intake, _Command
from streams.lane import Position
from streams.topic_ids import TopicIds


class Nobody:
    """An owner that is never asked."""

    def assigned(self, partitions: Sequence[int]) -> None: ...

    async def revoked(self, partitions: Sequence[int]) -> None: ...

    async def lost(self, partitions: Sequence[int]) -> None: ...

    def out_of_range(self, partition: int, reason: str) -> None: ...

    def committed_late(self) -> None: ...

    def failed(self, error: BaseException) -> None: ...


def _intake() -> Intake:
    ids = TopicIds(None, ["t"])
    return Intake(
        {}, ["t"], Nobody(), lambda poll: None, ids=ids, max_records=10, rebalanced=lambda event, took_s: None
    )


class Member:
    """Of a group, with partitions 0 and 1; notes what it is asked to commit, and answers when it is told to."""

    def __init__(self, intake: Intake | None = None) -> None:
        self._intake = intake
        self.committed: list[tuple[str, int, int]] = []
        self.waiting: list[list[TopicPartition]] = []
        self.refuses: KafkaError | None = None

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition("t", p) for p in (0, 1)]

    def commit(self, offsets: list[TopicPartition], *, asynchronous: bool) -> list[TopicPartition] | None:
        assert offsets
        if asynchronous:
            self.waiting.append(offsets)
            return None
        if self.refuses is not None:
            raise KafkaException(self.refuses)
        self.committed += [(t.topic, t.partition, t.offset) for t in offsets]
        return offsets

    def answer(self, error: KafkaError | None = None) -> None:
        """The oldest commit's answer, as a poll brings it."""
        assert self._intake is not None
        offsets = self.waiting.pop(0)
        if error is None:
            self.committed += [(t.topic, t.partition, t.offset) for t in offsets]
        self._intake._on_commit(error, [TopicPartition(t.topic, t.partition, t.offset) for t in offsets])


FENCED = KafkaError(KafkaError.ILLEGAL_GENERATION)


def _member() -> tuple[Intake, Member]:
    intake = _intake()
    intake._consumer = member = Member(intake)  # type: ignore[assignment]
    return intake, member


def _commit(intake: Intake, **offsets: int) -> Future[bool]:
    """p0=5: of partition 0, 5."""
    answer: Future[bool] = Future()
    intake._commit({(0, int(name[1:])): Position(offset) for name, offset in offsets.items()}, answer)
    return answer


def test_a_commit_is_answered_by_a_poll_and_reading_goes_on_until_then() -> None:
    intake, member = _member()
    answer = _commit(intake, p0=5, p1=6)
    assert not answer.done()
    member.answer()
    assert answer.result(0)
    assert member.committed == [("t", 0, 5), ("t", 1, 6)]
    refused = _commit(intake, p0=7)
    member.answer(FENCED)
    with pytest.raises(KafkaException, match="ILLEGAL_GENERATION"):
        refused.result(0)


def test_what_was_lost_is_not_committed_even_while_the_owner_is_told_of_it() -> None:
    intake, member = _member()
    gone = _commit(intake, p0=7, p2=8)
    member.answer()
    assert gone.result(0) is False, "2 has gone"
    intake._lost = {1}
    lost = _commit(intake, p0=9, p1=9)
    member.answer()
    assert lost.result(0) is False, "1 is being lost"
    assert member.committed == [("t", 0, 7), ("t", 0, 9)]
    intake._lost = {0, 1}
    assert _commit(intake, p1=10).result(0) is False
    assert len(member.committed) == 2


def test_a_rebalance_settles_the_commit_that_is_open_and_each_that_is_asked_inside_it() -> None:
    intake, member = _member()
    late: list[str] = []
    intake._owner.committed_late = lambda: late.append("late")  # type: ignore[method-assign]
    intake._loop = asyncio.new_event_loop()
    open_one = _commit(intake, p0=5, p1=6)
    intake._rebalancing, intake._lost = True, {1}
    intake._settle()
    assert open_one.result(0) is False, "1 is lost"
    assert _commit(intake, p0=7).result(0), "no poll can bring an answer"
    assert member.committed == [("t", 0, 5), ("t", 0, 7)]
    intake._rebalancing, intake._lost = False, set()
    later = _commit(intake, p0=9)
    member.answer()  # of the first, which was settled
    assert not later.done()
    member.answer()
    assert later.result(0)
    with contextlib.closing(intake._loop):
        intake._loop.run_until_complete(asyncio.sleep(0))
    assert late == ["late"], "it may have come behind newer offsets"


def test_a_commit_that_cannot_be_settled_says_so_to_who_asked_for_it() -> None:
    intake, member = _member()
    open_one = _commit(intake, p0=5)
    member.refuses = FENCED
    intake._settle()
    with pytest.raises(KafkaException, match="ILLEGAL_GENERATION"):
        open_one.result(0)
    intake._settle()


class Full(Member):
    """Answers with the poll after the commit; has no records."""

    halted = False

    def subscribe(self, topics: list[str], **callbacks: object) -> None: ...

    def poll(self, wait_s: float) -> None:
        if self.waiting:
            self.answer()

    def pause(self, partitions: list[TopicPartition]) -> None:
        self.halted = True

    def resume(self, partitions: list[TopicPartition]) -> None: ...

    def close(self) -> None: ...


def test_a_commit_is_answered_while_no_more_is_read() -> None:
    # What there is room for may wait for the commit: a checkpoint that new entities wait for begins after it.
    intake = _intake()
    intake._consumer = member = Full(intake)  # type: ignore[assignment]
    intake._open, intake._full_since = intake._most_open, time.monotonic() + 60
    answer: Future[bool] = Future()
    intake._thread.start()
    intake._commands.put(_Command(lambda: intake._commit({(0, 0): Position(5)}, answer), question=True))
    assert answer.result(10)
    intake._halt.set()
    intake._thread.join()
    assert not member.halted


def test_who_waits_for_a_commit_hears_that_the_intake_cannot_go_on() -> None:
    intake, _ = _member()
    answer = _commit(intake, p0=5)
    intake._loop = asyncio.new_event_loop()
    with contextlib.closing(intake._loop):
        intake._run()  # its consumer knows no `subscribe`
    with pytest.raises(AttributeError):
        answer.result(0)


def test_one_commit_is_open_at_a_time_and_who_was_cancelled_asks_for_none() -> None:
    intake, member = _member()
    first, second = _commit(intake, p0=5), _commit(intake, p0=6)
    assert (first.result(0), second.done(), member.committed) == (True, False, [("t", 0, 5)])
    cancelled: Future[bool] = Future()
    cancelled.cancel()
    intake._commit({(0, 0): Position(9)}, cancelled)
    assert (second.done(), len(member.waiting)) == (False, 2)


def test_inside_a_rebalance_questions_are_answered_and_partitions_begin_only_after_it() -> None:
    # A record may be in the poll's hands already: if its partition began anew now, it would be taken for the first of
    # the new reading, and what lies before it would never be scored.
    intake = _intake()
    done: list[str] = []
    intake._order(lambda: done.append("start"))
    intake._commands.put(_Command(lambda: done.append("commit"), question=True))
    intake._answer(0.01)
    intake._answer(0.01)
    assert done == ["commit"]
    intake._serve(0)
    assert done == ["commit", "start"]


class Reading(Member):
    """Knows the ends of its partitions as a consumer does, and seeks where it is told."""

    def __init__(self, ends: dict[int, int]) -> None:
        super().__init__()
        self.ends = ends

    def get_watermark_offsets(self, of: TopicPartition, *, cached: bool) -> tuple[int, int]:
        assert cached
        return 0, self.ends[of.partition]

    def seek(self, to: TopicPartition) -> None: ...

    def resume(self, partitions: list[TopicPartition]) -> None: ...


def test_all_is_worked_off_at_the_end_or_after_the_last_record_before_a_marker() -> None:
    intake = _intake()
    intake._consumer = member = Reading({0: 10, 1: -1001})  # type: ignore[assignment]
    assert intake._ends([0, 1]) == {}, "they have not begun"
    intake._start(0, [4], 1)
    intake._start(1, [0], 1)
    assert intake._ends([0, 1]) == {(0, 0): 10}, "nothing has been heard of partition 1"
    intake._polled[0, 0] = 9
    assert intake._ends([0]) == {(0, 0): 10}, "there may be a record in front of the end"
    intake._reached[0, 0] = 10
    assert intake._ends([0]) == {(0, 0): 9}, "there was a marker"
    intake._start(0, [4], 2)
    assert intake._ends([0]) == {(0, 0): 10}, "it is read again"
    intake._start(0, [12], 3)
    assert intake._ends([0]) == {}, "others had it since the end was heard"
    member.ends[0] = 12
    assert intake._ends([0]) == {(0, 0): 12}
