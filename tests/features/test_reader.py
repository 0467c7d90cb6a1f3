"""Features read from the store, evaluated when they are read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from features.condition import Condition
from features.engine import FeatureEngine, Features
from features.expiry import EXPIRED, MISSING, PRESENT, REBUILDING
from features.layout import Layout
from features.memory_store import MemoryStore
from features.partitioner import partition_of
from features.read_plan import Evaluated, asked_of, made_plan
from features.reader import FieldValue, ReadError, StateReader, Unreadable
from features.readings import Reading, State
from features.round import Segment, StreamColumns
from features.spec import Aggregate, FeatureSpec, Field, Op, Ratio, Stream
from features.store import Group, Meta, Store
from features.windows import Forever, LastEvents, Window

MINUTE = 60_000
T = 5_666_667 * 5 * MINUTE
"""The start of a pane of the windows below, in 2023."""

PAYMENTS = Stream(
    "payments",
    (
        Field("user", "string"),
        Field("merchant", "string", True),
        Field("shop", "number"),
        Field("amount", "number", True),
    ),
)


def aggregate(op: Op, window: str | None = None, entity: tuple[str, ...] = ("user",)) -> Aggregate:
    name = "_".join([*entity, op, *([window] if window else [])])
    field = None if op in ("count", "since_last") else "amount"
    if window:
        return Aggregate(name, 0, entity, op, field, Window.parse(window))
    return Aggregate(name, 0, entity, op, field, within_ms=30 * MINUTE)


SPEC = FeatureSpec(
    (PAYMENTS,),
    (
        aggregate("count", "1h"),
        aggregate("sum", "3h"),
        aggregate("mean", "1h"),
        aggregate("last"),
        aggregate("since_last"),
        aggregate("count", "1h", ("user", "merchant")),
        aggregate("sum", "1h", ("user", "shop")),
    ),
)
REDUCED: tuple[Op, ...] = ("variance", "std", "min", "max", "first", "streak", "distinct", "most_frequent")
Event = tuple[int, str, str | None, float, float | None]


async def streamed(events: list[Event], *, partition: int, spec: FeatureSpec = SPEC) -> MemoryStore:
    """A store that a worker has written after `events` (time, user, merchant, shop, amount)."""
    store = MemoryStore()
    await features_of(events, store, partition, spec)
    return store


async def features_of(events: list[Event], store: Store, partition: int, spec: FeatureSpec) -> Features:
    """What a worker computes of `events`, and writes to `store`."""
    epoch, _ = await store.claim(partition, 12)
    meta = Meta(epoch, epoch, spec.state_hash, (0,))
    await store.begin(partition, meta)
    engine, features = await engine_of(events, store, partition, meta, spec)
    for checkpoint in engine.snapshot({partition: (len(events),)}):
        await store.write(partition, checkpoint.follows, checkpoint.vector, checkpoint.rows())
    return features


async def engine_of(
    events: list[Event], store: Store, partition: int, meta: Meta, spec: FeatureSpec = SPEC
) -> tuple[FeatureEngine, Features]:
    """A worker's engine that has computed `events`, and what it computed."""
    engine = FeatureEngine(spec, store)
    engine.own(partition, meta)
    n = len(events)
    columns = StreamColumns(
        0,
        (Segment(partition, 0, n),),
        np.arange(n, dtype=np.int64),
        np.array([e[0] for e in events], dtype=np.int64),
        {
            "user": [e[1] for e in events],
            "merchant": [e[2] for e in events],
            "shop": np.array([e[3] for e in events]),
            "amount": np.array([e[4] for e in events], dtype=np.float64),
        },
    )
    arrived = (columns,)
    await engine.load(arrived)
    return engine, engine.process(arrived)


def of_user(user: str, partitions: int = 12) -> int:
    return partition_of(user.encode(), partitions, "crc32")


def reader(store: MemoryStore, spec: FeatureSpec = SPEC) -> StateReader:
    return StateReader(spec, store, key="user", partitions=12)


