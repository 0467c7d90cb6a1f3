"""What every store holds to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from features import codec
from features.store import Group, Meta, Refused, Row, RowKey, Store, Vector

KEYS = [
    RowKey(0, "user-1"),
    RowKey(1, "user-1"),
    RowKey(0, "with spaces and\nlines"),
    RowKey(0, "{braces}:and:colons}"),
    RowKey(0, "Zürich 東京 🛫"),
    RowKey(0, "half a surrogate \ud83d"),
    RowKey(0, ""),
    RowKey(0, "k" * 1024),
    RowKey(1, "EWR\x1fUA"),
]
NOTHING = np.zeros(4, dtype=np.int64)
"""What a row of 4 numbers holds that has seen nothing."""


def rows(meta: Meta, keys: Sequence[RowKey], value: float, vector: Vector | None = None) -> list[Row]:
    """Packed rows of 4 numbers that say `value`."""
    vectors = np.tile(np.array(vector or meta.vector, dtype=np.int64), (len(keys), 1))
    state, names = np.full((len(keys), 4), value), [key for _, key in keys]
    packed = codec.pack(meta.incarnation, vectors, state, names, template=NOTHING)
    return list(zip(keys, packed, strict=True))


async def begun(store: Store, partition: int = 0, vector: Vector = (0, 0)) -> Meta:
    epoch, _ = await store.claim(partition)
    meta = Meta(epoch, epoch, "5eed5eed5eed5eed", vector)
    await store.begin(partition, meta)
    return meta


async def test_a_partition_that_nobody_wrote_has_no_meta(backing: Any) -> None:
    _, meta = await backing.store().claim(0)
    assert meta is None
    assert await backing.store().read({0: KEYS, 1: []}) == {0: (None, [None] * len(KEYS)), 1: (None, [])}


async def test_a_claim_raises_the_epoch_and_keeps_the_meta(backing: Any) -> None:
    first = await begun(backing.store(), vector=(3, 4))
    epoch, meta = await backing.store().claim(0)
    assert epoch > first.epoch
    assert meta == Meta(first.incarnation, epoch, first.state_hash, (3, 4))


async def test_partitions_are_claimed_apart(backing: Any) -> None:
    store = backing.store()
    meta = await begun(store, 0)
    await begun(store, 1)
    await store.write(0, meta, (1, 1), rows(meta, KEYS, 1.0))
    assert (await store.read({1: KEYS}))[1][1] == [None] * len(KEYS)


async def test_what_is_written_is_loaded_byte_by_byte_in_the_order_wanted(backing: Any) -> None:
    store = backing.store()
    meta = await begun(store)
    written = rows(meta, KEYS, 1.5)
    moved = await store.write(0, meta, (10, 2), written)
    assert moved == Meta(meta.incarnation, meta.epoch, meta.state_hash, (10, 2))
    wanted = [KEYS[3], RowKey(0, "never seen"), *reversed(KEYS)]
    loaded = await store.load({0: wanted}, {0: moved})
    assert loaded == {0: [dict(written).get(key) for key in wanted]}
    assert await backing.store().read({0: wanted}) == {0: (moved, loaded[0])}


async def test_several_partitions_are_loaded_at_once(backing: Any) -> None:
    store = backing.store()
    metas = {p: await begun(store, p) for p in range(3)}
    for p, meta in metas.items():
        metas[p] = await store.write(p, meta, (1, p), rows(meta, KEYS, p))
    loaded = await store.load({2: KEYS[:1], 0: KEYS[:2], 1: []}, metas)
    written = {p: dict(rows(meta, KEYS, p, (0, 0))) for p, meta in metas.items()}
    assert loaded == {2: [written[2][KEYS[0]]], 0: [written[0][key] for key in KEYS[:2]], 1: []}


async def test_a_write_without_rows_moves_the_vector(backing: Any) -> None:
    store = backing.store()
    await store.write(0, await begun(store), (7, 7), [])
    assert (await store.claim(0))[1].vector == (7, 7)


async def test_writes_follow_each_other(backing: Any) -> None:
    store = backing.store()
    first = await begun(store)
    second = await store.write(0, first, (1, 0), rows(first, KEYS, 1.0))
    with pytest.raises(Refused):
        await store.write(0, first, (2, 0), rows(first, KEYS, 2.0))
    third = await store.write(0, second, (2, 0), rows(second, KEYS, 3.0))
    assert await store.load({0: KEYS}, {0: third}) == {0: [value for _, value in rows(second, KEYS, 3.0)]}


async def test_an_owner_that_was_followed_by_another_is_refused(backing: Any) -> None:
    old, new = backing.store(), backing.store()
    meta = await begun(old)
    _, claimed = await new.claim(0)
    with pytest.raises(Refused):
        await old.write(0, meta, (1, 0), rows(meta, KEYS, 1.0))
    with pytest.raises(Refused):
        await old.load({0: KEYS}, {0: meta})
    with pytest.raises(Refused):
        await old.begin(0, Meta(meta.epoch, meta.epoch, "5eed", (5, 5)))
    assert await new.load({0: KEYS}, {0: claimed}) == {0: [None] * len(KEYS)}


async def test_rows_of_another_incarnation_are_absent(backing: Any) -> None:
    store = backing.store()
    meta = await begun(store)
    await store.write(0, meta, (1, 0), rows(meta, KEYS, 1.0))
    anew = await begun(store, vector=(0, 0))
    assert await store.load({0: KEYS}, {0: anew}) == {0: [None] * len(KEYS)}
    assert await store.read({0: KEYS}) == {0: (anew, [None] * len(KEYS))}
    moved = await store.write(0, anew, (1, 0), rows(anew, KEYS[:1], 2.0))
    assert (await store.load({0: KEYS[:2]}, {0: moved}))[0][1] is None


async def test_a_group_that_is_kept_has_its_rows_in_the_next_incarnation_and_no_other_has(backing: Any) -> None:
    store = backing.store()
    first = await begun(store, vector=(3, 3))
    await store.write(0, first, (9, 9), rows(first, KEYS, 1.0))
    epoch, _ = await store.claim(0, 6)
    groups = {0: Group("kept", first.incarnation, (9, 9)), 1: Group("new", epoch)}
    meta = Meta(epoch, epoch, "5eed5eed5eed5eee", (2, 3), (9, 9), groups=groups)
    await store.begin(0, meta)
    kept = [value if key.group == 0 else None for key, value in rows(first, KEYS, 1.0, (3, 3))]
    assert await store.load({0: KEYS}, {0: meta}) == {0: kept}
    assert await store.read({0: KEYS}, {0: meta}) == {0: (meta, kept)}
    new = KEYS[1]._replace(key="new")
    packed = codec.pack(epoch, np.zeros((1, 2), dtype=np.int64), np.zeros((1, 4)), [new.key], template=NOTHING)
    moved = await store.write(0, meta, (9, 9), [(new, packed[0])])
    assert moved.groups == groups
    assert await store.load({0: [new, KEYS[0]]}, {0: moved}) == {0: [packed[0], kept[0]]}
    again, claimed = await backing.store().claim(0)
    assert claimed == Meta(epoch, again, "5eed5eed5eed5eee", (9, 9), (9, 9), groups=groups)


async def test_who_reads_with_a_record_of_before_sees_a_groups_new_rows(backing: Any) -> None:
    store = backing.store()
    first = await begun(store)
    before = await store.write(0, first, (1, 0), rows(first, KEYS[:2], 1.0))
    epoch, _ = await store.claim(0)
    meta = Meta(epoch, epoch, "5eed", (1, 0), groups={0: Group("kept", first.incarnation), 1: Group("new", epoch)})
    await store.begin(0, meta)
    packed = codec.pack(epoch, np.zeros((1, 2), dtype=np.int64), np.zeros((1, 4)), ["user-1"], template=NOTHING)
    after = await store.write(0, meta, (2, 0), [(KEYS[1], packed[0])])
    found = (await backing.store().read({0: KEYS[:2]}, {0: before}))[0]
    assert found == (after, [rows(first, KEYS[:1], 1.0)[0][1], packed[0]])


async def test_to_begin_again_is_the_same_but_not_at_another_vector(backing: Any) -> None:
    store = backing.store()
    meta = await begun(store)
    await store.begin(0, meta)
    await store.write(0, meta, (1, 0), rows(meta, KEYS, 1.0))
    with pytest.raises(Refused):
        await store.begin(0, meta)


async def test_a_wiped_server_refuses_the_running_owner(backing: Any) -> None:
    store = backing.store()
    meta = await begun(store)
    meta = await store.write(0, meta, (1, 0), rows(meta, KEYS, 1.0))
    backing.wipe()
    with pytest.raises(Refused):
        await store.load({0: KEYS}, {0: meta})
    with pytest.raises(Refused):
        await store.write(0, meta, (2, 0), rows(meta, KEYS, 2.0))
    with pytest.raises(Refused):
        await store.begin(0, meta)
    anew = await begun(store)
    assert anew.epoch > meta.epoch
    assert await store.load({0: KEYS}, {0: anew}) == {0: [None] * len(KEYS)}


async def test_an_old_snapshot_refuses_the_running_owner(backing: Any) -> None:
    store = backing.store()
    meta = await begun(store)
    meta = await store.write(0, meta, (1, 0), rows(meta, KEYS, 1.0))
    snapshot = backing.snapshot()
    meta = await store.write(0, meta, (2, 0), rows(meta, KEYS, 2.0))
    backing.restore(snapshot)
    with pytest.raises(Refused):
        await store.load({0: KEYS}, {0: meta})
    with pytest.raises(Refused):
        await store.write(0, meta, (3, 0), rows(meta, KEYS, 3.0))
    _, found = await store.claim(0)
    assert found.vector == (1, 0)


async def test_an_old_snapshot_does_not_give_an_epoch_twice(backing: Any) -> None:
    old, new = backing.store(), backing.store()
    await begun(old)
    snapshot = backing.snapshot()
    epoch, _ = await old.claim(0)
    backing.restore(snapshot)
    assert (await new.claim(0))[0] > epoch


async def test_a_load_beside_a_write_accepts_the_vector_that_has_moved(backing: Any) -> None:
    store = backing.store()
    meta = await begun(store)
    await store.write(0, meta, (1, 0), rows(meta, KEYS, 1.0))
    assert None not in (await store.load({0: KEYS}, {0: meta}))[0]


async def test_ten_thousand_rows_are_written_and_loaded(backing: Any) -> None:
    store = backing.store()
    meta = await begun(store)
    keys = [RowKey(n % 3, f"user-{n}") for n in range(10_000)]
    written = rows(meta, keys, 4.0)
    moved = await store.write(0, meta, (10_000, 0), written)
    assert await store.load({0: keys}, {0: moved}) == {0: [value for _, value in written]}


async def test_a_meta_says_up_to_where_it_is_rebuilt_until_a_write_has_got_there(backing: Any) -> None:
    store = backing.store()
    epoch, _ = await store.claim(0)
    meta = Meta(epoch, epoch, "5eed5eed5eed5eed", (0, 3), until=(5, 3))
    await store.begin(0, meta)
    assert (await backing.store().read({0: []}))[0].meta == meta
    epoch, found = await store.claim(0)  # the next owner goes on where this one died
    assert (found.until, found.rebuilding) == ((5, 3), True)
    moved = await store.write(0, found, (5, 4), [])
    assert not moved.rebuilding
    assert (await backing.store().read({0: []}))[0].meta == moved
    anew = await begun(store)  # of which nothing is to be rebuilt
    assert (await backing.store().read({0: []}))[0].meta == anew
    assert not anew.rebuilding


async def test_readers_learn_how_many_partitions_there_are_and_when_one_was_written(backing: Any) -> None:
    store = backing.store()
    epoch, _ = await store.claim(0, 6)
    meta = Meta(epoch, epoch, "5eed5eed5eed5eed", (0, 0))
    await store.begin(0, meta)
    first = (await store.read({0: []}))[0].meta
    assert first.partitions == 6
    await store.claim(0)
    _, again = await store.claim(0, 12)
    assert again.partitions == 12
    await store.write(0, again, (1, 0), [])
    assert (await store.read({0: []}))[0].meta.written_ms >= first.written_ms > 0


async def test_a_meta_that_is_known_holds_but_where_rows_contradict_it(backing: Any) -> None:
    store, reader = backing.store(), backing.store()
    old = await begun(store)
    old = await store.write(0, old, (1, 0), written := rows(old, KEYS, 1.0))
    wanted = {0: [*KEYS, RowKey(0, "never seen")]}
    assert await reader.read(wanted, {0: old}) == {0: (old, [*(value for _, value in written), None])}
    new = await begun(store)
    new = await store.write(0, new, (1, 0), written := rows(new, KEYS[:1], 2.0))
    assert await reader.read({0: KEYS[:2]}, {0: old}) == {0: (new, [written[0][1], None])}
    assert (await reader.read({0: KEYS[:1], 1: KEYS[:1]}, {0: new}))[1] == (None, [None])
