"""The consumer's thread: what it may do inside a rebalance, and what must wait."""

from __future__ import annotations

from collections.abc import Sequence

from streams.intake import Intake, _Command


class Nobody:
    """An owner that is never asked."""

    def assigned(self, partitions: Sequence[int]) -> None: ...

    async def revoked(self, partitions: Sequence[int]) -> None: ...

    async def lost(self, partitions: Sequence[int]) -> None: ...

    def failed(self, error: BaseException) -> None: ...


def test_inside_a_rebalance_questions_are_answered_and_partitions_begin_only_after_it() -> None:
    # A record may be in the poll's hands already: if its partition began anew now, it would be taken for the first of
    # the new reading, and what lies before it would never be scored.
    intake = Intake({}, ["t"], Nobody(), lambda poll: None, max_records=10, rebalanced=lambda event, count: None)
    done: list[str] = []
    intake._order(lambda: done.append("start"))
    intake._commands.put(_Command(lambda: done.append("commit"), question=True))
    intake._answer(0.01)
    intake._answer(0.01)
    assert done == ["commit"]
    intake._serve(0)
    assert done == ["commit", "start"]
