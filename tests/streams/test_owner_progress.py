"""How far the owner of a remote group says that it is."""

from __future__ import annotations

import numpy as np
import pytest

from features.progress import NEVER, Progress
from streams.decoded import Decoded
from streams.hop import Origin
from streams.lane import Lane, Position
from streams.owner_progress import OwnerProgress
from streams.rounds import assemble

T0 = 1_700_000_000_000


def batch(offsets: list[int], times: list[int], sent: list[int]) -> Decoded:
    n = len(offsets)
    zeros, nothing, past = np.zeros(n, dtype=np.int64), np.empty((n, 0)), np.zeros(n, dtype=np.bool_)
    origin = Origin(zeros, zeros, np.array(times), np.array(sent), nothing, past, [b""] * n)
    return Decoded(
        stream=0,
        partition=0,
        fields={},
        times=np.array(times),
        offsets=np.array(offsets),
        ids=[""] * n,
        keys=[b""] * n,
        headers=None,
        next_offset=offsets[-1] + 1,
        polled_ns=0,
        origin=origin,
    )


def lane(*, start: int = 0, committed: int = 0, generation: int = 1, time: int = NEVER) -> Lane:
    return Lane(0, [start], [Position(committed, time=time)], generation)


def work_off(progress: OwnerProgress, mine: Lane, *batches: Decoded) -> None:
    for one in batches:
        mine.add(one)
    take = mine.take()
    assert take is not None
    mine.drop(take)
    progress.worked_off(assemble([take], 1), {0: mine})


def test_all_is_in_up_to_the_time_at_which_the_newest_record_was_sent() -> None:
    progress, mine = OwnerProgress(), lane()
    work_off(progress, mine, batch([0, 1], [T0 + 7, T0 + 3], [T0 + 10, T0 + 20]))
    assert progress.of({0: mine}) == {0: Progress(T0 + 7, T0 + 20)}


def test_what_is_read_again_counts_too() -> None:
    progress, mine = OwnerProgress(), lane(committed=2, time=T0 + 7)
    work_off(progress, mine, batch([0, 1], [T0 + 7, T0 + 3], [T0 + 10, T0 + 20]))
    assert progress.of({0: mine}) == {0: Progress(T0 + 7, T0 + 20)}


def test_at_the_end_all_is_in_up_to_when_it_was_asked_for_and_no_older_record_takes_that_back() -> None:
    progress, mine = OwnerProgress(), lane()
    progress.at_end(mine, T0 + 100)
    work_off(progress, mine, batch([0], [T0], [T0 + 50]))
    assert progress.of({0: mine}) == {0: Progress(T0, T0 + 100)}


@pytest.mark.parametrize("time", [NEVER, T0])
def test_a_partition_that_begins_again_knows_the_committed_event_time_and_nothing_of_its_sender(time: int) -> None:
    progress, before = OwnerProgress(), lane()
    progress.at_end(before, T0 + 100)
    again = lane(generation=2, time=time)
    assert progress.of({0: again}) == {0: Progress(time, NEVER)}
    progress.at_end(again, T0 + 50)
    assert progress.of({0: again}) == {0: Progress(time, T0 + 50)}
