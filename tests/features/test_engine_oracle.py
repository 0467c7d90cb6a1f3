"""The engine against the brute-force oracle, over whatever hypothesis thinks of."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features.checkpoint import Checkpoint
from features.engine import FeatureEngine
from features.spec import Aggregate, FeatureSpec, Op
from features.windows import MINUTE_MS, Window
from tests.features.rounds import DictStore, cut, owning, run, vector
from tests.oracles.drawn import OTHER, SCORED, WINDOWS, any_aggregates, arrivals, few_values, specs
from tests.oracles.features import Event, Oracle
from tests.oracles.near import SKETCH_ERROR, sketches

SIZES = st.lists(st.integers(1, 12), max_size=5)


def expected(spec: FeatureSpec, events: list[Event]) -> np.ndarray:
    """The oracle's aggregates float64 [n, a], NaN for missing."""
    oracle = Oracle(spec)
    found = [features for event in events if (features := oracle.see(event)) is not None]
    rows = [[features[name] for name in spec.names] for features in found]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(spec.names))


def assert_same(found: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=0, equal_nan=True)


@given(specs(), arrivals(), SIZES)
@settings(max_examples=150, deadline=None)
async def test_values_and_late_counts_are_those_of_the_oracle(
    spec: FeatureSpec, events: list[Event], sizes: list[int]
) -> None:
    engine = owning(spec, DictStore())
    assert_same(await run(engine, cut(events, sizes)), expected(spec, events))
    oracle = Oracle(spec)
    for event in events:
        oracle.see(event)
    assert {name: n for name, n in engine.late.items() if n} == {
        name: n for name, n in oracle.late.items() if n
    }


@given(any_aggregates(), few_values(), SIZES)
@settings(max_examples=150, deadline=None)
async def test_every_aggregation_over_every_window_is_that_of_the_oracle(
    spec: FeatureSpec, events: list[Event], sizes: list[int]
) -> None:
    engine = owning(spec, DictStore())
    found = await run(engine, cut(events, sizes))
    wanted = expected(spec, events)
    # Bins of quantiles are 0.2 % wide. Weights and squared differences are rounded otherwise here.
    binned = np.isin(spec.names, list(sketches(spec)))
    np.testing.assert_allclose(found[:, binned], wanted[:, binned], rtol=SKETCH_ERROR, atol=0, equal_nan=True)
    np.testing.assert_allclose(found[:, ~binned], wanted[:, ~binned], rtol=1e-9, atol=1e-6, equal_nan=True)


@given(any_aggregates(), few_values(), SIZES, st.data())
@settings(max_examples=75, deadline=None)
async def test_the_state_of_every_aggregation_survives_a_restart(
    spec: FeatureSpec, events: list[Event], sizes: list[int], data: st.DataObject
) -> None:
    stop = data.draw(st.integers(0, len(events)))
    store = DictStore()
    engine = owning(spec, store)
    before = await run(engine, cut(events[:stop], sizes))
    await checkpoint(engine, store, events[:stop])
    after = await run(owning(spec, store), cut(events[stop:], sizes))
    uninterrupted = await run(owning(spec, DictStore()), [events])
    assert np.concatenate([before, after]).tobytes() == uninterrupted.tobytes()


@given(specs(), arrivals(), SIZES, SIZES)
@settings(max_examples=50, deadline=None)
async def test_values_are_equal_byte_for_byte_wherever_rounds_are_cut(
    spec: FeatureSpec, events: list[Event], sizes: list[int], others: list[int]
) -> None:
    found = await run(owning(spec, DictStore()), cut(events, sizes))
    again = await run(owning(spec, DictStore()), cut(events, others))
    assert found.tobytes() == again.tobytes()


@given(specs(), arrivals(), SIZES, st.data())
@settings(max_examples=100, deadline=None)
async def test_a_restart_in_mid_checkpoint_changes_nothing(
    spec: FeatureSpec, events: list[Event], sizes: list[int], data: st.DataObject
) -> None:
    # 0 ───── first checkpoint ───── second, torn: some of its rows written, meta not ───── crash
    #                  └ replay, unscored: rows of the second skip what they cover ┘└ scored again
    first = data.draw(st.integers(0, len(events)))
    second = data.draw(st.integers(first, len(events)))
    store = DictStore()
    engine = owning(spec, store)
    before = await run(engine, cut(events[:first], sizes))
    await checkpoint(engine, store, events[:first])
    between = await run(engine, cut(events[first:second], sizes))
    for torn in engine.snapshot({p: vector(spec, events[:second], p) for p in (0, 1)}):
        for key, packed in torn.rows():
            if data.draw(st.booleans()):
                store.rows[torn.partition, key] = packed
    restarted = owning(spec, store)
    replayed = [event._replace(scored=False) for event in events[first:second]]
    await run(restarted, cut(replayed, sizes))
    after = await run(restarted, cut(events[second:], sizes))
    uninterrupted = await run(owning(spec, DictStore()), cut(events, sizes))
    assert np.concatenate([before, between, after]).tobytes() == uninterrupted.tobytes()


async def checkpoint(engine: FeatureEngine, store: DictStore, events: list[Event]) -> None:
    for copy in engine.snapshot({p: vector(engine.spec, events, p) for p in (0, 1)}):
        engine.written(copy, await store.write(copy.partition, copy.follows, copy.vector, copy.rows()))


@given(specs(), arrivals(), SIZES, st.data())
@settings(max_examples=100, deadline=None)
async def test_a_cache_of_one_row_gives_the_same_values(
    spec: FeatureSpec, events: list[Event], sizes: list[int], data: st.DataObject
) -> None:
    store = DictStore()
    engine = owning(spec, store, capacity=1)
    found: list[np.ndarray] = []
    pending: list[Checkpoint] = []
    done = 0
    for piece in cut(events, sizes):
        found.append(await run(engine, [piece]))
        done += len(piece)
        # A checkpoint is written, fails, or is still under way while later rounds change its rows.
        for copy in pending:
            if data.draw(st.booleans()):
                engine.written(copy, await store.write(copy.partition, copy.follows, copy.vector, copy.rows()))
            else:
                engine.write_failed(copy)
        pending = engine.snapshot({p: vector(spec, events[:done], p) for p in (0, 1)})
    wanted = await run(owning(spec, DictStore()), [events])
    found.append(np.empty((0, len(spec.names))))
    assert np.concatenate(found).tobytes() == wanted.tobytes()


async def test_a_long_stream_that_mostly_moves_on_goes_round_its_rings_many_times() -> None:
    random = np.random.default_rng(7)
    ops: tuple[Op, ...] = ("count", "sum", "mean", "min", "max")
    spec = FeatureSpec(
        (SCORED, OTHER),
        tuple(
            Aggregate(f"{op}_{text}", 0, ("user",), op, None if op == "count" else "tip", Window.parse(text))
            for op in ops
            for text in WINDOWS
        ),
    )
    minutes = np.cumsum(random.integers(0, 12, 3000)) - random.exponential(30, 3000).astype(int)
    events = [
        Event(
            0,
            int(minute) * MINUTE_MS,
            offset,
            0,
            {
                "user": random.choice(["ann", "bob"]),
                "shop": 1.0,
                "amount": 1.0,
                "tip": float(random.choice([random.normal(), np.nan])),
            },
        )
        for offset, minute in enumerate(minutes)
    ]
    assert_same(await run(owning(spec, DictStore()), cut(events, [97])), expected(spec, events))
