"""A spec that changes between two owners: what is kept goes on, what is new is rebuilt, and no value tells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features.checkpoint import Checkpoint
from features.engine import FeatureEngine
from features.feature import Aggregate, Op
from features.layout import Kind, Layout
from features.memory_store import MemoryStore
from features.spec import FeatureSpec
from features.store import Meta
from features.windows import MINUTE_MS, LastEvents, Window, parse_duration
from streams.recovery import plan
from tests.features.rounds import cut, run, vector
from tests.features.test_engine_oracle import SIZES, assert_same, expected
from tests.oracles.drawn import OTHER, SCORED, any_aggregates, arrivals, few_values, specs
from tests.oracles.features import Event

NOTHING_GONE = (0, 0)


def hashes_of(layout: Layout) -> dict[int, str]:
    return {kind.number: kind.hash for kind in layout.kinds}


async def taken_over(
    spec: FeatureSpec, store: MemoryStore, events: list[Event], *, rebuilt_from: int = 0
) -> tuple[FeatureEngine, list[Event]]:
    """An engine that owns both partitions, of which `events` were scored, as a worker takes them over; and the events
    that it has to read again, unscored.
    """
    engine = FeatureEngine(spec, store, capacity=1000)
    hashes = hashes_of(engine.layout)
    starts = []
    for partition in (0, 1):
        committed = vector(spec, events, partition)
        epoch, meta = await store.claim(partition)
        found = plan(meta, hashes, committed, NOTHING_GONE)
        start = found.start(vector(spec, events[:rebuilt_from], partition))
        if meta is None or not found.resumes:
            meta = found.begun(epoch, spec.state_hash, hashes, start, committed)
            await store.begin(partition, meta)
            engine.own(partition, meta, empty=True)
        else:
            engine.own(partition, meta, committed=committed)
        starts.append(start)
    again = [e._replace(scored=False) for e in events if e.offset >= starts[e.partition][e.stream]]
    return engine, again


async def checkpoint(engine: FeatureEngine, store: MemoryStore, events: list[Event]) -> list[Checkpoint]:
    copies = engine.snapshot({p: vector(engine.spec, events, p) for p in (0, 1)})
    for copy in copies:
        engine.written(copy, await store.write(copy.partition, copy.follows, copy.vector, copy.rows()))
    return copies


async def assert_evolves(
    before: FeatureSpec, after: FeatureSpec, events: list[Event], sizes: list[int], data: st.DataObject
) -> None:
    # 0 ─── checkpoint ─── stop: the owner dies ─── the next one, of another spec, dies in its first checkpoint ─── …
    first = data.draw(st.integers(0, len(events)))
    stop = data.draw(st.integers(first, len(events)))
    store = MemoryStore()
    engine, _ = await taken_over(before, store, [])
    await run(engine, cut(events[:first], sizes))
    await checkpoint(engine, store, events[:first])
    await run(engine, cut(events[first:stop], sizes))
    for _ in range(data.draw(st.integers(0, 2))):
        torn, again = await taken_over(after, store, events[:stop])
        await run(torn, cut(again, sizes))
        for copy in torn.snapshot({p: vector(after, events[:stop], p) for p in (0, 1)}):
            some = {key: packed for key, packed in copy.rows() if data.draw(st.booleans())}
            store._partitions[copy.partition].rows.update(some)
    evolved, again = await taken_over(after, store, events[:stop])
    await run(evolved, cut(again, sizes))
    middle = data.draw(st.integers(stop, len(events)))
    found = [await run(evolved, cut(events[stop:middle], sizes))]
    await checkpoint(evolved, store, events[:middle])
    restarted, again = await taken_over(after, store, events[:middle])
    await run(restarted, cut(again, sizes))
    found.append(await run(restarted, cut(events[middle:], sizes)))
    whole, _ = await taken_over(after, MemoryStore(), [])
    wanted = await run(whole, [events])
    scored = sum(e.scored and e.stream == 0 for e in events[:stop])
    assert np.concatenate(found).tobytes() == wanted[scored:].tobytes()


@given(specs(), specs(), arrivals(), SIZES, st.data())
@settings(max_examples=100, deadline=None)
async def test_state_that_evolved_anywhere_gives_what_one_run_of_the_new_spec_gives(
    one: FeatureSpec, other: FeatureSpec, events: list[Event], sizes: list[int], data: st.DataObject
) -> None:
    # Some features of the first remain, some of another come.
    kept = [f for f in one.features if data.draw(st.booleans())]
    come = [f for f in other.features if f.name not in {k.name for k in kept}]
    after = FeatureSpec(one.streams, (*kept, *come))
    await assert_evolves(one, after, events, sizes, data)


@given(any_aggregates(), any_aggregates(), few_values(), SIZES, st.data())
@settings(max_examples=50, deadline=None)
async def test_so_it_does_for_every_aggregation(
    one: FeatureSpec, other: FeatureSpec, events: list[Event], sizes: list[int], data: st.DataObject
) -> None:
    come = tuple(replace(f, name=f"new_{f.name}") for f in other.features if isinstance(f, Aggregate))
    await assert_evolves(one, FeatureSpec(one.streams, (*one.features, *come)), events, sizes, data)


@given(specs(), arrivals(), st.data())
@settings(max_examples=50, deadline=None)
async def test_a_feature_that_came_has_the_values_of_the_oracle(
    after: FeatureSpec, events: list[Event], data: st.DataObject
) -> None:
    stop = data.draw(st.integers(0, len(events)))
    store = MemoryStore()
    before = FeatureSpec(after.streams, after.features[:1])
    engine, _ = await taken_over(before, store, [])
    await run(engine, [events[:stop]])
    await checkpoint(engine, store, events[:stop])
    evolved, again = await taken_over(after, store, events[:stop])
    await run(evolved, [again])
    scored = sum(e.scored and e.stream == 0 for e in events[:stop])
    assert_same(await run(evolved, [events[stop:]]), expected(after, events)[scored:])


def user_count(name: str = "users", **changes: object) -> Aggregate:
    return replace(Aggregate(name, 0, ("user",), "count", None, Window.parse("1h")), **changes)  # type: ignore[arg-type]


def visit(offset: int, user: str, shop: float) -> Event:
    return Event(0, offset * MINUTE_MS, offset, 0, {"user": user, "shop": shop, "amount": 1.0, "tip": 1.0})


async def test_what_is_kept_is_neither_asked_for_nor_written_while_another_group_is_rebuilt() -> None:
    store = MemoryStore()
    visits = [visit(0, "ann", 7.0), visit(1, "bob", 7.0), visit(2, "ann", 8.0)]
    before = FeatureSpec((SCORED, OTHER), (user_count(),))
    engine, _ = await taken_over(before, store, [])
    await run(engine, [visits])
    await checkpoint(engine, store, visits)
    kept = dict(store._partitions[0].rows)
    after = FeatureSpec((SCORED, OTHER), (user_count(), user_count("shops", entity=("shop",))))
    evolved, again = await taken_over(after, store, visits)
    assert len(again) == 3
    await run(evolved, [again])
    assert {entity: (s.rows, s.misses) for entity, s in evolved.stats().items()} == {"user": (0, 0), "shop": (2, 3)}
    (copy,) = await checkpoint(evolved, store, visits)
    shop = evolved.layout.kinds[1].number
    assert {key for key, _ in copy.rows()} == {(shop, "7"), (shop, "8")}
    assert {key: row for key, row in store._partitions[0].rows.items() if key.group != shop} == kept
    assert (await run(evolved, [[visit(3, "ann", 7.0)]])).tolist() == [[2, 2]]


async def test_rows_of_a_group_that_went_and_came_again_are_not_taken_for_its_state() -> None:
    store = MemoryStore()
    users, shops = user_count(), user_count("shops", entity=("shop",))
    both, one = FeatureSpec((SCORED, OTHER), (users, shops)), FeatureSpec((SCORED, OTHER), (users,))
    events = [visit(0, "ann", 8.0), visit(1, "ann", 7.0), visit(2, "ann", 7.0), visit(3, "ann", 8.0)]
    for stop, spec in enumerate((both, one, both), start=1):
        engine, again = await taken_over(spec, store, events[: stop - 1], rebuilt_from=2)
        assert again == []  # as if the window reached no further back
        await run(engine, [events[stop - 1 : stop]])
        await checkpoint(engine, store, events[:stop])
    fresh, _ = await taken_over(both, store, events[:3])
    assert (await run(fresh, [events[3:]])).tolist() == [[3, 0]]


def kind_of(*aggregates: Aggregate) -> Kind:
    (kind,) = Layout(FeatureSpec((SCORED, OTHER), aggregates)).kinds
    return kind


def of(op: Op, window: str | int | None = "1h", name: str = "", **changes: object) -> Aggregate:
    found = None if window is None else LastEvents(window) if isinstance(window, int) else Window.parse(window)
    field = None if op in ("count", "rate", "since_last") else "tip"
    within = None if isinstance(found, Window) else parse_duration("1d")
    made = Aggregate(name or f"{op}_{window}", 0, ("user",), op, field, found, within)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_features_that_read_what_is_kept_already_leave_a_group_as_it_is() -> None:
    kept = kind_of(of("count", "3h"), of("sum", "3h"), of("variance", "3h")).hash
    assert kind_of(of("count", "3h", name="visits"), of("sum", "3h"), of("variance", "3h")).hash == kept
    assert kind_of(of("count", "3h"), of("sum", "3h"), of("std", "3h")).hash == kept
    assert kind_of(of("count", "3h"), of("sum", "3h"), of("variance", "3h"), of("rate", "1h")).hash == kept
    third = of("lag", None, param=3)
    assert kind_of(third, of("lag", None, "first", param=1)).hash == kind_of(third).hash


def test_a_group_is_another_one_as_soon_as_it_keeps_something_else() -> None:
    declared = [
        (of("count"),),
        (of("count", "3h"),),
        (of("count", "24h"),),
        (of("count", entity=("shop",)),),
        (of("count", stream=1),),
        (of("sum"),),
        (of("sum", field="amount"),),
        (of("sum"), of("count")),
        (of("count"), of("sum")),
        (of("mean"),),
        (of("mean", field="amount"),),
        (of("distinct"),),
        (of("distinct", field="user"),),
        (of("last", None),),
        (of("last", None, within_ms=parse_duration("2d")),),
        (of("lag", None, param=2),),
        (of("sum", 3),),
        (of("sum", 5),),
        (of("sum", 5, within_ms=parse_duration("2d")),),
        (of("decayed_count", None, field=None, param=parse_duration("1h")),),
        (of("decayed_count", None, field=None, param=parse_duration("2h")),),
    ]
    hashes = [kind_of(*aggregates).hash for aggregates in declared]
    assert len(set(hashes)) == len(hashes)
    assert len({kind_of(*aggregates).number for aggregates in declared}) == len(hashes)


def test_a_group_does_not_go_by_what_others_keep() -> None:
    alone = kind_of(of("sum"), of("mean", field="amount"))
    other = of("sum", name="other", entity=("shop",), field="amount")
    kinds = Layout(FeatureSpec((SCORED, OTHER), (other, of("sum"), of("mean", field="amount")))).kinds
    assert kinds[1].hash == alone.hash
    others = replace(OTHER, fields=tuple(replace(f, nullable=True) for f in OTHER.fields))
    (kind,) = Layout(FeatureSpec((SCORED, others), (of("sum"), of("mean", field="amount")))).kinds
    assert kind.hash == alone.hash


async def test_a_record_of_the_store_without_groups_is_of_another_release_and_begun_anew() -> None:
    spec = FeatureSpec((SCORED, OTHER), (user_count(),))
    hashes = hashes_of(Layout(spec))
    found = plan(Meta(1, 1, spec.state_hash, (2, 0)), hashes, (2, 0), NOTHING_GONE)
    assert found.rebuilt.keys() == hashes.keys()
