"""A remote group, from its owner's engine through a store to who reads it."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.engine import FeatureEngine
from features.memory_store import MemoryStore
from features.partitioner import partition_of
from features.progress import UNKNOWN, Progress, packed_progress, progress_of
from features.remote import GroupReader, is_stale
from features.round import Segment, StreamColumns
from features.spec import Aggregate, FeatureSpec, Field, Stream
from features.store import Group, Meta
from features.windows import parse_window
from tests.oracles.features import Event, features_of

PARTITIONS = 3
SHOPS = Stream("p.group.shop", (Field("shop", "string", True), Field("amount", "number", True)))
SPEC = FeatureSpec(
    (SHOPS,),
    (
        Aggregate("n", 0, ("shop",), "count", None, parse_window("1h")),
        Aggregate("total", 0, ("shop",), "sum", "amount", parse_window("24h")),
        Aggregate("last", 0, ("shop",), "last", "amount", None, 3_600_000),
    ),
)
T0 = 1_700_000_000_000


class Owner:
    """What a group's worker does with its events, a checkpoint when it is told."""

    def __init__(self, store: MemoryStore, spec: FeatureSpec = SPEC) -> None:
        self.store, self.spec = store, spec
        self.engine = FeatureEngine(spec, store)
        self.offsets = dict.fromkeys(range(PARTITIONS), 0)

    async def begin(self) -> Owner:
        for partition in range(PARTITIONS):
            epoch, _ = await self.store.claim(partition, PARTITIONS)
            groups = {kind.number: Group(kind.hash, epoch) for kind in self.engine.layout.kinds}
            meta = Meta(epoch, epoch, self.spec.state_hash, (0,), groups=groups)
            await self.store.begin(partition, meta)
            self.engine.own(partition, meta, empty=True)
        return self

    async def add(self, shop: str, amount: float | None, time: int) -> None:
        partition = partition_of(shop.encode(), PARTITIONS, "crc32")
        offset, self.offsets[partition] = self.offsets[partition], self.offsets[partition] + 1
        fields = {"shop": [shop], "amount": np.array([math.nan if amount is None else amount])}
        round = (StreamColumns(0, (Segment(partition, 0, 1),), np.array([offset]), np.array([time]), fields),)
        await self.engine.load(round)
        self.engine.fold(round)

    async def checkpoint(self, progress: dict[int, Progress] | None = None) -> int:
        told = dict.fromkeys(range(PARTITIONS), Progress(T0, T0)) if progress is None else progress
        copies = self.engine.snapshot({p: (o,) for p, o in self.offsets.items()}, told)
        for copy in copies:
            self.engine.written(copy, await self.store.write(copy.partition, copy.follows, copy.vector, copy.rows()))
        return len(copies)


def reader(store: MemoryStore, *, now_ms: int = T0, spec: FeatureSpec = SPEC, clock: Any = lambda: 0.0) -> GroupReader:
    return GroupReader(spec, store, PARTITIONS, now_ms=lambda: now_ms, monotonic_s=clock)


events = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "ü\x1f", ""]),
        st.none() | st.floats(-1e6, 1e6),
        st.integers(0, 40 * 3_600_000),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(events, st.lists(st.integers(0, 40 * 3_600_000), min_size=1, max_size=6), st.randoms())
async def test_a_read_is_what_a_loop_over_the_owners_events_gives_as_of_each_time(
    found: list[tuple[str, float | None, int]], times: list[int], draw: random.Random
) -> None:
    owner = await Owner(MemoryStore()).begin()
    for shop, amount, time in found:
        await owner.add(shop, amount, T0 + time)
    await owner.checkpoint()
    asked = [(draw.choice(["a", "b", "c", "ü\x1f", "", "never"]), T0 + time) for time in times]
    columns = {"shop": [shop for shop, _ in asked]}
    remote = await reader(owner.store).read(columns, np.array([time for _, time in asked]))
    seen = [
        Event(0, T0 + time, i, 0, {"shop": shop, "amount": amount}) for i, (shop, amount, time) in enumerate(found)
    ]
    for place, (shop, time) in enumerate(asked):
        *_, expected = features_of(SPEC, [*seen, Event(0, time, len(seen), 0, {"shop": shop, "amount": None})])
        for name, value in expected.items():
            got = remote.values[name][place]
            assert np.isnan(got) if value is None else got == pytest.approx(value, rel=1e-9, abs=1e-9), (shop, name)


async def test_what_is_not_in_the_last_checkpoint_is_not_read() -> None:
    owner = await Owner(MemoryStore()).begin()
    await owner.add("a", 1.0, T0)
    await owner.checkpoint()
    await owner.add("a", 2.0, T0 + 1)
    assert (await reader(owner.store).read({"shop": ["a"]}, np.array([T0 + 2]))).values["n"].tolist() == [1]
    await owner.checkpoint()
    assert (await reader(owner.store).read({"shop": ["a"]}, np.array([T0 + 2]))).values["n"].tolist() == [2]


async def test_an_owner_that_has_not_begun_gives_nothing_and_is_older_than_any_bound() -> None:
    remote = await reader(MemoryStore()).read({"shop": ["a", None]}, np.array([T0, T0]))
    assert np.isnan(remote.values["n"][0])
    assert remote.age_s[0] == np.inf
    assert np.isnan(remote.lag_s[0])
    assert is_stale(remote.age_s, 10**9).tolist() == [True, False]


