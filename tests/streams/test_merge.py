"""The merge against its oracle, and the same order whatever the arrival."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from streams.merge import NO_WATERMARK, merge_order
from tests.oracles.merge import head_merge

TIMES = st.lists(st.integers(0, 12), max_size=10)
STREAMS = st.lists(TIMES, min_size=1, max_size=4)
CLOSED = 10**9


def merged(
    buffers: Sequence[Sequence[int]], watermarks: Sequence[int] | None = None, *, waits: bool = False
) -> list[tuple[int, int]]:
    """The order that the merge gives, as the oracle writes it."""
    marks = [NO_WATERMARK] * len(buffers) if watermarks is None else watermarks
    counts, places = merge_order([np.array(b, dtype=np.int64) for b in buffers], marks, waits=waits)
    assert [len(p) for p in places] == counts
    order = {int(place): (s, i) for s, of_stream in enumerate(places) for i, place in enumerate(of_stream)}
    assert sorted(order) == list(range(sum(counts)))
    return [order[place] for place in range(len(order))]


def test_the_smallest_head_goes_first() -> None:
    #   0:  1     4  5
    #   1:     2        8
    assert merged([[1, 4, 5], [2, 8]]) == [(0, 0), (1, 0), (0, 1), (0, 2), (1, 1)]


def test_ties_go_to_the_stream_declared_first() -> None:
    assert merged([[5], [5], [5]]) == [(0, 0), (1, 0), (2, 0)]
    assert merged([[7, 7], [7]]) == [(0, 0), (0, 1), (1, 0)]
    assert merged([[7], [7, 7]]) == [(0, 0), (1, 0), (1, 1)]


def test_an_event_behind_its_own_stream_goes_as_soon_as_it_is_the_head() -> None:
    #   0:  9  2        2 becomes the head when 9 has gone, and 9 waits for 5
    #   1:  5  10
    assert merged([[9, 2], [5, 10]]) == [(1, 0), (0, 0), (0, 1), (1, 1)]


def test_without_waiting_everything_goes() -> None:
    assert merged([[3, 1], [], [2]], [NO_WATERMARK, 5, NO_WATERMARK]) == [(2, 0), (0, 0), (0, 1)]


def test_with_waiting_nothing_goes_before_every_head_is_known() -> None:
    assert merged([[3, 4], []], [0, NO_WATERMARK], waits=True) == []


@pytest.mark.parametrize(
    ("mark", "gone"),
    [(2, []), (3, [(0, 0)]), (4, [(0, 0), (0, 1)])],
    ids=["the other may bring a 2", "it may bring a 3, which comes after the lead's", "it may bring a 4"],
)
def test_a_watermark_lets_go_what_comes_before_any_event_that_its_stream_can_bring(
    mark: int, gone: list[tuple[int, int]]
) -> None:
    assert merged([[3, 4], []], [NO_WATERMARK, mark], waits=True) == gone


def test_a_later_stream_waits_at_an_earlier_ones_watermark() -> None:
    assert merged([[], [3, 4]], [4, 0], waits=True) == [(1, 0)]
    assert merged([[3, 4], []], [0, 4], waits=True) == [(0, 0), (0, 1)]


def test_a_single_stream_waits_for_nobody() -> None:
    assert merged([[5, 3]], [0], waits=True) == [(0, 0), (0, 1)]


def test_a_stream_closed_by_the_greatest_watermark_holds_nobody_back() -> None:
    assert merged([[3, 4], []], [2**63 - 1, 2**63 - 1], waits=True) == [(0, 0), (0, 1)]


@given(STREAMS)
def test_live_order_is_the_oracles(buffers: list[list[int]]) -> None:
    assert merged(buffers) == head_merge(buffers, [NO_WATERMARK] * len(buffers), waits=False)


@given(st.data())
def test_waiting_order_is_the_oracles(data: st.DataObject) -> None:
    buffers = data.draw(STREAMS)
    assume(len(buffers) > 1)
    marks = [data.draw(st.integers(NO_WATERMARK, 14)) for _ in buffers]
    assert merged(buffers, marks, waits=True) == head_merge(buffers, marks, waits=True)


@given(st.data())
def test_the_order_is_the_same_whatever_the_arrival(data: st.DataObject) -> None:
    """Streams arrive in pieces, in any interleaving, each piece with an honest watermark or none."""
    streams = data.draw(st.lists(TIMES, min_size=2, max_size=3))
    whole = head_merge(streams, [CLOSED] * len(streams), waits=True)
    received, taken = [0] * len(streams), [0] * len(streams)
    marks = [NO_WATERMARK] * len(streams)
    found: list[tuple[int, int]] = []
    while any(mark < CLOSED for mark in marks):
        s = data.draw(st.sampled_from([i for i, mark in enumerate(marks) if mark < CLOSED]))
        received[s] = data.draw(st.integers(received[s], len(streams[s])))
        if received[s] == len(streams[s]):
            marks[s] = CLOSED
        elif data.draw(st.booleans()):
            marks[s] = max(marks[s], min(streams[s][received[s] :]) - data.draw(st.integers(0, 1)))
        buffers = [stream[t:r] for stream, t, r in zip(streams, taken, received, strict=True)]
        for stream, position in merged(buffers, marks, waits=True):
            found.append((stream, taken[stream] + position))
        for stream in range(len(streams)):
            taken[stream] = sum(1 for s, _ in found if s == stream)
    assert found == whole