async def read(
    asked: StateReader, entity: dict[str, FieldValue], at_ms: int | None = None, **options: bool
) -> dict[str, Reading]:
    """The readings of one entity."""
    return (await asked.read([entity], at_ms, **options))[0]


def at(value: float | None, state: State, newest_ms: int | None, now_ms: int) -> Reading:
    return Reading(value, state, newest_ms, None if newest_ms is None else (now_ms - newest_ms) / 1000)


EVENTS: list[Event] = [
    (T, "ann", "baker", 7, 10.0),
    (T + 10 * MINUTE, "ann", "baker", 7, 30.0),
    (T + 10 * MINUTE, "ann", None, 8, None),
]


async def test_values_are_those_of_the_time_of_reading() -> None:
    store = await streamed(EVENTS, partition=of_user("ann"))
    found = await read(reader(store), {"user": "ann"}, T + 12 * MINUTE)
    newest = T + 10 * MINUTE
    assert found == {
        "user_count_1h": at(3.0, "present", newest, T + 12 * MINUTE),
        "user_sum_3h": at(40.0, "present", newest, T + 12 * MINUTE),
        "user_mean_1h": at(20.0, "present", newest, T + 12 * MINUTE),
        "user_last": at(30.0, "present", newest, T + 12 * MINUTE),
        "user_since_last": at(120.0, "present", newest, T + 12 * MINUTE),
    }


async def test_a_reading_is_what_an_event_at_that_time_would_get() -> None:
    for minutes in (10, 14, 55, 69, 200):
        time = T + minutes * MINUTE
        asked: Event = (time, "ann", "baker", 7, None)
        store = await streamed(EVENTS, partition=of_user("ann"))
        found = await read(reader(store), {"user": "ann", "merchant": "baker", "shop": 7}, time)
        features = await features_of([*EVENTS, asked], MemoryStore(), of_user("ann"), SPEC)
        np.testing.assert_array_equal(
            [np.nan if r.value is None else r.value for r in found.values()], features.aggregates[-1]
        )


EVERY = FeatureSpec(
    (PAYMENTS,),
    (
        *(Aggregate(op, 0, ("user",), op, "amount", Window.parse("1h")) for op in REDUCED),
        Aggregate("rate", 0, ("user",), "rate", None, Window.parse("1h")),
        Aggregate("p50", 0, ("user",), "quantile", "amount", Window.parse("1h"), param=500_000),
        Aggregate("places", 0, ("user",), "distinct", "merchant", Window.parse("3h")),
        Aggregate("ever", 0, ("user",), "sum", "amount", Forever(), within_ms=60 * MINUTE),
        Aggregate("two", 0, ("user",), "sum", "amount", LastEvents(2), within_ms=60 * MINUTE),
        Aggregate("before", 0, ("user",), "lag", "amount", within_ms=60 * MINUTE, param=2),
        Aggregate("faded", 0, ("user",), "decayed_count", within_ms=60 * MINUTE, param=5 * MINUTE),
        Aggregate("fading", 0, ("user",), "decayed_mean", "amount", within_ms=60 * MINUTE, param=5 * MINUTE),
        Aggregate("large", 0, ("user",), "count", None, Window.parse("1h"), where=Condition.parse("amount > 15")),
        Ratio("share", aggregate("sum", "1h"), aggregate("sum", "3h")),
    ),
)


async def test_every_aggregation_reads_as_a_worker_would_compute_it_then() -> None:
    for minutes in (12, 30, 65, 71, 90, 400):
        store = await streamed(EVENTS, partition=of_user("ann"), spec=EVERY)
        found = await read(reader(store, EVERY), {"user": "ann"}, T + minutes * MINUTE)
        asked: Event = (T + minutes * MINUTE, "ann", None, 7, None)
        features = await features_of([*EVENTS, asked], MemoryStore(), of_user("ann"), EVERY)
        assert list(found) == list(EVERY.names)
        np.testing.assert_array_equal(
            np.float32([np.nan if r.value is None else r.value for r in found.values()]), features.matrix[-1]
        )