async def test_an_event_that_names_no_entity_reads_nothing_seen() -> None:
    owner = await Owner(MemoryStore()).begin()
    await owner.add("a", 1.0, T0)
    await owner.checkpoint()
    remote = await reader(owner.store).read({"shop": [None, "a", "a"]}, np.array([T0 + 1] * 3))
    assert remote.values["n"].tolist() == [0, 1, 1]
    assert np.isnan(remote.values["last"][0])


async def test_lag_is_in_event_time_and_age_by_the_clock() -> None:
    owner = await Owner(MemoryStore()).begin()
    await owner.add("a", 1.0, T0)
    mine = partition_of(b"a", PARTITIONS, "crc32")
    await owner.checkpoint({mine: Progress(T0, T0 + 9_000)})
    remote = await reader(owner.store, now_ms=T0 + 10_000).read({"shop": ["a", "a"]}, np.array([T0 + 1500, T0 - 500]))
    assert remote.lag_s.tolist() == [1.5, -0.5]
    assert remote.age_s.tolist() == [1.0, 1.0]
    assert is_stale(remote.age_s, 1000).tolist() == [False, False]
    assert is_stale(remote.age_s, 999).tolist() == [True, True]
    assert not is_stale(remote.age_s, None).any()


async def test_progress_alone_is_written_once_where_no_event_came() -> None:
    owner = await Owner(MemoryStore()).begin()
    await owner.add("a", 1.0, T0)
    mine = partition_of(b"a", PARTITIONS, "crc32")
    assert await owner.checkpoint({mine: Progress(T0, T0)}) == 1
    assert await owner.checkpoint({mine: Progress(T0, T0)}) == 0
    assert await owner.checkpoint({mine: Progress(T0, T0 + 5000)}) == 1
    remote = await reader(owner.store, now_ms=T0 + 5000).read({"shop": ["a"]}, np.array([T0 + 1]))
    assert remote.age_s.tolist() == [0.0]
    assert remote.values["n"].tolist() == [1]


async def test_progress_that_could_not_be_written_is_told_again() -> None:
    owner = await Owner(MemoryStore()).begin()
    await owner.checkpoint({0: Progress(T0, T0)})
    (tried,) = owner.engine.snapshot({0: (0,)}, {0: Progress(T0, T0 + 5000)})
    assert owner.engine.write_failed(tried)
    (again,) = owner.engine.snapshot({0: (0,)}, {0: Progress(T0, T0 + 5000)})
    assert list(again.rows()) == list(tried.rows())


async def test_an_owner_that_keeps_the_same_rows_is_read_whatever_else_it_computes_of_them() -> None:
    n, *others = SPEC.features
    rate = Aggregate("rate", 0, ("shop",), "rate", None, parse_window("1h"))
    owner = await Owner(MemoryStore(), replace(SPEC, features=(n, rate, *others))).begin()
    assert owner.spec.state_hash != SPEC.state_hash
    await owner.add("a", 1.0, T0)
    await owner.checkpoint()
    found = reader(owner.store)
    remote = await found.read({"shop": ["a"]}, np.array([T0 + 1]))
    assert remote.values["n"].tolist() == remote.values["total"].tolist() == [1]
    assert found.refused == ""


async def test_an_owner_of_other_features_is_not_read_and_that_is_said() -> None:
    owner = await Owner(MemoryStore(), replace(SPEC, features=SPEC.features[:2])).begin()
    await owner.add("a", 1.0, T0)
    await owner.checkpoint()
    found = reader(owner.store)
    remote = await found.read({"shop": ["a"]}, np.array([T0 + 1]))
    assert np.isnan(remote.values["n"][0])
    assert remote.age_s.tolist() == [np.inf]
    assert "other features" in found.refused


async def test_while_a_new_owner_rebuilds_what_it_has_not_read_again_is_unknown_and_not_nothing() -> None:
    owner = await Owner(MemoryStore()).begin()
    await owner.add("a", 1.0, T0)
    await owner.checkpoint()
    mine = partition_of(b"a", PARTITIONS, "crc32")
    epoch, _ = await owner.store.claim(mine, PARTITIONS)
    await owner.store.begin(mine, Meta(epoch, epoch, SPEC.state_hash, (0,), (1,)))
    remote = await reader(owner.store).read({"shop": ["a"]}, np.array([T0 + 1]))
    assert np.isnan(remote.values["n"][0])
    assert remote.age_s.tolist() == [np.inf]


async def test_a_new_incarnation_is_seen_within_a_second_and_its_rows_at_once() -> None:
    clock = [0.0]
    owner = await Owner(MemoryStore()).begin()
    await owner.add("a", 1.0, T0)
    await owner.checkpoint()
    found = reader(owner.store, clock=lambda: clock[0])
    assert (await found.read({"shop": ["a"]}, np.array([T0 + 1]))).values["n"].tolist() == [1]
    again = await Owner(owner.store).begin()
    await again.add("a", 1.0, T0)
    await again.add("a", 1.0, T0)
    await again.checkpoint()
    assert (await found.read({"shop": ["a"]}, np.array([T0 + 1]))).values["n"].tolist() == [2]


def test_progress_of_another_incarnation_or_broken_is_not_known() -> None:
    _, packed = packed_progress(Progress(T0, T0 + 5), 7, (3, 4))
    assert progress_of(packed, 7, 2) == Progress(T0, T0 + 5)
    assert progress_of(packed, 8, 2) == UNKNOWN
    assert progress_of(packed, 7, 1) == UNKNOWN
    assert progress_of(packed[:20], 7, 2) == UNKNOWN
    assert progress_of(None, 7, 2) == UNKNOWN
