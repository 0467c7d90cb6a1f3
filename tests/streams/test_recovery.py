"""Where a partition's reading begins: tables of what the store and Kafka say."""

from __future__ import annotations

import re

import pytest

from features.store import Meta, Vector
from streams.lane import Position
from streams.recovery import Rebuild, Resume, plan, rebuild_from, within_log

HOUR = 3_600_000


def meta(*vector: int, state_hash: str = "now") -> Meta:
    return Meta(incarnation=3, epoch=5, state_hash=state_hash, vector=vector)


@pytest.mark.parametrize(
    ("stored", "committed", "low"),
    [
        ((10, 20), (10, 20), (0, 0)),
        ((8, 20), (10, 25), (0, 0)),
        ((8, 20), (10, 25), (8, 20)),  # the oldest record is the first that is needed
        ((0, 0), (0, 0), (0, 0)),
        ((0,), (7,), (0,)),
    ],
    ids=["at the commit", "behind it", "at the oldest", "of nothing", "of one stream"],
)
def test_a_state_at_or_behind_the_committed_offsets_is_read_on_from(
    stored: Vector, committed: Vector, low: Vector
) -> None:
    assert plan(meta(*stored), "now", committed, low) == Resume(stored)


@pytest.mark.parametrize(
    ("found", "committed", "low", "reason"),
    [
        (None, (10, 20), (0, 0), "no state is stored"),
        (meta(10, 20, state_hash="old"), (10, 20), (0, 0), "of other features \\(old, now now\\)"),
        (meta(11, 20), (10, 20), (0, 0), "ahead of the committed offsets \\(\\(10, 20\\)\\)"),
        (meta(5, 21), (10, 20), (0, 0), "ahead of the committed"),
        (meta(10), (10, 20), (0, 0), "ahead of the committed"),
        (meta(10, 20, 30), (10, 20), (0, 0), "ahead of the committed"),
        (meta(10, 20), (0, 0), (0, 0), "ahead of the committed"),
        (meta(8, 20), (10, 20), (9, 0), "are gone from Kafka \\(oldest: \\(9, 0\\)\\)"),
        (meta(8, 20), (10, 20), (0, 21), "are gone from Kafka"),
    ],
    ids=[
        "a wiped store",
        "other features",
        "ahead in one stream",
        "ahead in the other",
        "of fewer streams",
        "of more streams",
        "offsets reset or topic made anew",
        "log cut in one stream",
        "log cut in the other",
    ],
)
def test_any_other_state_is_rebuilt_for_a_reason(
    found: Meta | None, committed: Vector, low: Vector, reason: str
) -> None:
    decided = plan(found, "now", committed, low)
    assert isinstance(decided, Rebuild)
    assert re.search(reason, decided.reason)


@pytest.mark.parametrize(
    ("committed", "skews", "start"),
    [
        ([Position(10, -1, 30 * HOUR)], [HOUR], [4 * HOUR]),
        # The newest of all streams counts, each stream with its own skew.
        ([Position(10, -1, 30 * HOUR), Position(7, -1, 40 * HOUR)], [HOUR, 2 * HOUR], [14 * HOUR, 12 * HOUR]),
        # A stream that has had no record yet has no time.
        ([Position(0), Position(7, -1, 40 * HOUR)], [HOUR, HOUR], [14 * HOUR, 14 * HOUR]),
        ([Position(10, -1, HOUR)], [HOUR], [0]),
        ([Position(10, -1, 0)], [HOUR], [0]),
        ([Position(10)], [HOUR], None),
        ([Position(10, 99, -1), Position(7, -1, 40 * HOUR)], [HOUR, HOUR], None),
        ([Position(0), Position(0)], [HOUR, HOUR], None),
    ],
    ids=[
        "one stream",
        "two streams",
        "one of them empty",
        "never before 1970",
        "an event of 1970",
        "committed by another tool",
        "one of two by another tool",
        "nothing committed",
    ],
)
def test_a_rebuild_reads_back_the_longest_window_and_the_skew_twice(
    committed: list[Position], skews: list[int], start: list[int] | None
) -> None:
    assert rebuild_from(committed, 24 * HOUR, skews) == start


def test_an_offset_beyond_the_log_is_of_another_log_and_its_stream_begins_anew() -> None:
    committed = [Position(10, 5, 7), Position(20, 5, 8)]
    assert within_log(committed, (0, 0), (10, 20)) == committed
    assert within_log(committed, (3, 0), (9, 20)) == [Position(3), committed[1]]


def test_a_stream_whose_next_records_are_gone_goes_on_with_the_oldest_there_is() -> None:
    committed = [Position(10, 5, 7), Position(20, 5, 8)]
    assert within_log(committed, (12, 20), (30, 40)) == [Position(12, 5, 7), committed[1]]
