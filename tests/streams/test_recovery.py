"""Where a partition's reading begins: tables of what the store and Kafka say."""

from __future__ import annotations

import re

import pytest

from features.store import Group, Meta, Vector
from streams.lane import Position
from streams.recovery import plan, rebuild_all, rebuild_at, rebuild_from, within_log

HOUR = 3_600_000


USER, SHOP, PAIR = 1, 2, 3
WANTED = {USER: "user's", SHOP: "shop's"}


def meta(*vector: int, until: Vector = (), **groups: Group) -> Meta:
    """The third incarnation, owned in the fifth epoch, of USER and SHOP unless it is said."""
    named = {{"user": USER, "shop": SHOP, "pair": PAIR}[name]: group for name, group in groups.items()}
    begun = {USER: Group("user's", 3), SHOP: Group("shop's", 3)}
    return Meta(3, 5, "spec", vector, until, groups=named or begun)


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
    found = plan(meta(*stored), WANTED, committed, low)
    assert found.resumes
    assert found.start(()) == list(stored)


@pytest.mark.parametrize(
    ("found", "committed", "low", "reason"),
    [
        (None, (10, 20), (0, 0), "no state is stored"),
        (meta(10, 20, user=Group("old", 3), shop=Group("old", 3)), (10, 20), (0, 0), "is stored of these features"),
        (Meta(3, 5, "spec", (10, 20)), (10, 20), (0, 0), "is stored of these features"),
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
        "of a release without groups",
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
    decided = plan(found, WANTED, committed, low)
    assert not decided.kept
    assert decided.rebuilt.keys() == WANTED.keys()
    assert all(re.search(reason, said) for said in decided.rebuilt.values())
    fresh = decided.begun(9, "spec", WANTED, decided.start([2, 3]), committed)
    assert fresh.groups == {USER: Group("user's", 9), SHOP: Group("shop's", 9)}
    assert (fresh.incarnation, fresh.vector, fresh.until) == (9, (2, 3), committed if committed != (2, 3) else ())


def test_a_new_group_is_rebuilt_and_the_others_go_on_from_what_they_cover() -> None:
    #       2          8     10
    #  log  |──────────|─────|
    #       └ pair ────┴─────┤      read from 2; user and shop take notice from 8 on
    #                  └ all ┘
    wanted = {**WANTED, PAIR: "pair's"}
    found = plan(meta(8, 20), wanted, (10, 20), (0, 0))
    assert found.rebuilt == {PAIR: "no state is stored of these features"}
    start = found.start([2, 20])
    assert start == [2, 20]
    fresh = found.begun(9, "spec", wanted, start, (10, 20))
    assert fresh == Meta(
        9,
        9,
        "spec",
        (2, 20),
        (10, 20),
        groups={USER: Group("user's", 3, (8, 20)), SHOP: Group("shop's", 3, (8, 20)), PAIR: Group("pair's", 9)},
    )
    assert fresh.rebuilding
    assert [fresh.incarnation_of(group) for group in (USER, SHOP, PAIR)] == [3, 3, 9]


def test_what_is_kept_is_read_on_from_where_it_is_even_if_the_rebuild_needs_less() -> None:
    found = plan(meta(8, 20), {**WANTED, PAIR: "pair's"}, (10, 25), (0, 0))
    assert found.start([9, 25]) == [8, 20]


def test_a_changed_group_alone_is_rebuilt() -> None:
    found = plan(meta(8, 20), {USER: "user's", SHOP: "another"}, (10, 20), (0, 0))
    assert found.kept == {USER: Group("user's", 3, (8, 20))}
    assert found.rebuilt.keys() == {SHOP}


def test_a_group_that_went_begins_an_incarnation_without_it_and_reads_nothing_again() -> None:
    found = plan(meta(8, 20), {USER: "user's"}, (10, 20), (0, 0))
    assert not found.resumes
    start = found.start(())
    assert start == [8, 20]
    fresh = found.begun(9, "spec", {USER: "user's"}, start, (10, 20))
    assert (fresh.groups, fresh.until) == ({USER: Group("user's", 3, (8, 20))}, ())
    # Were it wanted again, its rows would lack what came meanwhile.
    assert plan(fresh, WANTED, (10, 20), (0, 0)).rebuilt.keys() == {SHOP}


def test_a_rebuild_that_was_not_finished_is_resumed_where_it_began() -> None:
    interrupted = meta(2, 20, until=(10, 20), user=Group("user's", 1, (8, 20)), shop=Group("shop's", 3))
    found = plan(interrupted, WANTED, (12, 20), (0, 0))
    assert found.resumes
    assert found.start(()) == [2, 20]


def test_a_rebuild_that_was_not_finished_is_begun_anew_with_that_of_others() -> None:
    interrupted = meta(2, 20, until=(10, 20), user=Group("user's", 1, (8, 20)), shop=Group("shop's", 3))
    found = plan(interrupted, {**WANTED, PAIR: "pair's"}, (12, 20), (0, 0))
    assert found.kept == {USER: Group("user's", 1, (8, 20))}
    assert found.rebuilt == {PAIR: "no state is stored of these features", SHOP: "it was being rebuilt"}


def test_a_group_whose_log_was_cut_is_rebuilt_alone() -> None:
    interrupted = meta(2, 20, until=(10, 20), user=Group("user's", 1, (8, 20)), shop=Group("shop's", 3))
    found = plan(interrupted, WANTED, (12, 20), (5, 0))
    assert found.kept.keys() == {USER}
    assert "gone from Kafka" in found.rebuilt[SHOP]


def test_state_that_cannot_be_read_is_not_used_at_all() -> None:
    found = rebuild_all(WANTED, "broken")
    assert (found.kept, found.rebuilt) == ({}, {USER: "broken", SHOP: "broken"})


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


def test_a_rebuild_begins_within_the_log_and_no_later_than_what_is_committed() -> None:
    committed = [Position(10), Position(20), Position(30), Position(40)]
    assert rebuild_at(committed, (0, 5, 5, 5), (7, 3, 35, -1)) == [7, 5, 30, 40]
    assert rebuild_at(committed, (0, 5, 30, 0), None) == [0, 5, 30, 0]
