"""Rounds: what several lanes give, side by side in columns, with nothing lost and every order kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.round import Segment, StreamColumns
from streams.hop import Origin
from streams.lane import Lane, Position, Take
from streams.rounds import Work, assemble
from tests.streams.records import decoded


def take_of(
    partition: int, fresh: list[list[int]], replayed: list[list[int]] | None = None, *, dead: bool = False
) -> Take:
    """What a lane gives of these event times, by stream: replayed ones stand before the fresh."""
    before = replayed or [[] for _ in fresh]
    committed = [Position(len(b)) for b in before]
    lane = Lane(partition, [0 for _ in fresh], committed, 1)
    for stream, times in enumerate(fresh):
        both = before[stream] + times
        letters = [len(both)] if dead else []
        if both or letters:
            lane.add(decoded(both, stream=stream, partition=partition, dead=letters))
    take = lane.take()
    assert take is not None
    return take


def columns_of(work: Work, stream: int) -> StreamColumns:
    (found,) = (c for c in work.columns if c.stream == stream)
    return found


def test_one_stream_keeps_its_own_order_and_needs_no_other() -> None:
    work = assemble([take_of(2, [[5, 3]]), take_of(0, [[9]])], 1)
    lead = columns_of(work, 0)
    assert lead.segments == (Segment(2, 0, 2), Segment(0, 2, 3))
    assert (lead.times.tolist(), lead.offsets.tolist(), lead.order, lead.scored) == ([5, 3, 9], [0, 1, 0], None, None)
    assert work.rows.ids == ["0-2-0", "0-2-1", "0-0-0"]
    assert work.rows.partitions.tolist() == [2, 2, 0]
    assert (work.records, work.polled_ns) == (3, 7)


def test_the_common_order_of_streams_is_that_of_the_merge_in_each_partition() -> None:
    #   partition 1:  0: 1  4      partition 3:  0: 8
    #                 1:  2                      1: 7
    work = assemble([take_of(1, [[1, 4], [2]]), take_of(3, [[8], [7]])], 2)
    lead, other = columns_of(work, 0), columns_of(work, 1)
    assert lead.order is not None
    assert other.order is not None
    assert (lead.order.tolist(), other.order.tolist()) == ([0, 2, 4], [1, 3])
    assert other.segments == (Segment(1, 0, 1), Segment(3, 1, 2))


def test_replayed_events_come_first_and_are_not_scored() -> None:
    take = take_of(0, [[5], [6]], [[1, 2], [3]])
    work = assemble([take], 2)
    lead, other = columns_of(work, 0), columns_of(work, 1)
    assert lead.scored is not None
    assert lead.scored.tolist() == [False, False, True]
    assert lead.segments == (Segment(0, 0, 3),)
    assert (lead.offsets.tolist(), work.rows.offsets.tolist()) == ([0, 1, 2], [2])
    assert lead.order is not None
    assert other.order is not None
    assert sorted([*lead.order.tolist(), *other.order.tolist()]) == list(range(5))
    assert lead.order.tolist()[2] == 3
    assert other.order.tolist()[1] == 4


def test_events_of_before_a_group_began_count_and_have_no_rows() -> None:
    take = take_of(3, [[5, 6, 7, 8, 9]])
    (piece,) = take.pieces[0]
    where, nothing = np.arange(5), np.empty((5, 0))
    piece.origin = Origin(where + 1, where + 10, where, where, nothing, np.array([1, 1, 0, 1, 0], bool), [b""] * 5)
    work = assemble([take], 1)
    (lead,) = work.columns
    assert lead.scored is not None
    assert lead.scored.tolist() == [False, False, True, False, True]
    assert (lead.times.tolist(), lead.segments) == ([5, 6, 7, 8, 9], (Segment(3, 0, 5),))
    assert (work.rows.times.tolist(), work.rows.offsets.tolist()) == ([7, 9], [12, 14])
    assert (work.records, work.replays) == (5, False)


def test_a_round_of_other_streams_has_no_rows() -> None:
    work = assemble([take_of(0, [[], [3]])], 2)
    assert [c.stream for c in work.columns] == [1]
    assert (len(work.rows), work.rows.keys, work.records) == (0, [], 1)


def test_a_round_of_dead_letters_alone_has_no_columns() -> None:
    work = assemble([take_of(0, [[], []], dead=True), take_of(1, [[], []], dead=True)], 2)
    assert (work.columns, work.records, len(work.rows)) == ((), 0, 0)
    assert [(d.partition, d.stream) for d in work.dead] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_headers_of_some_are_a_list_for_all() -> None:
    first, second = take_of(0, [[1]]), take_of(1, [[1, 2]])
    second.pieces[0][0].headers = [[("a", b"1")], None]
    assert assemble([first, second], 1).rows.headers == [None, [("a", b"1")], None]
    assert assemble([first], 1).rows.headers is None


TIMES = st.lists(st.integers(0, 20), max_size=5)


@given(st.lists(st.lists(st.tuples(TIMES, TIMES), min_size=2, max_size=2), min_size=1, max_size=3))
def test_every_record_has_one_place_and_keeps_its_columns(partitions: list[list[tuple[Any, Any]]]) -> None:
    takes = []
    for partition, streams in enumerate(partitions):
        if any(times for both in streams for times in both):
            takes.append(take_of(partition, [fresh for _, fresh in streams], [old for old, _ in streams]))
    work = assemble(takes, 2)
    places = [place for c in work.columns if c.order is not None for place in c.order.tolist()]
    assert sorted(places) == list(range(work.records))
    assert work.records == sum(len(old) + len(new) for p in partitions for old, new in p)
    for columns in work.columns:
        assert [s.stop for s in columns.segments[:-1]] == [s.start for s in columns.segments[1:]]
        assert (columns.segments[0].start, columns.segments[-1].stop) == (0, len(columns))
        assert len({s.partition for s in columns.segments}) == len(columns.segments)
        np.testing.assert_array_equal(columns.fields["x"], columns.offsets)
        for segment in columns.segments:
            old, new = partitions[segment.partition][columns.stream]
            assert columns.times[segment.start : segment.stop].tolist() == old + new
    assert work.rows.offsets.tolist() == [
        len(streams[0][0]) + i for streams in partitions for i in range(len(streams[0][1]))
    ]
