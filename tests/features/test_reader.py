"""Features read from the store, evaluated when they are read."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from features.engine import FeatureEngine, Features
from features.memory_store import MemoryStore
from features.partitioner import partition_of
from features.reader import FeatureReader, ReadError, Reading
from features.round import Segment, StreamColumns
from features.condition import Condition
from features.spec import Aggregate, FeatureSpec, Field, Op, Ratio, Stream
from features.store import Meta, Store
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
    epoch, _ = await store.claim(partition)
    meta = Meta(epoch, epoch, spec.state_hash, (0,))
    await store.begin(partition, meta)
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
    features = engine.process(arrived)
    for checkpoint in engine.snapshot({partition: (n,)}):
        await store.write(partition, checkpoint.follows, checkpoint.vector, checkpoint.rows)
    return features


def of_user(user: str, partitions: int = 12) -> int:
    return partition_of(user.encode(), partitions, "crc32")


def reader(store: MemoryStore, spec: FeatureSpec = SPEC) -> FeatureReader:
    return FeatureReader(spec, store, key="user", partitions=12)


EVENTS: list[Event] = [
    (T, "ann", "baker", 7, 10.0),
    (T + 10 * MINUTE, "ann", "baker", 7, 30.0),
    (T + 10 * MINUTE, "ann", None, 8, None),
]


async def test_values_are_those_of_the_time_of_reading() -> None:
    store = await streamed(EVENTS, partition=of_user("ann"))
    found = await reader(store).read({"user": "ann"}, T + 12 * MINUTE)
    newest = T + 10 * MINUTE
    assert found == {
        "user_count_1h": Reading(3.0, "present", newest),
        "user_sum_3h": Reading(40.0, "present", newest),
        "user_mean_1h": Reading(20.0, "present", newest),
        "user_last": Reading(30.0, "present", newest),
        "user_since_last": Reading(120.0, "present", newest),
    }


async def test_a_reading_is_what_an_event_at_that_time_would_get() -> None:
    for minutes in (10, 14, 55, 69, 200):
        time = T + minutes * MINUTE
        asked: Event = (time, "ann", "baker", 7, None)
        store = await streamed(EVENTS, partition=of_user("ann"))
        found = await reader(store).read({"user": "ann", "merchant": "baker", "shop": 7}, time)
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
        found = await reader(store, EVERY).read({"user": "ann"}, T + minutes * MINUTE)
        asked = (T + minutes * MINUTE, "ann", None, 7, None)
        features = await features_of([*EVENTS, asked], MemoryStore(), of_user("ann"), EVERY)
        assert list(found) == list(EVERY.names)
        np.testing.assert_array_equal(
            np.float32([np.nan if r.value is None else r.value for r in found.values()]), features.matrix[-1]
        )


async def test_what_the_other_windows_hold_expires_too() -> None:
    store = await streamed(EVENTS, partition=of_user("ann"), spec=EVERY)
    states = {}
    for minutes in (12, 80):
        found = await reader(store, EVERY).read({"user": "ann"}, T + minutes * MINUTE)
        states[minutes] = {name: found[name].state for name in ("ever", "two", "before", "faded", "std", "share")}
    assert set(states[12].values()) == {"present"}
    assert set(states[80].values()) == {"expired"}
    found = await reader(store, EVERY).read({"user": "bob"}, T)
    assert {r.state for r in found.values()} == {"missing"}


async def test_windows_lose_their_events_pane_by_pane_as_time_passes() -> None:
    store = await streamed(EVENTS, partition=of_user("ann"))
    for minutes, count in [(0, 1), (10, 3), (59, 3), (60, 2), (69, 2)]:
        reading = (await reader(store).read({"user": "ann"}, T + minutes * MINUTE))["user_count_1h"]
        assert (reading.value, reading.state) == (count, "present"), minutes


async def test_what_has_expired_is_never_present() -> None:
    store = await streamed(EVENTS, partition=of_user("ann"))
    found = await reader(store).read({"user": "ann"}, T + 70 * MINUTE)
    assert {name: (r.value, r.state) for name, r in found.items()} == {
        "user_count_1h": (0.0, "expired"),
        "user_sum_3h": (40.0, "present"),
        "user_mean_1h": (None, "expired"),
        "user_last": (None, "expired"),
        "user_since_last": (None, "expired"),
    }
    found = await reader(store).read({"user": "ann"})  # now: years later
    assert {r.state for r in found.values()} == {"expired"}


async def test_an_entity_never_seen_is_missing() -> None:
    store = await streamed(EVENTS, partition=of_user("bob"))
    for user in ("bob", "ann"):  # bob's partition has a meta, ann's has none
        found = await reader(store).read({"user": user}, T)
        assert {r.state for r in found.values()} == {"missing"}
        assert found["user_count_1h"] == Reading(0.0, "missing", None)
        assert found["user_last"].value is None


async def test_what_the_store_cannot_know_of_the_past_is_missing() -> None:
    store = await streamed(EVENTS, partition=of_user("ann"))
    found = await reader(store).read({"user": "ann"}, T - 60 * MINUTE)
    assert found["user_count_1h"].state == found["user_since_last"].state == "missing"


async def test_a_field_that_was_always_null_is_missing_though_its_events_count() -> None:
    store = await streamed([(T, "ann", None, 7, None)], partition=of_user("ann"))
    found = await reader(store).read({"user": "ann"}, T)
    assert found["user_count_1h"].value == 1.0
    assert found["user_mean_1h"].state == found["user_last"].state == "missing"


async def test_composite_and_numeric_entities_are_read_from_text_and_from_numbers() -> None:
    store = await streamed(EVENTS, partition=of_user("ann"))
    found = await reader(store).read({"user": "ann", "merchant": "baker", "shop": 7}, T + 12 * MINUTE)
    assert list(found) == list(SPEC.names)
    assert found["user_merchant_count_1h"].value == 2.0
    assert found["user_shop_sum_1h"].value == 40.0
    assert (await reader(store).read({"user": "ann", "shop": "7"}, T))["user_shop_sum_1h"].value == 10.0


async def test_a_row_in_an_unexpected_partition_is_found_by_asking_all() -> None:
    store = await streamed(EVENTS, partition=(of_user("ann") + 1) % 12)
    assert (await reader(store).read({"user": "ann"}, T))["user_count_1h"].state == "missing"
    assert (await reader(store).read({"user": "ann"}, T, ask_all=True))["user_count_1h"].value == 1.0


async def test_of_rows_in_several_partitions_the_newest_counts() -> None:
    store = await streamed(EVENTS, partition=3)
    other = await streamed([(T + 20 * MINUTE, "ann", None, 7, 5.0)], partition=4)
    store._partitions |= other._partitions
    found = await reader(store).read({"user": "ann"}, T + 20 * MINUTE, ask_all=True)
    assert found["user_last"] == Reading(5.0, "present", T + 20 * MINUTE)


async def test_without_the_sources_key_all_partitions_are_asked() -> None:
    spec = FeatureSpec((PAYMENTS,), (aggregate("count", "1h", ("merchant",)),))
    store = await streamed(EVENTS, partition=5, spec=spec)
    assert (await reader(store, spec).read({"merchant": "baker"}, T + 10 * MINUTE))[
        "merchant_count_1h"
    ].value == 2.0


async def test_the_state_of_another_spec_is_not_read() -> None:
    store = await streamed(EVENTS, partition=of_user("ann"))
    other = replace(SPEC, features=SPEC.features[:2])
    with pytest.raises(ReadError, match=SPEC.state_hash):
        await reader(store, other).read({"user": "ann"}, T)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "give the fields"),
        ({"merchant": "baker"}, "give the fields"),
        ({"user": None}, "null names no entity"),
        ({"usr": "ann"}, "field usr"),
        ({"user": "ann", "shop": "seven"}, "not a number"),
        ({"user": "ann", "shop": 10**400}, "not a number"),
    ],
)
async def test_a_question_that_cannot_be_answered_says_the_mend(
    fields: dict[str, str | float | None], said: str
) -> None:
    with pytest.raises(ReadError, match=said):
        await reader(MemoryStore()).read(fields, T)


def test_a_command_line_reads_without_a_loop_of_its_own() -> None:
    store = asyncio.run(streamed(EVENTS, partition=of_user("ann")))
    assert reader(store).read_once({"user": "ann"}, T)["user_count_1h"].value == 1.0


async def test_an_id_of_64_bits_reads_its_own_entity() -> None:
    near, asked = 1745678901234567890, 1745678901234567891
    store = await streamed([(T, "ann", None, near, 1.0), (T, "ann", None, asked, 2.0)], partition=of_user("ann"))
    for shop in (asked, str(asked)):
        found = await reader(store).read({"user": "ann", "shop": shop}, T)
        assert found["user_shop_sum_1h"].value == 2.0


async def test_a_number_names_the_entity_that_the_worker_makes_of_it() -> None:
    store = await streamed([(T, "ann", None, 7.0, 1.0), (T, "ann", None, 2.5, 2.0)], partition=of_user("ann"))
    for shop, total in ((7, 1.0), ("7.0", 1.0), ("7", 1.0), (2.5, 2.0), ("2.5", 2.0)):
        found = await reader(store).read({"user": "ann", "shop": shop}, T)
        assert found["user_shop_sum_1h"].value == total, shop


async def test_an_id_that_events_have_as_a_float_is_read_as_one() -> None:
    asked = 1745678901234567891
    store = await streamed([(T, "ann", None, float(asked), 1.0)], partition=of_user("ann"))
    floats = FeatureReader(SPEC, store, key="user", partitions=12, floats={"shop"})
    assert (await floats.read({"user": "ann", "shop": str(asked)}, T))["user_shop_sum_1h"].value == 1.0