async def test_what_the_other_windows_hold_expires_too() -> None:
    store = await streamed(EVENTS, partition=of_user("ann"), spec=EVERY)
    states = {}
    for minutes in (12, 80):
        found = await read(reader(store, EVERY), {"user": "ann"}, T + minutes * MINUTE)
        states[minutes] = {name: found[name].state for name in ("ever", "two", "before", "faded", "std", "share")}
    assert set(states[12].values()) == {"present"}
    assert set(states[80].values()) == {"expired"}
    store = await streamed(EVENTS, partition=of_user("bob"), spec=EVERY)
    found = await read(reader(store, EVERY), {"user": "bob"}, T)
    assert {r.state for r in found.values()} == {"missing"}


async def test_each_of_the_latest_events_has_its_own_age() -> None:
    lags = tuple(
        Aggregate(f"lag{n}", 0, ("user",), "lag", "amount", within_ms=60 * MINUTE, param=n) for n in (1, 2, 3)
    )
    spec = FeatureSpec((PAYMENTS,), lags)
    for more in (0, 5):  # the second time the ring has gone round
        events: list[Event] = [
            *((T - (400 - n) * MINUTE, "ann", None, 7, 1.0) for n in range(more)),
            *EVENTS[:2],
        ]
        store = await streamed(events, partition=of_user("ann"), spec=spec)
        found = await read(reader(store, spec), {"user": "ann"}, T + 65 * MINUTE)
        assert {name: (r.value, r.state) for name, r in found.items()} == {
            "lag1": (30.0, "present"),
            "lag2": (None, "expired"),
            "lag3": (None, "expired" if more else "missing"),
        }
        assert {r.newest_ms for r in found.values()} == {T + 10 * MINUTE}


async def test_a_ratio_is_no_better_than_the_worse_of_its_two_and_as_old_as_the_older() -> None:
    pair = aggregate("count", "1h", ("user", "merchant"))
    shares = (
        Ratio("of_pair", pair, aggregate("count", "1h")),
        Ratio("of_user", aggregate("count", "1h"), pair),
        Ratio("recent", aggregate("sum", "1h"), aggregate("sum", "3h")),
        Ratio("itself", aggregate("sum", "3h"), aggregate("sum", "3h")),
    )
    spec = FeatureSpec((PAYMENTS,), shares)
    events: list[Event] = [*EVENTS, (T + 50 * MINUTE, "ann", None, 7, 60.0)]
    store = await streamed(events, partition=of_user("ann"), spec=spec)
    entity: dict[str, FieldValue] = {"user": "ann", "merchant": "baker"}
    found = await read(reader(store, spec), entity, T + 50 * MINUTE)
    assert list(found) == ["of_pair", "of_user", "recent", "itself"]
    assert [r.value for r in found.values()] == [0.5, 2.0, 1.0, 1.0]
    assert {r.state for r in found.values()} == {"present"}
    newest = {name: r.newest_ms for name, r in found.items()}
    assert newest == {
        "of_pair": T + 10 * MINUTE,
        "of_user": T + 10 * MINUTE,
        "recent": T + 50 * MINUTE,
        "itself": T + 50 * MINUTE,
    }
    found = await read(reader(store, spec), entity, T + 75 * MINUTE)
    assert {name: (r.value, r.state) for name, r in found.items()} == {
        "of_pair": (0.0, "expired"),
        "of_user": (None, "expired"),  # 1 / 0
        "recent": (0.6, "present"),
        "itself": (1.0, "present"),
    }
    assert list(await read(reader(store, spec), {"user": "ann"}, T)) == ["recent", "itself"]
    with pytest.raises(ReadError, match=r"of_pair is of \(user, merchant\)"):
        await reader(store, spec).read([{"user": "ann"}], T, ["of_pair"])


