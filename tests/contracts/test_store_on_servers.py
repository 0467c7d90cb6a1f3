"""What befalls a store because a server is behind it: it dies, stops, fills up, answers late, refuses."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis.utils

from features import codec
from features.partitioner import partition_of
from features.reader import StateReader
from features.redis_store import CHUNK_BYTES, CHUNK_ROWS, SOME_ROWS, RedisStore, _chunks
from features.store import Group, Meta, Refused, Row, RowKey, StoreMisconfigured, StoreUnavailable
from tests.contracts.conftest import ServerBacking
from tests.contracts.test_store import KEYS, NOTHING, begun, rows
from tests.features.test_reader import SPEC, T, features_of

BIG = [RowKey(0, f"{n:05d}" + "k" * 4000) for n in range(5_000)]
"""20 MB: some eighty chunks."""


async def test_a_write_that_is_cut_leaves_the_meta_behind_and_rows_ahead(shared: ServerBacking) -> None:
    store, reader = shared.store(), shared.store()
    meta = await begun(store)
    meta = await store.write(0, meta, (1, 0), rows(meta, BIG[-1:], 1.0, vector=(1, 0)))
    cut = asyncio.create_task(store.write(0, meta, (9, 0), rows(meta, BIG, 9.0, vector=(9, 0))))
    while (await reader.read({0: BIG[:1]}))[0][1] == [None]:
        pass
    cut.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cut
    _, found = await reader.claim(0)
    assert found is not None
    assert found.vector == (1, 0)
    first, last = (await reader.load({0: [BIG[0], BIG[-1]]}, {0: found}))[0]
    names = [BIG[0].key, BIG[-1].key]
    unpacked = codec.unpack([first, last], names, incarnation=meta.incarnation, streams=2, template=NOTHING)
    assert unpacked.vectors.tolist() == [[9, 0], [1, 0]]


async def test_a_write_whose_answer_was_lost_is_followed_all_the_same(own: ServerBacking) -> None:
    store = own.store(command_timeout_s=0.2)
    meta = await begun(store)
    own.server.pause()
    with pytest.raises(StoreUnavailable):
        await store.write(0, meta, (1, 0), rows(meta, KEYS, 1.0))
    own.server.resume()
    reader = own.store()
    while (await reader.read({0: []}))[0][0] == meta:
        pass  # the server reads what came while it stood still
    moved = await store.write(0, meta, (2, 0), rows(meta, KEYS, 2.0))
    assert await store.load({0: KEYS}, {0: moved}) == {0: [value for _, value in rows(meta, KEYS, 2.0)]}
    with pytest.raises(Refused):
        await store.write(0, meta, (3, 0), [])


async def test_a_connection_that_was_reset_while_nobody_used_it_is_made_anew(own: ServerBacking) -> None:
    clients: list[asyncio.StreamWriter] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.append(writer)
        answers, requests = await asyncio.open_connection("127.0.0.1", own.server.port)
        await asyncio.gather(_pipe(reader, requests), _pipe(answers, writer))

    async with await asyncio.start_server(forward, "127.0.0.1", 0) as proxy:
        store = RedisStore(f"redis://127.0.0.1:{proxy.sockets[0].getsockname()[1]}", "reset", command_timeout_s=5)
        before, _ = await store.claim(0)
        for client in clients:
            client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.transport.abort()
        await asyncio.sleep(0.1)  # until the other end has heard it
        with suppress(StoreUnavailable):
            await store.claim(0)
        assert (await store.claim(0))[0] > before
        assert len(clients) == 2
        await store.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
    writer.close()


async def test_a_read_that_is_cancelled_leaves_no_answer_for_the_next_one(own: ServerBacking) -> None:
    store = own.store()
    meta = await begun(store)
    written = rows(meta, KEYS, 1.0)
    meta = await store.write(0, meta, (1, 0), written)
    for stands_still in (True, False):
        if stands_still:
            own.server.pause()
        read = asyncio.create_task(store.read({0: KEYS[:1]}, {0: meta}))
        await asyncio.sleep(0.05 if stands_still else 0)
        read.cancel()
        with pytest.raises(asyncio.CancelledError):
            await read
        if stands_still:
            own.server.resume()
        assert await store.read({0: KEYS[1:]}, {0: meta}) == {0: (meta, [value for _, value in written[1:]])}


async def test_a_chunk_that_arrives_after_a_later_write_has_begun_is_refused(shared: ServerBacking) -> None:
    store, late = shared.store(), shared.store()
    meta = await begun(store)
    for offset in range(1, 4):
        meta = await store.write(0, meta, (offset, 0), [])
    with pytest.raises(Refused, match="later write"):
        await late.write(0, meta, (9, 0), rows(meta, KEYS, 9.0))


async def test_a_server_that_stands_still_costs_the_timeout_and_mixes_no_answers(own: ServerBacking) -> None:
    store = own.store(command_timeout_s=0.2)
    meta = await begun(store)
    written = rows(meta, KEYS, 1.0)
    meta = await store.write(0, meta, (1, 0), written)
    own.server.pause()
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(store.load({0: KEYS[:1]}, {0: meta}), 1.0)
    own.server.resume()
    assert await store.load({0: KEYS[2:]}, {0: meta}) == {0: [value for _, value in written[2:]]}


@pytest.mark.parametrize(
    ("size", "many"), [(0, 999), (1, 1000), (1, 1001), (1, 2000), (300, 871), (9000, 70), (300_000, 3)]
)
def test_chunks_are_bounded_and_the_last_one_holds_the_last_row(size: int, many: int) -> None:
    # A row that says how far the owner is must come with the vector, behind all that it speaks of.
    given = [(RowKey(1, str(i)), bytes(size)) for i in range(many)]
    chunks = list(_chunks(iter(given)))
    assert [row for chunk, _ in chunks for row in chunk] == given
    assert [is_last for _, is_last in chunks] == [False] * (len(chunks) - 1) + [True]
    assert all(chunk for chunk, _ in chunks)
    for chunk, _ in chunks:
        assert len(chunk) <= CHUNK_ROWS
        assert sum(len(value) for _, value in chunk) < CHUNK_BYTES + max(size, CHUNK_BYTES // 4)


async def test_a_write_takes_its_rows_a_chunk_at_a_time_and_others_run_in_between(shared: ServerBacking) -> None:
    store = shared.store()
    meta = await begun(store)
    many = rows(meta, [RowKey(1, f"u{i}") for i in range(3500)], 1.0)
    taken = [0]

    def counted() -> Iterator[Row]:
        for row in many:
            taken[-1] += 1
            yield row

    write = asyncio.create_task(store.write(0, meta, (1, 0), counted()))
    while not write.done():
        await asyncio.sleep(0)
        taken.append(0)
    assert sum(taken) == 3500
    assert max(taken) <= CHUNK_ROWS + SOME_ROWS  # the next ones tell that a chunk is full
    assert (await store.load({0: [many[-1][0]]}, {0: await write}))[0] == [many[-1][1]]


async def test_cancelled_loads_hand_their_answers_to_nobody(shared: ServerBacking) -> None:
    store = shared.store()
    meta = await begun(store)
    keys = [RowKey(0, f"user-{n}") for n in range(200)]
    meta = await store.write(0, meta, (1, 0), rows(meta, keys, 1.0))
    for n, key in enumerate(keys):
        load = asyncio.create_task(store.load({0: [keys[n - 1]]}, {0: meta}))
        for _ in range(n % 12):
            await asyncio.sleep(0)
        load.cancel()
        value = (await store.load({0: [key]}, {0: meta}))[0][0]
        assert value is not None
        assert value.endswith(key.key.encode())


async def test_a_killed_server_is_unavailable_and_a_restarted_one_begins_anew(own: ServerBacking) -> None:
    store = own.store()
    meta = await begun(store)
    own.server.kill()
    with pytest.raises(StoreUnavailable, match=rf"127\.0\.0\.1:{own.server.port}"):
        await store.write(0, meta, (1, 0), rows(meta, KEYS, 1.0))
    with pytest.raises(StoreUnavailable):
        await store.read({0: KEYS})
    own.server.start()
    with pytest.raises(Refused):
        await store.write(0, meta, (1, 0), rows(meta, KEYS, 1.0))
    anew = await begun(store)
    assert anew.epoch > meta.epoch
    assert (await store.write(0, anew, (1, 0), rows(anew, KEYS, 1.0))).vector == (1, 0)


async def test_a_full_server_is_unavailable_until_it_has_room(own: ServerBacking) -> None:
    store = own.store()
    meta = await begun(store)
    with own.server.admin() as admin:
        admin.config_set("maxmemory", 1)
        with pytest.raises(StoreUnavailable, match="maxmemory"):
            await store.write(0, meta, (1, 0), rows(meta, KEYS, 1.0))
        meta = await begun(own.store())  # it can be taken over all the same, by a client that has just come
        admin.config_set("maxmemory", 0)
    store = own.store()
    assert (await store.write(0, meta, (1, 0), rows(meta, KEYS, 1.0))).vector == (1, 0)


async def test_a_server_that_evicts_rows_is_refused_at_the_first_claim(own: ServerBacking) -> None:
    with own.server.admin() as admin:
        admin.config_set("maxmemory", 1 << 30)
        admin.config_set("maxmemory-policy", "volatile-lru")
    with pytest.raises(StoreMisconfigured, match="noeviction"):
        await own.store(ttl_ms=60_000).claim(0)
    await own.store().claim(0)  # without a TTL nothing is volatile
    with own.server.admin() as admin:
        admin.config_set("maxmemory-policy", "allkeys-lru")
    with pytest.raises(StoreMisconfigured, match="allkeys-lru"):
        await own.store().claim(0)


async def test_rows_expire_with_a_ttl_and_stay_without_one(shared: ServerBacking) -> None:
    expiring, lasting = shared.store(ttl_ms=90_000), shared.store()
    for partition, store in enumerate([expiring, lasting]):
        meta = await begun(store, partition)
        await store.write(partition, meta, (1, 0), rows(meta, KEYS[:1], 1.0))
    with shared.server.admin() as admin:
        ttls = [admin.pttl(f"weir:{{{shared.pipeline}:{p}}}:row:0:user-1") for p in (0, 1)]
        assert 60_000 < ttls[0] <= 90_000
        assert ttls[1] == -1
        assert admin.pttl(f"weir:{{{shared.pipeline}:0}}:meta") == -1


async def test_a_wrong_password_is_one_line_that_does_not_repeat_it(own: ServerBacking) -> None:
    with own.server.admin() as admin:
        admin.config_set("requirepass", "right")
    for credentials in ("", ":wr0ng@", "nobody:wr0ng@"):
        store = RedisStore(f"redis://{credentials}127.0.0.1:{own.server.port}", "fraud")
        with pytest.raises(StoreMisconfigured) as caught:
            await store.claim(0)
        assert "\n" not in str(caught.value)
        assert "wr0ng" not in str(caught.value)
        await store.close()
    right = RedisStore(f"redis://:right@127.0.0.1:{own.server.port}", "fraud")
    await right.claim(0)
    await right.close()


async def test_a_user_without_the_right_to_write_can_read(own: ServerBacking) -> None:
    meta = await begun(own.store())
    with own.server.admin() as admin:
        admin.acl_setuser(
            "reader", enabled=True, passwords=["+secret"], keys=["weir:*"], categories=["+@read"]
        )
    store = RedisStore(f"redis://reader:secret@127.0.0.1:{own.server.port}", own.pipeline)
    assert await store.read({0: KEYS[:1]}) == {0: (meta, [None])}
    with pytest.raises(StoreMisconfigured, match="permission"):
        await store.claim(0)
    await store.close()


async def test_rows_of_a_stranger_are_absent(shared: ServerBacking) -> None:
    store = shared.store()
    meta = await begun(store)
    with shared.server.admin() as admin:
        admin.set(f"weir:{{{shared.pipeline}:0}}:row:0:user-1", b"odd")
    assert await store.load({0: KEYS[:1]}, {0: meta}) == {0: [None]}


async def test_groups_that_another_release_left_count_for_its_own_incarnation(shared: ServerBacking) -> None:
    store = shared.store()
    epoch, _ = await store.claim(0)
    groups = {2**40 - 1: Group("0123456789abcdef", epoch, (7, 0)), 5: Group("fedcba9876543210", epoch)}
    await store.begin(0, meta := Meta(epoch, epoch, "5eed5eed5eed5eed", (0, 0), groups=groups))
    assert (await store.read({0: []}))[0].meta == meta
    with shared.server.admin() as admin:  # as a function that knows no groups begins the next
        admin.hset(f"weir:{{{shared.pipeline}:0}}:meta", "incarnation", str(epoch + 1))
    found = (await store.read({0: []}))[0].meta
    assert found is not None
    assert found.groups == {}


async def test_what_another_release_left_of_a_rebuild_counts_for_its_own_incarnation(shared: ServerBacking) -> None:
    store = shared.store()
    epoch, _ = await store.claim(0)
    await store.begin(0, Meta(epoch, epoch, "5eed5eed5eed5eed", (0, 0), until=(9, 9)))
    with shared.server.admin() as admin:  # as a function that knows no `until` begins the next
        admin.hset(f"weir:{{{shared.pipeline}:0}}:meta", "incarnation", str(epoch + 1))
    found = (await store.read({0: []}))[0].meta
    assert found is not None
    assert (found.incarnation, found.until, found.rebuilding) == (epoch + 1, (), False)


async def test_some_rows_of_a_kind_are_found_without_knowing_their_names(shared: ServerBacking) -> None:
    store = shared.store()
    for partition in range(4):
        meta = await begun(store, partition)
        keys = [RowKey(entity, f"{partition}:user {n} é") for entity in (0, 1) for n in range(3)]
        await store.write(partition, meta, (1, 0), rows(meta, keys, 1.0, vector=(1, 0)))
    other = RedisStore(shared.server.url, f"{shared.pipeline}-other")
    await begun(other)
    assert await other.some_rows(0, 10) == []
    await other.close()
    found = await store.some_rows(1, 100)
    assert sorted(found) == sorted(RowKey(1, f"{partition}:user {n} é") for partition in range(4) for n in range(3))
    assert len(await store.some_rows(0, 5)) == 5
    assert await store.some_rows(2, 5) == []


def test_answers_are_parsed_by_the_drivers_extra_in_c() -> None:
    assert redis.utils.HIREDIS_AVAILABLE, "install redis[hiredis]: without it a round of rows takes five times as long"


async def test_a_read_of_a_hundred_entities_whose_partitions_are_known_is_one_mget_and_nothing_else(
    own: ServerBacking,
) -> None:
    users, partitions, seconds = [f"user-{n}" for n in range(100)], 12, [0.0]
    for partition in range(partitions):
        mine = [user for user in users if partition_of(user.encode(), partitions, "crc32") == partition]
        assert mine
        await features_of([(T, user, "baker", 7, 10.0) for user in mine], own.store(), partition, SPEC)
    reader = StateReader(SPEC, own.store(), key="user", partitions=partitions, monotonic_s=lambda: seconds[0])
    asked = [{"user": user} for user in users]
    await reader.read(asked, T + 1)
    with own.server.admin() as admin:
        before = commands_of(admin)
        found = await reader.read(asked, T + 1)
        known = commands_of(admin)
        seconds[0] = 60.0
        await reader.read(asked, T + 1)
        unknown = commands_of(admin)
    assert [row["user_last"].value for row in found] == [10.0] * 100
    assert known - before == Counter({"mget": 1})
    assert unknown - known == Counter({"mget": 1, "hmget": partitions})


def commands_of(admin: redis.Redis) -> Counter[str]:
    """How often each command was run since the server started, but for this question."""
    stats: Any = admin.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): said["calls"] for name, said in stats.items() if "info" not in name})
