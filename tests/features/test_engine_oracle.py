"""The engine against the brute-force oracle, over whatever hypothesis thinks of."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features.checkpoint import Checkpoint
from features.engine import FeatureEngine
from features.spec import Aggregate, FeatureSpec, Field, Op, Stream
from features.windows import HOUR_MS, MINUTE_MS, Window
from tests.features.rounds import DictStore, cut, owning, run, vector
from tests.oracles.features import Event, Oracle

SCORED = Stream(
    "requests",
    (
        Field("user", "string", nullable=True),
        Field("shop", "number", nullable=True),
        Field("amount", "number"),
        Field("tip", "number", nullable=True),
    ),
)
OTHER = Stream(
    "visits",
    (Field("user", "string"), Field("shop", "number", nullable=True), Field("tip", "number", nullable=True)),
)
# Panes: 2.5 min, 5 min (1h and 3h share their banks), 1 h. Times step by a pane or so, or jump within 60 h,
# in whole minutes: ties, gaps longer than a window, events out of order and events too late all happen.
WINDOWS = ("30m", "1h", "3h", "12h")


@st.composite
def specs(draw: st.DrawFn) -> FeatureSpec:
    aggregates: dict[str, Aggregate] = {}
    for _ in range(draw(st.integers(1, 8))):
        stream = draw(st.sampled_from((0, 0, 1)))
        entity = draw(st.sampled_from((("user",), ("user",), ("shop",), ("shop", "user"))))
        op: Op = draw(st.sampled_from(("count", "sum", "mean", "min", "max", "last", "since_last")))
        field = None if op in ("count", "since_last") else "tip"
        if field and stream == 0:
            field = draw(st.sampled_from(("amount", "tip")))
        window = None if op in ("last", "since_last") else Window.parse(draw(st.sampled_from(WINDOWS)))
        within = None if window else draw(st.sampled_from((30 * MINUTE_MS, 20 * HOUR_MS)))
        name = f"{stream}_{'_'.join(entity)}_{op}_{field}_{window.text if window else within}"
        aggregates[name] = Aggregate(name, stream, entity, op, field, window, within)
    return FeatureSpec((SCORED, OTHER), tuple(aggregates.values()))


NUMBERS = st.one_of(
    st.floats(-1e6, 1e6, allow_nan=False), st.integers(-5, 5).map(float), st.sampled_from((1e300, 1e-300))
)
TIPS = st.one_of(NUMBERS, st.just(float("nan")))


@st.composite
def arrivals(draw: st.DrawFn) -> list[Event]:
    events: list[Event] = []
    following: dict[tuple[int, int], int] = {}
    minutes = 0
    for _ in range(draw(st.integers(0, 40))):
        stream, partition = draw(st.sampled_from((0, 0, 1))), draw(st.integers(0, 1))
        if draw(st.integers(0, 3)):
            minutes += draw(st.sampled_from((0, 1, 5, 30, 55, 60, 180, 660, -1, -30, -60)))
        else:
            minutes = draw(st.one_of(st.integers(0, 240), st.integers(0, 3600)))
        fields = {
            "user": draw(st.sampled_from(("ann", "bob") if stream else ("ann", "bob", None))),
            "shop": draw(st.sampled_from((7.0, 8.0, float("nan")))),
            "tip": draw(TIPS),
        }
        if stream == 0:
            fields["amount"] = draw(NUMBERS)
        offset = following.get((stream, partition), 0)
        following[stream, partition] = offset + 1
        scored = draw(st.integers(0, 9)) > 0
        events.append(Event(stream, minutes * MINUTE_MS, offset, partition, fields, scored))
    return events


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
        for key, packed in torn.rows:
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
        engine.written(copy, await store.write(copy.partition, copy.follows, copy.vector, copy.rows))


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
                engine.written(copy, await store.write(copy.partition, copy.follows, copy.vector, copy.rows))
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