async def test_where_a_number_is_missing_stands_what_the_model_gets() -> None:
    spec = replace(SPEC, missing=-1.0)
    store = await streamed(EVENTS, partition=of_user("ann"), spec=spec)
    found = await read(reader(store, spec), {"user": "ann"}, T + 70 * MINUTE)
    assert {name: (r.value, r.state) for name, r in found.items()} == {
        "user_count_1h": (0.0, "expired"),
        "user_sum_3h": (40.0, "present"),
        "user_mean_1h": (-1.0, "expired"),
        "user_last": (-1.0, "expired"),
        "user_since_last": (-1.0, "expired"),
    }
    unknown = await read(reader(MemoryStore(), spec), {"user": "ann"}, T)
    assert set(unknown.values()) == {Reading(None, "rebuilding", None, None)}


async def test_what_is_beyond_a_float32_is_missing() -> None:
    store = await streamed([(T, "ann", None, 7, 3e38), (T, "ann", None, 7, 3e38)], partition=of_user("ann"))
    found = await read(reader(store), {"user": "ann"}, T)
    assert (found["user_sum_3h"].value, found["user_sum_3h"].state) == (None, "missing")
    assert (found["user_mean_1h"].value, found["user_mean_1h"].state) == (3e38, "present")


async def test_windows_lose_their_events_pane_by_pane_as_time_passes() -> None:
    store = await streamed(EVENTS, partition=of_user("ann"))
    for minutes, count in [(0, 1), (10, 3), (59, 3), (60, 2), (69, 2)]:
        reading = (await read(reader(store), {"user": "ann"}, T + minutes * MINUTE))["user_count_1h"]
        assert (reading.value, reading.state) == (count, "present"), minutes


async def test_what_has_expired_is_never_present() -> None:
    store = await streamed(EVENTS, partition=of_user("ann"))
    found = await read(reader(store), {"user": "ann"}, T + 70 * MINUTE)
    assert {name: (r.value, r.state) for name, r in found.items()} == {
        "user_count_1h": (0.0, "expired"),
        "user_sum_3h": (40.0, "present"),
        "user_mean_1h": (None, "expired"),
        "user_last": (None, "expired"),
        "user_since_last": (None, "expired"),
    }
    found = await read(reader(store), {"user": "ann"})  # now: years later
    assert {r.state for r in found.values()} == {"expired"}


async def test_an_entity_never_seen_is_missing() -> None:
    store = await streamed(EVENTS, partition=of_user("bob"))
    found = await read(reader(store), {"user": "bob"}, T)
    assert {r.state for r in found.values()} == {"missing"}
    assert found["user_count_1h"] == Reading(0.0, "missing", None, None)
    assert found["user_last"].value is None


async def test_of_a_partition_that_no_worker_has_begun_nothing_is_known() -> None:
    store = await streamed(EVENTS, partition=of_user("bob"))
    found = await read(reader(store), {"user": "ann"}, T)
    assert set(found.values()) == {Reading(None, "rebuilding", None, None)}


async def test_while_a_partition_is_rebuilt_rows_that_are_not_there_yet_are_not_missing() -> None:
    store, partition = await streamed(EVENTS, partition=of_user("ann")), of_user("ann")
    asked = reader(store)
    assert (await read(asked, {"user": "ann"}, T + 12 * MINUTE))["user_count_1h"].state == "present"
    epoch, _ = await store.claim(partition)
    meta = Meta(epoch, epoch, SPEC.state_hash, (0,), until=(3,))
    await store.begin(partition, meta)
    found = await read(asked, {"user": "ann"}, T + 12 * MINUTE)
    assert set(found.values()) == {Reading(None, "rebuilding", None, None)}
    assert (await asked.read([{"user": "ann"}], T)).written[0] > 0
    engine, _ = await engine_of(EVENTS, store, partition, meta)
    for half in engine.snapshot({partition: (2,)}):  # a row that is not as far as it was
        meta = await store.write(partition, meta, (2,), half.rows())
    assert (await read(asked, {"user": "ann"}, T + 12 * MINUTE))["user_count_1h"].state == "rebuilding"
    meta = await store.write(partition, meta, (3,), [])
    stranger = next(name for name in map(str, range(1000)) if of_user(name) == partition)
    assert {r.state for r in (await read(asked, {"user": stranger}, T)).values()} == {"missing"}


