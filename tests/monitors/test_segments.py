"""A segment is needed as long as something of it waits."""

from __future__ import annotations

from monitors.segments import Segments


def test_a_segment_goes_with_the_last_of_what_it_holds() -> None:
    segments = Segments()
    segments.add(1, ["a", "b"])
    segments.add(2, ["c"])
    assert segments.remove(["a", "unknown"]) == []
    assert segments.remove(["b", "c"]) == [1, 2]
    assert len(segments) == 0


def test_what_is_removed_twice_counts_once() -> None:
    segments = Segments()
    segments.add(1, ["a", "b"])
    assert segments.remove(["a", "a"]) == []
    assert len(segments) == 1


def test_a_name_that_comes_again_is_of_the_later_segment() -> None:
    segments = Segments()
    segments.add(1, ["a"])
    segments.add(2, ["a", "b"])
    assert segments.remove(["b"]) == [1]
    assert segments.remove(["a"]) == [2]
    assert len(segments) == 0
