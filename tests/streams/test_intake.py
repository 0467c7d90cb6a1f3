"""The consumer's thread: what it may do inside a rebalance, and what must wait."""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import TopicPartition

from streams.intake import Intake, _Command
from streams.lane import Position
from streams.topic_ids import TopicIds


class Nobody:
    """An owner that is never asked."""

    def assigned(self, partitions: Sequence[int]) -> None: ...

    async def revoked(self, partitions: Sequence[int]) -> None: ...

    async def lost(self, partitions: Sequence[int]) -> None: ...

    def out_of_range(self, partition: int, reason: str) -> None: ...

    def failed(self, error: BaseException) -> None: ...


def _intake() -> Intake:
    ids = TopicIds(None, ["t"])
    return Intake(
        {}, ["t"], Nobody(), lambda poll: None, ids=ids, max_records=10, rebalanced=lambda event, took_s: None
    )


class Member:
    """Of a group, with partitions 0 and 1; notes what it is asked to commit."""

    def __init__(self) -> None:
        self.committed: list[tuple[str, int, int]] = []

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition("t", p) for p in (0, 1)]

    def commit(self, offsets: list[TopicPartition], *, asynchronous: bool) -> list[TopicPartition]:
        assert offsets
        assert not asynchronous
        self.committed += [(t.topic, t.partition, t.offset) for t in offsets]
        return offsets


def test_what_was_lost_is_not_committed_even_while_the_owner_is_told_of_it() -> None:
    intake = _intake()
    intake._consumer = member = Member()  # type: ignore[assignment]
    assert intake._commit({(0, 0): Position(5), (0, 1): Position(6)})
    assert member.committed == [("t", 0, 5), ("t", 1, 6)]
    assert not intake._commit({(0, 0): Position(7), (0, 2): Position(8)}), "2 has gone"
    intake._lost = {1}
    assert not intake._commit({(0, 0): Position(9), (0, 1): Position(9)}), "1 is being lost"
    assert member.committed[2:] == [("t", 0, 7), ("t", 0, 9)]
    intake._lost = {0, 1}
    assert not intake._commit({(0, 1): Position(10)})
    assert len(member.committed) == 4


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