async def test_while_a_group_is_rebuilt_the_others_are_read_as_ever() -> None:
    pair = SPEC.aggregates[5]
    before = FeatureSpec(SPEC.streams, tuple(f for f in SPEC.features if f is not pair))
    store = await streamed([(T, "ann", "m", 7.0, 1.0)], partition=(mine := of_user("ann")), spec=before)
    epoch, found = await store.claim(mine, 12)
    assert found is not None
    kinds = {kind.fields: kind for kind in Layout(SPEC).kinds}
    kept = [kinds["user",], kinds["user", "shop"]]
    groups = {kind.number: Group(kind.hash, found.incarnation, found.vector) for kind in kept}
    groups[kinds["user", "merchant"].number] = Group(kinds["user", "merchant"].hash, epoch)
    meta = Meta(epoch, epoch, SPEC.state_hash, (0,), until=(1,), groups=groups)
    await store.begin(mine, meta)
    asked: dict[str, FieldValue] = {"user": "ann", "merchant": "m", "shop": 7.0}
    found_states = {name: r.state for name, r in (await read(reader(store), asked, T + MINUTE)).items()}
    assert found_states.pop("user_merchant_count_1h") == "rebuilding"
    assert set(found_states.values()) == {"present"}
    await store.write(mine, meta, (1,), [])
    assert (await read(reader(store), asked, T + MINUTE))["user_merchant_count_1h"].state == "missing"


async def test_a_group_that_workers_do_not_keep_is_not_known_and_the_reader_not_ready() -> None:
    kinds = {kind.fields: kind for kind in Layout(SPEC).kinds}
    store = MemoryStore()
    for partition in (0, of_user("ann")):
        epoch, _ = await store.claim(partition, 12)
        groups = {kinds["user",].number: Group(kinds["user",].hash, epoch)}
        await store.begin(partition, Meta(epoch, epoch, "another", (0,), groups=groups))
    states = {n: r.state for n, r in (await read(reader(store), {"user": "ann", "merchant": "m"}, T)).items()}
    assert states.pop("user_merchant_count_1h") == "rebuilding"
    assert set(states.values()) == {"missing"}
    with pytest.raises(Unreadable, match=r"does not keep the features of \(user, merchant\) and \(user, shop\)"):
        await reader(store).look()


async def test_what_the_store_cannot_know_of_the_past_is_missing() -> None:
    store = await streamed(EVENTS, partition=of_user("ann"))
    found = await read(reader(store), {"user": "ann"}, T - 60 * MINUTE)
    assert found["user_count_1h"].state == found["user_since_last"].state == "missing"


async def test_a_field_that_was_always_null_is_missing_though_its_events_count() -> None:
    store = await streamed([(T, "ann", None, 7, None)], partition=of_user("ann"))
    found = await read(reader(store), {"user": "ann"}, T)
    assert found["user_count_1h"].value == 1.0
    assert found["user_mean_1h"].state == found["user_last"].state == "missing"


async def test_composite_and_numeric_entities_are_read_from_text_and_from_numbers() -> None:
    store = await streamed(EVENTS, partition=of_user("ann"))
    found = await read(reader(store), {"user": "ann", "merchant": "baker", "shop": 7}, T + 12 * MINUTE)
    assert list(found) == list(SPEC.names)
    assert found["user_merchant_count_1h"].value == 2.0
    assert found["user_shop_sum_1h"].value == 40.0
    assert (await read(reader(store), {"user": "ann", "shop": "7"}, T))["user_shop_sum_1h"].value == 10.0


