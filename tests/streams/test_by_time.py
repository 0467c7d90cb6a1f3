"""Events of several partitions come back in the order of event time, however they come in."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.by_time import ByTime, Events
from streams.hop import Origin


def events(partition: int, times: list[int], first: int) -> Events:
    """With their partition and offset for text and key."""
    n = len(times)
    offsets = np.arange(first, first + n)
    places = np.full(n, partition), offsets, offsets, offsets
    values = [b"%d-%d" % (partition, offset) for offset in offsets.tolist()]
    origin = Origin(*places, np.empty((n, 0)), np.ones(n, dtype=np.bool_), values)
    return Events([v.decode() for v in values], list(values), np.array(times, dtype=np.int64), origin)


def in_order(of: dict[int, list[int]]) -> list[str]:
    """A late event counts as of the newest before it."""
    found = []
    for partition, times in of.items():
        found += [(max(times[: i + 1]), partition, i) for i in range(len(times))]
    return [f"{partition}-{i}" for _, partition, i in sorted(found)]


@given(
    st.dictionaries(st.integers(0, 3), st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_whatever_the_pieces_in_which_they_come_the_order_is_that_of_time(of: dict[int, list[int]], draw) -> None:
    order, left, done, taken = ByTime(dict.fromkeys(of, 0)), dict(of), dict.fromkeys(of, 0), list[str]()
    while left:
        partition = draw.choice(sorted(left))
        piece = left[partition][: draw.randint(0, 4)]
        left[partition] = left[partition][len(piece) :]
        order.add(partition, events(partition, piece, done[partition]), done[partition] + len(piece))
        done[partition] += len(piece)
        if not left[partition]:
            del left[partition]
            order.end(partition, done[partition] + 5)
        while (found := order.take(draw.randint(1, 5), draw.choice([1, 9, 1000]))) is not None:
            taken += found.texts
            assert [key.decode() for key in found.keys if key] == found.texts
            assert [value.decode() for value in found.origin.values] == found.texts
        so_far = {p: sum(text.startswith(f"{p}-") for text in taken) for p in of}
        for p, offset in order.reached.items():
            assert offset == (so_far[p] if p in order.open or so_far[p] < len(of[p]) else len(of[p]) + 5)
    assert taken == in_order(of)
    assert order.done


def test_what_others_may_still_come_before_waits_and_who_is_ahead_of_them_may_rest() -> None:
    order = ByTime({0: 0, 1: 7})
    order.add(0, events(0, [5, 9, 9], 0), 4)
    assert order.take(9, 1000) is None
    assert (order.ahead(608), order.ahead(609)) == ({0}, set())  # three of three bytes, and what they take besides
    order.add(1, events(1, [6, 6, 6], 7), 10)
    assert order.ahead(1) == {0}  # the other one waits for nobody
    assert texts_of(order) == ["0-0", "1-7", "1-8", "1-9"]
    assert order.reached == {0: 1, 1: 10}
    order.add(1, events(1, [9], 10), 11)
    assert texts_of(order) == ["0-1", "0-2"]  # of equal times the first partition's come first
    assert (order.ahead(1), order.reached) == ({1}, {0: 4, 1: 10})
    order.end(0, 4)
    assert not order.done
    order.end(1, 12)
    assert texts_of(order) == ["1-10"]
    assert order.reached == {0: 4, 1: 12}
    assert order.done


def test_one_partition_of_one_time_waits_for_nothing() -> None:
    order = ByTime({0: 0})
    order.add(0, events(0, [7] * 50, 0), 50)
    assert len(texts_of(order)) == 50
    assert order.ahead(0) == set()


def test_no_more_is_taken_than_was_asked_but_one_at_least() -> None:
    order = ByTime({0: 0})
    order.add(0, events(0, [1, 2, 3, 4, 5], 0), 5)
    order.end(0, 5)
    assert texts_of(order, most=2) == ["0-0", "0-1"]
    assert texts_of(order, most_bytes=7) == ["0-2", "0-3"]
    assert order.reached == {0: 4}
    assert texts_of(order, most_bytes=1) == ["0-4"]
    assert order.done


def texts_of(order: ByTime, *, most: int = 100, most_bytes: int = 1000) -> list[str]:
    found = order.take(most, most_bytes)
    return [] if found is None else found.texts
