"""The engine by examples: what a read covers, what a checkpoint holds, who may leave the cache."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from features.codec import CodecError
from features.engine import FeatureEngine, Stats
from features.matrix import FeatureError
from features.round import Segment, StreamColumns
from features.spec import (
    Aggregate,
    Category,
    Computed,
    Feature,
    FeatureSpec,
    Field,
    Hashed,
    Op,
    Stream,
    Value,
    Vocabulary,
)
from features.store import Meta, RowKey, StoreUnavailable, Wanted
from features.windows import HOUR_MS, MINUTE_MS, Window
from tests.features.rounds import DictStore, owning, round_of, run
from tests.oracles.features import Event

PAYMENTS = Stream(
    "payments",
    (
        Field("user", "string", nullable=True),
        Field("amount", "number"),
        Field("tip", "number", nullable=True),
    ),
)
CHARGES = Stream("charges", (Field("user", "string"), Field("amount", "number")))


def aggregate(op: Op, window: str | None = None, field: str | None = "tip", stream: int = 0) -> Aggregate:
    if op in ("count", "since_last"):
        field = None
    name = f"{op}_{window}" if window else op
    within = None if window else HOUR_MS
    return Aggregate(name, stream, ("user",), op, field, Window.parse(window) if window else None, within)


def spec_of(*features: Feature) -> FeatureSpec:
    return FeatureSpec((PAYMENTS, CHARGES), features)


def only(engine: FeatureEngine) -> Stats:
    """What an engine of one entity kind holds."""
    (stats,) = engine.stats().values()
    return stats


def payment(
    minute: float,
    offset: int,
    user: str | None = "ann",
    tip: float = 1.0,
    *,
    stream: int = 0,
    partition: int = 0,
) -> Event:
    fields = {"user": user, "amount": tip} | ({"tip": tip} if stream == 0 else {})
    return Event(stream, int(minute * MINUTE_MS), offset, partition, fields)


async def column(feature: Aggregate, events: Sequence[Event]) -> list[float]:
    engine = owning(spec_of(feature), DictStore())
    return [float(value) for value in (await run(engine, [events]))[:, 0]]


async def test_a_read_covers_whole_panes_and_never_its_own_event() -> None:
    # pane (5 m):  0    1    2  …  11   12        n = 12
    #              a         b          c         c reads (0, 12]: b; a is a window back
    events = [payment(4, 0, tip=1), payment(10, 1, tip=2), payment(60, 2, tip=4), payment(62, 3, tip=8)]
    assert await column(aggregate("sum", "1h"), events) == [0.0, 1.0, 2.0, 6.0]


async def test_a_pane_whose_place_in_the_ring_comes_round_again_begins_empty() -> None:
    # pane (5 m):  0    1  …  11 | 12   13  …     slot 0 is pane 0, then 12, then 24
    events = [payment(5 * pane, pane) for pane in range(40)]
    assert await column(aggregate("count", "1h"), events) == [min(pane, 11) for pane in range(40)]
    jumps = [payment(5 * pane, at) for at, pane in enumerate((0, 1, 13, 14, 100, 111, 112))]
    assert await column(aggregate("count", "1h"), jumps) == [0, 1, 0, 1, 0, 1, 1]


async def test_an_event_out_of_order_reads_up_to_its_own_pane() -> None:
    # pane (5 m):  1    2    3        the event in 2 comes after that in 3, and reads (-9, 2]
    events = [payment(5, 0), payment(15, 1), payment(10, 2), payment(15, 3)]
    assert await column(aggregate("count", "1h"), events) == [0.0, 1.0, 1.0, 3.0]


async def test_an_event_a_window_late_reads_nothing_and_is_not_added() -> None:
    # pane (5 m):  0   …   12         head 12, n = 12: pane 0 is late, pane 1 is not
    events = [payment(60, 0), payment(4, 1), payment(5, 2), payment(60, 3)]
    found = await column(aggregate("count", "1h"), events)
    assert found[0] == 0.0
    assert math.isnan(found[1])
    assert found[2:] == [0.0, 2.0]


async def test_late_for_a_short_window_is_not_late_for_a_longer_one_of_the_same_panes() -> None:
    short, long = aggregate("count", "1h"), aggregate("count", "3h")
    engine = owning(spec_of(short, long), DictStore())
    found = await run(engine, [[payment(60, 0), payment(4, 1), payment(60, 2)]])
    assert math.isnan(found[1, 0])
    assert found[:, 1].tolist() == [0.0, 0.0, 2.0]
    assert found[2, 0] == 1.0


async def test_a_read_does_not_move_the_newest_pane() -> None:
    # Requests read what charges feed: one of noon must not make the charges of eleven late.
    feature = Aggregate("sum", 1, ("user",), "sum", "amount", Window.parse("1h"))
    events = [payment(720, 0), payment(600, 0, tip=5, stream=1), payment(601, 1)]
    assert await column(feature, events) == [0.0, 5.0]


async def test_late_events_of_a_stream_that_only_feeds_are_counted() -> None:
    feature = Aggregate("sum", 1, ("user",), "sum", "amount", Window.parse("1h"))
    engine = owning(spec_of(feature), DictStore())
    await run(engine, [[payment(120, 0, stream=1), payment(1, 1, stream=1)]])
    assert engine.late == {"sum": 1}


async def test_nothing_sums_to_zero_and_has_no_mean() -> None:
    ops: tuple[Op, ...] = ("count", "sum", "mean", "min", "max", "last", "since_last")
    engine = owning(spec_of(*[aggregate(op, None if "last" in op else "1h") for op in ops]), DictStore())
    for user in ("ann", None):
        found = await run(engine, [[payment(1, 0, user)]])
        assert found[0, :2].tolist() == [0.0, 0.0]
        assert np.isnan(found[0, 2:]).all()
    assert only(engine).rows == 1


async def test_null_values_are_events_but_not_values() -> None:
    nan = float("nan")
    events = [payment(1, 0, tip=3.0), payment(1, 1, tip=nan), payment(1, 2)]
    assert (await column(aggregate("count", "1h"), events))[2] == 2.0
    events = [event._replace(fields={**event.fields, "amount": 1.0}) for event in events]
    for op in ("sum", "mean", "min", "max", "last"):
        window = None if op == "last" else "1h"
        assert (await column(aggregate(op, window), events))[2] == 3.0


async def test_last_is_of_the_latest_event_time_and_of_ties_the_later_arrival() -> None:
    events = [payment(2, 0, tip=1), payment(2, 1, tip=2), payment(1, 2, tip=3), payment(3, 3)]
    found = await column(aggregate("last"), events)
    assert found[1] == 1.0
    assert math.isnan(found[2])  # as of minute 1, what came at 2 was not known
    assert found[3] == 2.0


async def test_what_is_older_than_within_is_missing() -> None:
    found = await column(aggregate("since_last"), [payment(0, 0), payment(60, 1), payment(120.1, 2)])
    assert found[1] == 3600.0
    assert math.isnan(found[2])


async def test_times_at_the_ends_of_int64_do_no_harm() -> None:
    ends = [0, -(2**63), 2**63 - 1, -1, 5]
    events = [payment(1, i)._replace(time=time) for i, time in enumerate(ends)]
    for feature in (aggregate("sum", "12ms"), aggregate("count", "12h"), aggregate("since_last")):
        assert len(await column(feature, events)) == len(ends)


async def test_the_matrix_has_every_feature_in_declared_order() -> None:
    spec = spec_of(
        Value("amount", "amount"),
        aggregate("sum", "1h"),
        Category("who", "user", Vocabulary(("bob", "ann"))),
        Computed("twice", lambda e: e["amount"] * 2),
        Category("hashed", "user", Hashed(8)),
    )
    engine = owning(spec, DictStore())
    arrived = round_of(spec, [payment(1, 0, tip=3), payment(1, 1, None, tip=4), payment(1, 2, tip=5)])
    await engine.load(arrived)
    found = engine.process(arrived)
    assert found.matrix.dtype == np.float32
    assert found.matrix[:, :4].tolist() == [[3, 0, 1, 6], [4, 0, 2, 8], [5, 3, 1, 10]]
    assert found.matrix[1, 4] == 8
    assert list(found.logged) == list(spec.names)
    assert found.logged["who"] == ["ann", None, "ann"]
    assert found.logged["twice"].tolist() == [6, 8, 10]  # type: ignore[union-attr]


async def test_only_the_scored_records_get_features_and_all_update_the_state() -> None:
    spec = spec_of(
        aggregate("count", "1h"),
        Category("who", "user", Hashed(8)),
        Computed("n", lambda e: np.full(len(e["user"]), float(len(e["user"])))),
    )
    engine = owning(spec, DictStore())
    events = [payment(1, 0)._replace(scored=False), payment(1, 1), payment(1, 0, stream=1)]
    arrived = round_of(spec, events)
    await engine.load(arrived)
    found = engine.process(arrived)
    assert found.matrix[:, [0, 2]].tolist() == [[1, 1]]
    assert found.logged["who"] == ["ann"]
    arrived = round_of(spec, [payment(1, 1, stream=1)])
    await engine.load(arrived)
    assert engine.process(arrived).matrix.shape == (0, 3)


async def test_a_spec_without_aggregates_keeps_no_state() -> None:
    spec = spec_of(Value("amount", "amount"))
    engine = FeatureEngine(spec, DictStore())
    engine.own(0, Meta(0, 0, spec.state_hash, ()), empty=True)
    arrived = round_of(spec, [payment(1, 0, tip=3)])
    await engine.load(arrived)
    assert engine.process(arrived).matrix.tolist() == [[3]]
    assert engine.snapshot({0: (1, 0)}) == []


async def test_one_key_in_two_partitions_is_two_entities() -> None:
    events = [payment(1, 0), payment(1, 0, partition=1), payment(1, 1)]
    assert await column(aggregate("count", "1h"), events) == [0.0, 0.0, 1.0]


async def test_an_integer_too_large_for_a_float_still_names_its_own_entity() -> None:
    stream = Stream("s", (Field("id", "number"),))
    spec = FeatureSpec((stream,), (Aggregate("n", 0, ("id",), "count", None, Window.parse("1h")),))
    engine = owning(spec, DictStore())
    ids = np.array([2**60, 2**60 + 1, 2**60])
    arrived = (StreamColumns(0, (Segment(0, 0, 3),), np.arange(3), np.zeros(3, dtype=np.int64), {"id": ids}),)
    await engine.load(arrived)
    assert engine.process(arrived).matrix[:, 0].tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda e: e["nothing"], "KeyError: 'nothing'"),
        (lambda e: 1.0, "ValueError: it returned shape () for 2 events, not (2,)"),
        (lambda e: ["x"] * len(e["amount"]), "ValueError: could not convert string to float"),
    ],
)
async def test_a_computed_feature_that_fails_is_null_and_named_and_the_event_still_counts(
    function: Any, message: str
) -> None:
    spec = spec_of(aggregate("count", "1h"), Computed("night", function))
    engine = owning(spec, DictStore())
    arrived = round_of(spec, [payment(1, 0), payment(1, 1)])
    await engine.load(arrived)
    found = engine.process(arrived)
    assert np.isnan(found.matrix[:, 1]).all()
    assert found.matrix[:, 0].tolist() == [0.0, 1.0]
    assert found.failed["night"].events == 2
    assert message in found.failed["night"].reason


async def test_a_computed_feature_fails_only_for_the_events_that_it_cannot_do() -> None:
    def inverse(e: Any) -> Any:
        if (e["amount"] == 0).any():
            raise ZeroDivisionError
        return 1 / e["amount"]

    spec = spec_of(aggregate("count", "1h"), Computed("inverse", inverse))
    engine = owning(spec, DictStore())
    arrived = round_of(spec, [payment(1, 0, tip=2.0), payment(1, 1, tip=0.0)])
    await engine.load(arrived)
    found = engine.process(arrived)
    assert found.matrix[0, 1] == 0.5
    assert np.isnan(found.matrix[1, 1])
    assert found.failed["inverse"].events == 1


async def test_a_null_where_none_can_be_is_an_error_that_names_the_field() -> None:
    spec = spec_of(aggregate("mean", "1h", "amount"))
    engine = owning(spec, DictStore())
    arrived = round_of(spec, [payment(1, 0, tip=float("nan"))])
    await engine.load(arrived)
    with pytest.raises(FeatureError, match="field amount of payments holds a null"):
        engine.process(arrived)


async def test_a_round_is_processed_once_and_only_after_it_was_loaded() -> None:
    spec = spec_of(aggregate("count", "1h"))
    engine = owning(spec, DictStore())
    arrived = round_of(spec, [payment(1, 0)])
    with pytest.raises(FeatureError, match="call load"):
        engine.process(arrived)
    await engine.load(arrived)
    engine.process(arrived)
    with pytest.raises(FeatureError, match="call load"):
        engine.process(arrived)
    with pytest.raises(FeatureError, match="partition 7 is not owned"):
        await engine.load(round_of(spec, [payment(1, 0, partition=7)]))


async def test_two_streams_in_a_round_need_an_order() -> None:
    spec = spec_of(aggregate("count", "1h"))
    engine = owning(spec, DictStore())
    (first, second) = round_of(spec, [payment(1, 0), payment(1, 0, stream=1)])
    unordered = (first, StreamColumns(1, second.segments, second.offsets, second.times, second.fields))
    await engine.load(unordered)
    with pytest.raises(FeatureError, match="order"):
        engine.process(unordered)


async def test_offsets_that_a_loaded_row_covers_are_not_added_again() -> None:
    store = DictStore()
    engine = owning(spec := spec_of(aggregate("count", "1h")), store)
    await run(engine, [[payment(1, 0), payment(1, 1)]])
    (copy,) = engine.snapshot({0: (2, 0)})
    store.rows.update({(0, key): data for key, data in copy.rows()})  # the meta stays behind
    again = owning(spec, store)
    await run(again, [[payment(1, 0), payment(1, 1)]])
    assert (await run(again, [[payment(1, 2)]])).tolist() == [[2.0]]
    # A checkpoint from the middle of such a replay does not take the row back.
    behind = owning(spec, store)
    await run(behind, [[payment(1, 0)]])
    assert list(behind.snapshot({0: (1, 0)})[0].rows()) == []


async def test_rows_changed_while_they_are_written_stay_dirty() -> None:
    store = DictStore()
    engine = owning(spec_of(aggregate("count", "1h")), store)
    await run(engine, [[payment(1, 0), payment(1, 1, "bob")]])
    (first,) = engine.snapshot({0: (2, 0)})
    await run(engine, [[payment(1, 2)]])
    assert engine.snapshot({0: (3, 0)}) == []  # one at a time
    engine.written(first, await store.write(0, first.follows, first.vector, first.rows()))
    (second,) = engine.snapshot({0: (3, 0)})
    assert [key.key for key, _ in second.rows()] == ["ann"]
    assert second.follows.vector == (2, 0)


async def test_rows_of_a_failed_write_come_again_with_the_next_in_their_newest_state() -> None:
    engine = owning(spec_of(aggregate("count", "1h")), DictStore())
    await run(engine, [[payment(1, 0), payment(1, 1, "bob")]])
    (first,) = engine.snapshot({0: (2, 0)})
    await run(engine, [[payment(1, 2)]])
    engine.write_failed(first)
    (second,) = engine.snapshot({0: (3, 0)})
    before, after = dict(first.rows()), dict(second.rows())
    number = engine.layout.kinds[0].number
    ann, bob = RowKey(number, "ann"), RowKey(number, "bob")
    assert set(after) == {ann, bob}
    assert after[ann] != before[ann]
    assert after[bob][32:] == before[bob][32:]  # all but incarnation and vector


async def test_a_checkpoint_without_rows_still_moves_the_vector() -> None:
    feature = Aggregate("sum", 1, ("user",), "sum", "amount", Window.parse("1h"))
    engine = owning(spec_of(feature), DictStore())
    await run(engine, [[payment(1, 0)]])
    (copy,) = engine.snapshot({0: (1, 0)})
    assert list(copy.rows()) == []
    assert copy.vector == (1, 0)


async def test_a_late_answer_about_a_partition_that_came_back_is_ignored() -> None:
    store = DictStore()
    engine = owning(spec_of(aggregate("count", "1h")), store)
    await run(engine, [[payment(1, 0)]])
    (stale,) = engine.snapshot({0: (1, 0)})
    engine.own(0, store.metas[0])
    await run(engine, [[payment(1, 0)]])
    (copy,) = engine.snapshot({0: (1, 0)})
    engine.written(stale, stale.follows)
    engine.write_failed(copy)
    assert len(engine.snapshot({0: (1, 0)})) == 1


async def test_clean_rows_make_room_and_come_back_from_the_store() -> None:
    store = DictStore()
    engine = owning(spec_of(aggregate("count", "1h")), store, capacity=2)
    for offset, user in enumerate("abcdabcd"):
        found = await run(engine, [[payment(1, offset, user)]])
        assert found.tolist() == [[offset // 4]]
        (copy,) = engine.snapshot({0: (offset + 1, 0)})
        engine.written(copy, await store.write(0, copy.follows, copy.vector, copy.rows()))
    stats = only(engine)
    assert stats.rows == 2
    assert stats.evictions == 6
    assert stats.over_bound == 0
    assert (stats.hits, stats.misses) == (0, 8)


async def test_a_row_that_covers_more_than_was_committed_is_refused_and_an_owners_own_rows_are_not() -> None:
    store = DictStore()
    spec = spec_of(aggregate("count", "1h"))
    before = owning(spec, store)
    await run(before, [[payment(1, offset, user) for offset, user in enumerate("aab")]])
    (copy,) = before.snapshot({0: (3, 0)})
    await store.write(0, copy.follows, copy.vector, copy.rows())
    store.metas[0] = copy.follows  # the write was not finished: rows without their meta
    engine = FeatureEngine(spec, store, capacity=1)
    engine.own(0, store.metas[0], committed=(2, 0))  # and somebody set the offsets back
    with pytest.raises(CodecError, match=r"'b': it covers \[3, 0\], beyond what was committed, \[2, 0\]"):
        await run(engine, [[payment(1, 2, "b")]])
    engine.own(0, store.metas[0], committed=(3, 0))
    assert (await run(engine, [[payment(1, 3, "a")]])).tolist() == [[2]]
    (copy,) = engine.snapshot({0: (4, 0)})
    engine.written(copy, await store.write(0, copy.follows, copy.vector, copy.rows()))
    assert (await run(engine, [[payment(1, 4, "b")]])).tolist() == [[1]]
    assert (await run(engine, [[payment(1, 5, "a")]])).tolist() == [[3]], "written by this owner, and evicted"


async def test_unwritten_rows_are_kept_beyond_the_bound_and_counted() -> None:
    engine = owning(spec_of(aggregate("count", "1h")), DictStore(), capacity=2)
    await run(engine, [[payment(1, offset, user)] for offset, user in enumerate("abcd")])
    engine.snapshot({0: (4, 0)})  # being written is no better
    await run(engine, [[payment(1, 4, "e")]])
    assert only(engine).rows == 5
    assert only(engine).over_bound == 3
    assert only(engine).evictions == 0


async def test_it_is_crowded_while_more_than_half_of_the_bound_waits_for_checkpoints_that_can_come() -> None:
    store = DictStore()
    engine = owning(spec_of(aggregate("count", "1h")), store, capacity=8)
    store.metas[1] = Meta(1, 1, engine.spec.state_hash, (0, 0))
    engine.own(1, store.metas[1])
    await run(engine, [[payment(1, offset, user)] for offset, user in enumerate("abcd")])
    assert not engine.crowded([0, 1])
    await run(engine, [[payment(1, 4, "e")]])
    assert engine.crowded([0, 1])
    assert not engine.crowded([1]), "of that partition nothing waits"
    (copy,) = engine.snapshot({0: (5, 0)})
    assert engine.crowded([0, 1]), "what is being written still takes room"
    engine.written(copy, await store.write(0, copy.follows, copy.vector, copy.rows()))
    assert not engine.crowded([0, 1])


async def test_after_a_time_in_which_the_store_took_nothing_the_rows_go_back_to_their_bound() -> None:
    store = DictStore()
    engine = owning(spec_of(aggregate("count", "1h")), store, capacity=2)
    await run(engine, [[payment(1, offset, user)] for offset, user in enumerate("abcd")])
    (copy,) = engine.snapshot({0: (4, 0)})
    engine.write_failed(copy)
    assert only(engine).rows == 4
    (copy,) = engine.snapshot({0: (4, 0)})
    await engine.load(last := round_of(engine.spec, [payment(1, 4, "a")]))
    engine.written(copy, await store.write(0, copy.follows, copy.vector, copy.rows()))
    assert only(engine).rows == 2
    assert engine.process(last).aggregates.tolist() == [[1]], "a row that a round is about to use stays"


async def test_a_partition_that_began_empty_asks_the_store_for_nothing_until_a_row_has_gone() -> None:
    store = DictStore()
    spec = spec_of(aggregate("count", "1h"))
    engine = FeatureEngine(spec, store, capacity=2)
    store.metas[0] = Meta(1, 1, spec.state_hash, (0, 0))
    engine.own(0, store.metas[0], empty=True)
    await run(engine, [[payment(1, 0, "a"), payment(1, 1, "b")]])
    assert store.loads == []
    (copy,) = engine.snapshot({0: (2, 0)})
    engine.written(copy, await store.write(0, copy.follows, copy.vector, copy.rows()))
    await run(engine, [[payment(1, 2, "c")]])
    assert store.loads == []
    assert (await run(engine, [[payment(1, 3, "a"), payment(1, 4, "b")]])).tolist() == [[1], [1]]
    assert len(store.loads) == 1


async def test_one_request_a_round_asks_for_each_missing_row_once() -> None:
    store = DictStore()
    both = (aggregate("count", "1h"), Aggregate("n", 1, ("user",), "sum", "amount", Window.parse("1h")))
    engine = owning(spec_of(*both), store)
    events = [payment(1, 0), payment(1, 0, stream=1), payment(1, 1, "bob"), payment(1, 0, "ann", partition=1)]
    await run(engine, [events])
    number = engine.layout.kinds[0].number
    assert store.loads == [{0: [RowKey(number, "ann"), RowKey(number, "bob")], 1: [RowKey(number, "ann")]}]


class FailingStore(DictStore):
    """Fails its first load."""

    async def load(self, wanted: Wanted, metas: Mapping[int, Meta]) -> dict[int, list[bytes | None]]:
        await super().load(wanted, metas)
        if len(self.loads) == 1:
            raise StoreUnavailable("down")
        return {p: [self.rows.get((p, key)) for key in keys] for p, keys in wanted.items()}


async def test_a_load_that_fails_can_be_tried_again() -> None:
    engine = owning(spec_of(aggregate("count", "1h")), store := FailingStore())
    with pytest.raises(StoreUnavailable):
        await run(engine, [[payment(1, 0)]])
    assert only(engine).rows == 0
    assert (await run(engine, [[payment(1, 0), payment(1, 1)]])).tolist() == [[0], [1]]
    assert len(store.loads) == 2


async def test_a_row_of_another_entity_is_refused_and_one_of_another_incarnation_absent() -> None:
    store = DictStore()
    spec = spec_of(aggregate("count", "1h"))
    engine = owning(spec, store)
    await run(engine, [[payment(1, 0)]])
    (copy,) = engine.snapshot({0: (1, 0)})
    ((key, packed),) = copy.rows()
    store.rows[0, key._replace(key="bob")] = packed
    with pytest.raises(CodecError, match="'bob': the stored row is of 'ann'"):
        await run(owning(spec, store), [[payment(1, 1, "bob")]])
    store.rows = {(0, key): packed}
    store.metas[0] = Meta(2, 2, spec.state_hash, (0, 0))
    assert (await run(owning(spec, store), [[payment(1, 1)]])).tolist() == [[0]]


@dataclass
class WaitingStore(DictStore):
    """Answers when it is let go."""

    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def load(self, wanted: Wanted, metas: Mapping[int, Meta]) -> dict[int, list[bytes | None]]:
        await self.go.wait()
        return await super().load(wanted, metas)


async def test_a_partition_released_while_its_rows_are_loaded_is_an_error_of_that_load() -> None:
    store = WaitingStore()
    engine = owning(spec := spec_of(aggregate("count", "1h")), store)
    loading = asyncio.create_task(engine.load(round_of(spec, [payment(1, 0)])))
    await asyncio.sleep(0)
    engine.own(0, store.metas[0])  # gone, and back
    store.go.set()
    with pytest.raises(FeatureError, match="went while its rows were loaded"):
        await loading
    assert only(engine).rows == 0


async def test_releasing_a_partition_forgets_its_rows_and_no_others() -> None:
    store = DictStore()
    engine = owning(spec_of(aggregate("count", "1h")), store)
    await run(engine, [[payment(1, 0), payment(1, 0, partition=1)]])
    engine.release(0)
    assert only(engine).rows == 1
    engine.own(0, store.metas[0])
    found = await run(engine, [[payment(1, 1), payment(1, 1, partition=1)]])
    assert found.tolist() == [[0], [1]]