async def test_a_row_in_an_unexpected_partition_is_found_by_asking_all() -> None:
    store = await streamed(EVENTS, partition=(of_user("ann") + 1) % 12)
    await begun(store, of_user("ann"), 12)
    assert (await read(reader(store), {"user": "ann"}, T))["user_count_1h"].state == "missing"
    assert (await read(reader(store), {"user": "ann"}, T, ask_all=True))["user_count_1h"].value == 1.0


async def test_of_rows_in_several_partitions_the_newest_counts() -> None:
    store = await streamed(EVENTS, partition=3)
    other = await streamed([(T + 20 * MINUTE, "ann", None, 7, 5.0)], partition=4)
    store._partitions |= other._partitions
    found = await read(reader(store), {"user": "ann"}, T + 20 * MINUTE, ask_all=True)
    assert found["user_last"] == at(5.0, "present", T + 20 * MINUTE, T + 20 * MINUTE)


async def test_without_the_sources_key_all_partitions_are_asked() -> None:
    spec = FeatureSpec((PAYMENTS,), (aggregate("count", "1h", ("merchant",)),))
    store = await streamed(EVENTS, partition=5, spec=spec)
    assert (await read(reader(store, spec), {"merchant": "baker"}, T + 10 * MINUTE))[
        "merchant_count_1h"
    ].value == 2.0


async def test_the_state_of_another_spec_is_not_read() -> None:
    store = await streamed(EVENTS, partition=of_user("ann"))
    other = replace(SPEC, features=SPEC.features[:2])
    with pytest.raises(Unreadable, match=SPEC.state_hash):
        await read(reader(store, other), {"user": "ann"}, T)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "give the fields"),
        ({"merchant": "baker"}, "give the fields"),
        ({"user": None}, "null names no entity"),
        ({"usr": "ann"}, "field usr"),
        ({"user": "ann", "shop": "seven"}, "not a number"),
        ({"user": "ann", "shop": 10**400}, "not a number"),
        ({"user": "ann", "shop": "nan"}, "NaN names no entity"),
        ({"user": True}, "bool names no entity"),
        ({"user": ["ann"]}, "list names no entity"),
    ],
)
async def test_a_question_that_cannot_be_answered_says_the_mend(
    fields: Any, said: str
) -> None:
    with pytest.raises(ReadError, match=said):
        await read(reader(MemoryStore()), fields, T)


async def test_an_id_of_64_bits_reads_its_own_entity() -> None:
    near, asked = 1745678901234567890, 1745678901234567891
    store = await streamed([(T, "ann", None, near, 1.0), (T, "ann", None, asked, 2.0)], partition=of_user("ann"))
    for shop in (asked, str(asked)):
        found = await read(reader(store), {"user": "ann", "shop": shop}, T)
        assert found["user_shop_sum_1h"].value == 2.0


async def test_a_number_names_the_entity_that_the_worker_makes_of_it() -> None:
    store = await streamed([(T, "ann", None, 7.0, 1.0), (T, "ann", None, 2.5, 2.0)], partition=of_user("ann"))
    for shop, total in ((7, 1.0), ("7.0", 1.0), ("7", 1.0), (2.5, 2.0), ("2.5", 2.0)):
        found = await read(reader(store), {"user": "ann", "shop": shop}, T)
        assert found["user_shop_sum_1h"].value == total, shop


async def test_an_id_that_events_have_as_a_float_is_read_as_one() -> None:
    asked = 1745678901234567891
    store = await streamed([(T, "ann", None, float(asked), 1.0)], partition=of_user("ann"))
    floats = StateReader(SPEC, store, key="user", partitions=12, floats={"shop"})
    assert (await read(floats, {"user": "ann", "shop": str(asked)}, T))["user_shop_sum_1h"].value == 1.0


