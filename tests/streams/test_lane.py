"""One partition: everything that comes in is given out exactly once and in its place, whatever the cutting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.decoded import Decoded
from streams.lane import Lane, Position, Take
from tests.oracles.merge import head_merge
from tests.streams.records import decoded

FRESH = Position(0)


def lane_of(*committed: Position, start: Sequence[int] | None = None) -> Lane:
    return Lane(0, [p.next_offset for p in committed] if start is None else start, committed, 1)


def taken(take: Take | None) -> list[tuple[int, int]]:
    """(stream, offset) of the fresh events, in their order."""
    assert take is not None
    found: dict[int, tuple[int, int]] = {}
    for stream, (pieces, places) in enumerate(zip(take.pieces, take.places, strict=True)):
        offsets = [int(o) for piece in pieces for o in piece.offsets]
        found |= {int(place): (stream, o) for place, o in zip(places, offsets, strict=True)}
    assert sorted(found) == list(range(len(found)))
    return [found[place] for place in sorted(found)]


def replays(take: Take | None) -> list[tuple[int, int]]:
    assert take is not None
    return [(s, int(o)) for s, pieces in enumerate(take.replayed) for piece in pieces for o in piece.offsets]


def letters(take: Take | None) -> list[tuple[int, int]]:
    assert take is not None
    return [(letter.stream, letter.offset) for letter in take.dead]


def test_an_empty_lane_gives_nothing() -> None:
    lane = lane_of(FRESH, FRESH)
    assert lane.recovered
    assert lane.take() is None
    assert lane.buffered == [0, 0]


def test_a_take_is_the_same_until_it_is_dropped() -> None:
    lane = lane_of(FRESH)
    lane.add(decoded([5, 6], dead=[2]))
    first, again = lane.take(), lane.take()
    assert first is not None
    assert taken(first) == taken(again) == [(0, 0), (0, 1)]
    assert letters(first) == letters(again) == [(0, 2)]
    assert lane.positions == [FRESH]
    lane.drop(first)
    assert lane.take() is None
    assert lane.positions == [Position(3, time=6)]


def test_what_comes_between_take_and_drop_stays_for_the_next() -> None:
    lane = lane_of(FRESH)
    lane.add(decoded([5]))
    take = lane.take()
    assert take is not None
    lane.add(decoded([6], offsets=[1], dead=[2]))
    lane.drop(take)
    assert lane.positions == [Position(1, time=5)]
    assert (taken(lane.take()), letters(lane.take())) == ([(0, 1)], [(0, 2)])


def test_live_streams_do_not_wait_for_each_other() -> None:
    lane = lane_of(FRESH, FRESH)
    lane.add(decoded([5, 6], stream=1))
    assert taken(lane.take()) == [(1, 0), (1, 1)]


def test_the_first_watermark_of_any_stream_makes_the_lane_wait_for_the_others() -> None:
    lane = lane_of(FRESH, FRESH)
    lane.add(decoded([5, 6], offsets=[1, 2], marks=[(0, 0)]))
    take = lane.take()
    assert taken(take) == []
    assert take is not None
    assert take.positions == {0: Position(1, 0)}  # the watermark itself has been dealt with
    lane.add(decoded([4, 5], offsets=[1, 2], stream=1, marks=[(0, 0)]))
    assert taken(lane.take()) == [(1, 1), (0, 1), (1, 2)]
    lane.add(decoded([], stream=1, marks=[(3, 6)]))
    assert taken(lane.take()) == [(1, 1), (0, 1), (1, 2), (0, 2)]


def test_a_lane_goes_on_waiting_where_it_was_committed_with_a_watermark() -> None:
    lane = lane_of(Position(10, 50, 60), Position(20, 55, 60))
    lane.add(decoded([55, 56], offsets=[10, 11]))
    assert taken(lane.take()) == [(0, 10)]  # the other stream is known up to 55, and comes after at 55


def test_a_dead_letter_goes_when_everything_before_it_goes() -> None:
    #   offset:  0 bad   1 time 5   2 bad   3 time 9   4 bad
    lane = lane_of(FRESH, FRESH)
    lane.add(decoded([], stream=1, marks=[(0, 0)]))
    lane.add(decoded([5, 9], offsets=[1, 3], dead=[0, 2, 4]))
    take = lane.take()
    assert take is not None
    assert (taken(take), letters(take)) == ([], [(0, 0)])
    assert take.positions == {0: Position(1), 1: Position(1, 0)}
    lane.drop(take)
    lane.add(decoded([7], offsets=[1], stream=1))
    take = lane.take()
    assert take is not None
    assert (taken(take), letters(take)) == ([(0, 1), (1, 1)], [(0, 2)])
    lane.drop(take)
    lane.add(decoded([], stream=1, marks=[(2, 100)]))
    take = lane.take()
    assert take is not None
    assert (taken(take), letters(take)) == ([(0, 3)], [(0, 4)])
    lane.drop(take)
    assert lane.positions == [Position(5, -1, 9), Position(3, 100, 7)]


def test_dead_letters_of_a_stream_alone_are_given() -> None:
    lane = lane_of(FRESH)
    lane.add(decoded([], dead=[0, 1]))
    take = lane.take()
    assert take is not None
    assert (letters(take), take.records, take.positions) == ([(0, 0), (0, 1)], 0, {0: Position(2)})
    lane.drop(take)
    assert lane.take() is None


def test_records_before_the_committed_offset_are_replayed_and_never_given_as_fresh() -> None:
    lane = lane_of(Position(3, -1, 8), start=[0])
    lane.add(decoded([5, 6, 7, 8], dead=[4]))
    take = lane.take()
    assert (replays(take), taken(take), letters(take)) == ([(0, 0), (0, 1), (0, 2)], [(0, 3)], [(0, 4)])
    assert not lane.recovered
    assert take is not None
    lane.drop(take)
    assert lane.recovered
    assert lane.positions == [Position(5, -1, 8)]


def test_a_take_gives_its_replay_alone_and_the_rest_afterwards() -> None:
    lane = lane_of(Position(2), start=[0])
    lane.add(decoded([5, 6, 7], dead=[3]))
    take = lane.take()
    assert take is not None
    first = take.replay()
    assert first is not None
    assert (replays(first), first.records, letters(first), first.positions) == ([(0, 0), (0, 1)], 2, [], {})
    lane.drop(first)
    assert lane.recovered
    assert lane.positions == [Position(2)]
    rest = lane.take()
    assert rest is not None
    assert rest.replay() is None
    assert (taken(rest), letters(rest)) == ([(0, 2)], [(0, 3)])
    lane.drop(rest)
    assert (lane.take(), lane.positions) == (None, [Position(4, time=7)])


def test_dead_letters_before_the_committed_offset_were_given_before() -> None:
    lane = lane_of(Position(3), start=[0])
    lane.add(decoded([5, 6], offsets=[1, 3], dead=[0, 2, 4]))
    take = lane.take()
    assert (replays(take), taken(take), letters(take)) == ([(0, 1)], [(0, 3)], [(0, 4)])


def test_no_fresh_event_goes_before_every_stream_has_been_read_up_to_its_commit() -> None:
    lane = lane_of(Position(2, -1, 6), Position(1, -1, 4), start=[1, 0])
    lane.add(decoded([6, 7], offsets=[1, 2]))
    take = lane.take()
    assert take is not None
    assert (replays(take), taken_or_nothing(take), take.positions) == ([(0, 1)], [], {})
    lane.drop(take)
    assert lane.take() is None
    assert not lane.recovered
    assert lane.positions == [Position(1, -1, 6), Position(0, -1, 4)]
    lane.add(decoded([4, 5], stream=1))
    take = lane.take()
    assert (replays(take), taken(take)) == ([(1, 0)], [(1, 1), (0, 2)])
    assert take is not None
    lane.drop(take)
    assert lane.recovered
    assert lane.positions == [Position(3, -1, 7), Position(2, -1, 5)]


def taken_or_nothing(take: Take) -> list[tuple[int, int]]:
    return taken(take) if any(take.pieces) else []


def test_a_gap_before_the_committed_offset_ends_the_recovery_with_the_next_record() -> None:
    # Offsets 3 and 4 are a transaction's markers, or were compacted away.
    lane = lane_of(Position(5, -1, 6), start=[1])
    lane.add(decoded([5, 6], offsets=[1, 2]))
    assert not lane.recovered
    lane.add(decoded([7], offsets=[5]))
    take = lane.take()
    assert (replays(take), taken(take)) == ([(0, 1), (0, 2)], [(0, 5)])


def test_a_gap_at_the_end_ends_the_recovery_with_the_word_that_nothing_follows() -> None:
    lane = lane_of(Position(5, -1, 6), start=[1])
    lane.add(decoded([5, 6], offsets=[1, 2]))
    take = lane.take()
    assert take is not None
    lane.drop(take)
    assert not lane.recovered
    lane.reached(0, 4)
    assert not lane.recovered
    lane.reached(0, 5)
    assert lane.recovered
    assert lane.positions == [Position(5, -1, 6)]
    assert lane.take() is None


def test_an_end_behind_what_was_received_changes_nothing() -> None:
    lane = lane_of(FRESH)
    lane.add(decoded([5, 6]))
    lane.reached(0, 1)
    assert taken(lane.take()) == [(0, 0), (0, 1)]


def test_a_record_that_comes_twice_counts_once() -> None:
    lane = lane_of(FRESH)
    whole = decoded([1, 2, 3, 4], offsets=[0, 1, 3, 4], dead=[2, 5], marks=[(6, 4)])
    lane.add(decoded([1, 2], dead=[2]))
    lane.add(whole)
    lane.add(decoded([3], offsets=[3]))
    take = lane.take()
    assert (taken(take), letters(take)) == ([(0, 0), (0, 1), (0, 3), (0, 4)], [(0, 2), (0, 5)])
    assert take is not None
    assert take.positions == {0: Position(7, 4, 4)}


def test_a_replayed_record_that_comes_twice_counts_once() -> None:
    lane = lane_of(Position(3), start=[0])
    lane.add(decoded([1, 2]))
    lane.add(decoded([2, 3, 4], offsets=[1, 2, 3]))
    take = lane.take()
    assert (replays(take), taken(take)) == ([(0, 0), (0, 1), (0, 2)], [(0, 3)])


def test_the_watermark_of_a_replay_is_known_again() -> None:
    """Offsets that another tool committed carry no watermark; the log has it."""
    lane = lane_of(Position(2), Position(0), start=[0, 0])
    lane.add(decoded([5], offsets=[1], marks=[(0, 5)]))
    lane.add(decoded([6], offsets=[2]))
    assert taken(lane.take()) == []  # it waits, as a replay does


class Stream(NamedTuple):
    """A stream's log: `kinds[i]` of offset i is an event's time, "dead", "gap", or ("mark", time)."""

    kinds: list[Any]

    def part(self, stream: int, start: int, stop: int) -> Decoded | None:
        """What a poll of the offsets [start, stop) brings; None where there are only gaps."""
        at = range(start, stop)
        kinds = self.kinds
        events = [o for o in at if isinstance(kinds[o], int)]
        dead = [o for o in at if kinds[o] == "dead"]
        marks = [(o, kinds[o][1]) for o in at if isinstance(kinds[o], tuple)]
        if not (events or dead or marks):
            return None
        return decoded([kinds[o] for o in events], offsets=events, stream=stream, dead=dead, marks=marks)

    def events(self, since: int = 0) -> list[int]:
        return [o for o, kind in enumerate(self.kinds) if isinstance(kind, int) and o >= since]


@st.composite
def logs(draw: st.DrawFn, *, marked: bool) -> list[Stream]:
    streams = []
    for _ in range(draw(st.integers(1, 3))):
        kinds: list[Any] = draw(st.lists(st.integers(0, 9) | st.sampled_from(["dead", "gap"]), max_size=8))
        if marked:  # honest watermarks: none above a time that still comes
            for at in sorted(draw(st.sets(st.integers(0, len(kinds)), max_size=3)), reverse=True):
                later = [k for k in kinds[at:] if isinstance(k, int)]
                kinds.insert(at, ("mark", min(later, default=99)))
            kinds = [("mark", 0), *kinds, ("mark", 99)]
        streams.append(Stream(kinds))
    return streams


def _drive(data: st.DataObject, lane: Lane, streams: list[Stream], start: list[int]) -> list[Take]:
    """Brings the logs to the lane in any pieces and interleaving, and takes and drops now and then."""
    takes: list[Take] = []
    here = list(start)

    def work_off() -> None:
        before = lane.positions
        take = lane.take()
        if take is not None:
            lane.drop(take)
            takes.append(take)
        for old, new in zip(before, lane.positions, strict=True):
            assert new.next_offset >= old.next_offset
            assert new.watermark >= old.watermark
            assert new.time >= old.time

    while open_ones := [s for s, stream in enumerate(streams) if here[s] < len(stream.kinds)]:
        s = data.draw(st.sampled_from(open_ones))
        stop = data.draw(st.integers(here[s] + 1, len(streams[s].kinds)))
        part = streams[s].part(s, max(0, here[s] - data.draw(st.integers(0, 2))), stop)
        if part is not None:
            lane.add(part)
        here[s] = stop
        for _ in range(data.draw(st.integers(0, 2))):
            work_off()
    for s, stream in enumerate(streams):
        lane.reached(s, len(stream.kinds))
    for _ in range(3):
        work_off()
    assert lane.recovered
    assert lane.take() is None
    assert lane.buffered == [0] * len(streams)
    return takes


@given(logs(marked=False), st.data())
def test_live_events_come_out_once_and_in_each_streams_order(streams: list[Stream], data: st.DataObject) -> None:
    lane = lane_of(*[FRESH] * len(streams))
    takes = _drive(data, lane, streams, [0] * len(streams))
    order = [at for take in takes for at in taken(take)]
    dead = [at for take in takes for at in letters(take)]
    for s, stream in enumerate(streams):
        assert [o for stream_, o in order if stream_ == s] == stream.events()
        assert [o for stream_, o in dead if stream_ == s] == [o for o, k in enumerate(stream.kinds) if k == "dead"]


@given(logs(marked=True), st.data())
def test_a_marked_replay_comes_out_in_the_one_order_of_the_merge(streams: list[Stream], data: st.DataObject) -> None:
    lane = lane_of(*[FRESH] * len(streams))
    takes = _drive(data, lane, streams, [0] * len(streams))
    times = [[stream.kinds[o] for o in stream.events()] for stream in streams]
    whole = head_merge(times, [99] * len(streams), waits=True)
    assert [at for take in takes for at in taken(take)] == [(s, streams[s].events()[i]) for s, i in whole]
    assert [p.watermark for p in lane.positions] == [99] * len(streams)


@given(logs(marked=True), st.data())
def test_a_restart_at_any_commit_goes_on_in_the_same_order(streams: list[Stream], data: st.DataObject) -> None:
    """Committed at some boundary, begun again from anywhere before it: replayed up to there, then the rest."""
    n = len(streams)
    first = lane_of(*[FRESH] * n)
    begun = _partly(data, first, streams)
    committed = first.positions
    start = [data.draw(st.integers(0, p.next_offset)) for p in committed]
    second = Lane(0, start, committed, 2)
    takes = _drive(data, second, streams, start)
    for s, stream in enumerate(streams):
        expected = [o for o in stream.events(start[s]) if o < committed[s].next_offset]
        # Whatever of these comes a second time is skipped; the drive begins up to two offsets early.
        assert [o for take in takes for s_, o in replays(take) if s_ == s] == expected
    times = [[stream.kinds[o] for o in stream.events()] for stream in streams]
    whole = [(s, streams[s].events()[i]) for s, i in head_merge(times, [99] * n, waits=True)]
    assert begun + [at for take in takes for at in taken(take)] == whole
    given_dead = [at for take in takes for at in letters(take)]
    assert all(o >= committed[s].next_offset for s, o in given_dead)


def _partly(data: st.DataObject, lane: Lane, streams: list[Stream]) -> list[tuple[int, int]]:
    order: list[tuple[int, int]] = []
    for s, stream in enumerate(streams):
        stop = data.draw(st.integers(0, len(stream.kinds)))
        if (part := stream.part(s, 0, stop)) is not None:
            lane.add(part)
        if (take := lane.take()) is not None:
            lane.drop(take)
            order += taken(take)
    return order


def test_a_take_does_not_copy_what_goes_whole() -> None:
    lane = lane_of(FRESH)
    batch = decoded([1, 2, 3])
    lane.add(batch)
    take = lane.take()
    assert take is not None
    assert np.shares_memory(take.pieces[0][0].times, batch.times)
