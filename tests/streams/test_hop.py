"""What goes through a group's topic comes out as it went in."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.batches import RecordBatch
from streams.hop import MAX_EVENT_BYTES, Origin, beginning, framed, is_past, unframed

NAMES = ("a", "b")
rows = st.tuples(
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**53),
    st.binary(max_size=40),
    st.none() | st.binary(min_size=1, max_size=60),
    st.binary(max_size=200),
    st.tuples(*[st.floats(width=64)] * len(NAMES)),
)


def origin_of(found: list[tuple]) -> Origin:
    columns = [np.array([row[place] for row in found], dtype=np.int64) for place in (0, 1, 2)]
    past = np.array([row[1] % 2 == 1 for row in found], dtype=np.bool_)
    return Origin(*columns, columns[2], np.empty((len(found), 0)), past, [row[5] for row in found])


def batch_of(values: list[bytes | None]) -> RecordBatch:
    n = len(values)
    return RecordBatch(0, 3, [b"shop"] * n, values, np.arange(n), np.arange(n) + 100, None, 7, 1)


def numbers(found: list[tuple]) -> np.ndarray:
    return np.array([row[6] for row in found], dtype=np.float64).reshape(len(found), len(NAMES))


@given(st.lists(rows, max_size=20))
def test_an_event_comes_out_with_its_place_key_trace_and_aggregates_bit_for_bit(found: list[tuple]) -> None:
    carried = numbers(found)
    values = framed(origin_of(found), [row[3] for row in found], [row[4] for row in found], carried, NAMES)
    batch, origin, dead = unframed(batch_of(list(values)), NAMES)
    assert not dead
    assert batch.values == origin.values == [row[5] for row in found]
    assert batch.keys == [row[3] for row in found]
    assert origin.partitions.tolist() == [row[0] for row in found]
    assert origin.offsets.tolist() == [row[1] for row in found]
    assert batch.timestamps.tolist() == [row[2] for row in found]
    assert origin.sent.tolist() == [100 + i for i in range(len(found))]
    assert origin.carried.tobytes() == carried.tobytes()
    assert origin.past.tolist() == list(map(is_past, values)) == [row[1] % 2 == 1 for row in found]
    traces = [dict(row or ()).get("traceparent") for row in batch.headers or [None] * len(found)]
    assert traces == [row[4] for row in found]


@given(st.lists(rows, min_size=1, max_size=5))
def test_aggregates_of_another_declaration_are_missing_and_the_event_is_whole(found: list[tuple]) -> None:
    values = framed(origin_of(found), [row[3] for row in found], None, numbers(found), NAMES)
    for names in (("a", "c"), ("b", "a"), ("a",), ()):
        batch, origin, dead = unframed(batch_of(list(values)), names)
        assert batch.values == [row[5] for row in found]
        assert origin.carried.shape == (len(found), len(names))
        assert np.isnan(origin.carried).all()
        assert not dead


def test_what_no_worker_sent_is_a_dead_letter_and_its_neighbours_are_not() -> None:
    origin = Origin(*[np.array([1, 2])] * 4, np.empty((2, 0)), np.array([False, True]), [b"{}", b"[]"])
    one, two = framed(origin, [b"k", None], None, np.empty((2, 0)), ())
    batch, found, dead = unframed(batch_of([one, b"{}", None, two, b"", b"\x03" + two[1:]]), ())
    assert [letter.offset for letter in dead] == [1, 2, 4, 5]
    assert {letter.code for letter in dead} == {"malformed"}
    assert [found.values[i] for i in (0, 3)] == [b"{}", b"[]"]
    assert len(batch) == len(found) == 6


def test_an_event_too_long_to_go_on_is_dead_before_it_is_added_to_anything() -> None:
    batch, origin, dead = beginning(batch_of([b"{}", b"x" * (MAX_EVENT_BYTES + 1), None, b"y" * MAX_EVENT_BYTES]))
    assert [(letter.offset, letter.code) for letter in dead] == [(1, "too_long")]
    assert batch.values[1] == b""
    assert batch.values[2] is None
    assert len(origin.values[3]) == MAX_EVENT_BYTES
    assert origin.partitions.tolist() == [3, 3, 3, 3]
    assert origin.offsets.tolist() == [0, 1, 2, 3]


def test_origins_are_cut_and_joined_as_their_records_are() -> None:
    carried = np.arange(10.0).reshape(5, 2)
    columns, values = [np.arange(5) + n for n in (0, 10, 20, 30)], [b"%d" % i for i in range(5)]
    whole = Origin(*columns, carried, np.arange(5) == 2, values)
    again = Origin.joined([whole.cut(0, 2), whole.cut(2, 5)])
    assert again.values == whole.values
    assert np.array_equal(again.carried, carried)
    assert again.past.tolist() == [False, False, True, False, False]
    some = whole.at(np.array([3, 1]))
    assert some.values == [b"3", b"1"]
    assert some.offsets.tolist() == [13, 11]