async def test_a_batch_reads_each_entity_as_it_would_be_read_alone() -> None:
    store = MemoryStore()
    users = [f"user-{n}" for n in range(40)]
    for partition in range(12):
        mine = [u for u in users[:30] if of_user(u) == partition]
        events: list[Event] = [
            (T + n * MINUTE, user, "baker", 7, float(n)) for n in range(20) for user in mine[n % 3 :]
        ]
        await features_of(events, store, partition, SPEC)
    asked = reader(store)
    batch = [{"user": user, "merchant": "baker"} for user in [*reversed(users), users[0]]]
    now = T + 61 * MINUTE
    together = await asked.read(batch, now)
    assert list(together) == [(await asked.read([entity], now))[0] for entity in batch]
    assert {r.state for row in together for r in row.values()} == {"present", "expired", "missing"}


async def test_only_the_features_asked_for_are_read_in_the_order_asked() -> None:
    store = await streamed(EVENTS, partition=of_user("ann"))
    names = ["user_last", "user_count_1h"]
    found = await reader(store).read([{"user": "ann", "merchant": "baker"}], T + 12 * MINUTE, names)
    assert found.names == tuple(names)
    assert found.groups == (("user",), ("user",))
    assert found.values.tolist() == [[30.0, 3.0]]
    assert found.ages_s.tolist() == [[120.0, 120.0]]


@pytest.mark.parametrize(
    ("entities", "features", "field", "said"),
    [
        ([{"user": "ann"}, {"user": "bob", "shop": 7}], None, r"entities[1]", "of one kind at a time"),
        ([{"user": "ann"}, {"user": None}], None, "entities[1].user", "null names no entity"),
        ([{"user": "ann", "shop": 1}, {"user": "bob", "shop": "x"}], None, "entities[1].shop", "not a number"),
        ([{"user": "ann"}], ["user_count_2h"], "features[0]", "none of that name"),
        ([{"user": "ann"}], ["user_last", "user_shop_sum_1h"], "features[1]", r"is of \(user, shop\)"),
        ([{"user": "ann"}] * 10_001, None, "entities", "at most 10,000"),
    ],
)
async def test_a_batch_that_cannot_be_answered_names_the_place(
    entities: Any, features: list[str] | None, field: str, said: str
) -> None:
    with pytest.raises(ReadError, match=said) as caught:
        await reader(MemoryStore()).read(entities, T, features)
    assert caught.value.field == field


async def test_a_search_in_all_partitions_is_bounded() -> None:
    with pytest.raises(ReadError, match="120,000 rows would be looked for"):
        await reader(MemoryStore()).read([{"user": "ann"}] * 10_000, T, ask_all=True)


@pytest.mark.parametrize(
    "broken", [b"", b"\0" * 8, b"\0\0\0\0\1\0\0\0\1\0\0\0" + b"\0" * 4000, b"\0\0\0\0\1\0\0\0\x4b\0\0\0"]
)
async def test_a_broken_row_is_said_to_be_one(broken: bytes) -> None:
    store, partition = await streamed(EVENTS, partition=of_user("ann")), of_user("ann")
    for until in ((), (9,)):
        held = store._partitions[partition]
        assert held.meta is not None
        held.meta = replace(held.meta, until=until)
        held.rows = {key: value[:8] + broken for key, value in held.rows.items()}
        with pytest.raises(Unreadable, match="no row of this pipeline"):
            await read(reader(store), {"user": "ann"}, T)


async def test_a_row_of_another_entity_is_not_taken_for_this_one() -> None:
    store = await streamed([*EVENTS, (T, "bob", "baker", 7, 1.0)], partition=of_user("ann"))
    rows = store._partitions[of_user("ann")].rows
    number = Layout(SPEC).kinds[0].number
    ann, bob = (next(key for key in rows if key == (number, user)) for user in ("ann", "bob"))
    rows[ann] = rows[bob]
    with pytest.raises(Unreadable, match="the stored row is of 'bob'"):
        await read(reader(store), {"user": "ann"}, T)


async def test_a_time_that_is_none_is_refused() -> None:
    for time in (2**60, -(2**60)):
        with pytest.raises(ReadError, match="is no time"):
            await reader(MemoryStore()).read([{"user": "ann"}], time)


async def test_no_entities_have_no_readings() -> None:
    assert (await reader(MemoryStore()).read([{"user": "ann"}], T, [])).values.shape == (1, 0)
    found = await reader(MemoryStore()).read([], T)
    assert len(found) == 0
    assert found.values.shape == (0, 0)


async def test_the_number_of_partitions_is_what_the_worker_noted() -> None:
    store = await streamed(EVENTS, partition=of_user("ann"))
    asked = StateReader(SPEC, store, key="user")
    with pytest.raises(Unreadable, match="start one"):  # nobody has begun partition 0
        await asked.read([{"user": "ann"}], T)
    await begun(store, 0, 12)
    assert (await read(asked, {"user": "ann"}, T + 12 * MINUTE))["user_count_1h"].value == 3.0
    assert asked.partitions == 12


async def test_a_topic_that_has_grown_is_noticed_where_a_partition_says_so() -> None:
    user = next(name for name in map(str, range(1000)) if (of_user(name, 3), of_user(name, 24)) == (2, 14))
    store = MemoryStore()
    for partition in range(3):
        await begun(store, partition, 3)
    seconds = [0.0]
    asked = StateReader(SPEC, store, key="user", monotonic_s=lambda: seconds[0])
    assert (await read(asked, {"user": user}, T))["user_last"].state == "missing"
    await features_of([(T, user, None, 7, 5.0)], store, 14, SPEC)
    await store.claim(2, 24)
    seconds[0] = 60.0
    assert (await read(asked, {"user": user}, T))["user_last"].value == 5.0
    assert asked.partitions == 24


async def begun(store: Store, partition: int, partitions: int) -> None:
    """A partition with an owner, and without rows."""
    epoch, _ = await store.claim(partition, partitions)
    await store.begin(partition, Meta(epoch, epoch, SPEC.state_hash, (0,)))


async def test_a_broken_row_among_many_is_named() -> None:
    users = [f"user-{n}" for n in range(50)]
    store = MemoryStore()
    for partition in range(12):
        mine = [(T, user, "baker", 7.0, 1.0) for user in users if of_user(user) == partition]
        await features_of([*mine], store, partition, SPEC)
    number, broken = Layout(SPEC).kinds[0].number, users[37]
    rows = store._partitions[of_user(broken)].rows
    key = next(key for key in rows if key == (number, broken))
    rows[key] = rows[key][:-1] + b"?"
    with pytest.raises(Unreadable, match=r"row of 'user-37': the stored row is of 'user-3\?'"):
        await reader(store).read([{"user": user} for user in users], T)


@pytest.mark.parametrize(
    ("upper", "lower", "worse"),
    [
        (PRESENT, PRESENT, PRESENT),
        (PRESENT, EXPIRED, EXPIRED),
        (PRESENT, REBUILDING, REBUILDING),
        (EXPIRED, PRESENT, EXPIRED),
        (EXPIRED, REBUILDING, REBUILDING),
        (MISSING, REBUILDING, REBUILDING),
        (REBUILDING, PRESENT, REBUILDING),
    ],
)
def test_a_ratio_of_two_entities_is_worth_what_the_worse_one_is(upper: int, lower: int, worse: int) -> None:
    spec = FeatureSpec(
        (PAYMENTS,),
        (Ratio("of_pair", aggregate("count", "1h", ("user", "merchant")), aggregate("count", "1h")),),
        missing=-1.0,
    )
    plan = made_plan(spec, Layout(spec).kinds, "user", frozenset(("user", "merchant")), ("of_pair",))
    codes = np.array([[upper, lower]], dtype=np.uint8)
    found = asked_of(plan, Evaluated(np.array([[3.0, 6.0]]), codes, np.array([[T, T + 1]])), spec.missing)
    assert [column.tolist() for column in found] == [[[0.5]], [[worse]], [[T]]]
