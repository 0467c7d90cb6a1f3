"""The store on Redis (7.0 or later) or Valkey: one server, or a cluster.

A partition's keys share a hash tag, so that one slot of a cluster holds them:

    weir:{<pipeline>:<partition>}:meta                 hash: incarnation, epoch, state_hash, vector, attempt, until,
                                                       groups, partitions, written
    weir:{<pipeline>:<partition>}:row:<group>:<key>    a packed row; <group> is its number, in hexadecimal
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from typing import Any

from features.redis_client import Command, RedisClient
from features.redis_errors import FunctionMissing
from features.store import (
    Found,
    Group,
    Meta,
    Refused,
    Row,
    RowKey,
    StoreMisconfigured,
    Vector,
    Wanted,
    check_load,
    of_incarnation,
)

CHUNK_BYTES = 256 * 1024
CHUNK_ROWS = 1000
"""A chunk keeps the server busy for 1 to 3 ms."""
SOME_ROWS = 50
"""Rows at most that are taken at once; then it is looked whether their chunk is full."""
CHUNKS = 4
"""Sent at once: each answer that is waited for costs as long as the worker's event loop is busy with a round, and each
chunk that goes with others a millisecond or two in which no round begins."""

_LIBRARY = resources.files(__package__).joinpath("checkpoint.lua").read_text()
_VERSION = hashlib.sha256(_LIBRARY.encode()).hexdigest()[:12]
_FUNCTIONS = _LIBRARY.replace("@VERSION@", _VERSION)
_ROW = re.compile(r"weir:\{[^}]*\}:row:[0-9a-f]+:")
_Call = tuple[Sequence[bytes], Sequence[Any]]
"""Keys and arguments of a function."""
_Chunk = tuple[list[Row], bool]
"""Rows, and whether they are the last."""
_META = ("incarnation", "epoch", "state_hash", "vector", "until", "partitions", "written", "groups")


class RedisStore:
    """See `features.store.Store`.

    url: see `features.redis_client.RedisClient`.
    ttl_ms: rows expire this long (wall clock) after their last write; None = never. Not less than the spec's
        `kept_ms` and the longest that a worker may lag: it must still find the rows that count.
    """

    def __init__(
        self,
        url: str,
        pipeline: str,
        *,
        ttl_ms: int | None = None,
        connect_timeout_s: float = 2.0,
        command_timeout_s: float = 1.0,
    ) -> None:
        self._pipeline = pipeline
        self._ttl_ms = ttl_ms
        self._attempts = itertools.count(1)
        self._unanswered: dict[int, Vector] = {}
        """By partition, the vector of the last write, while its answer has not been seen."""
        self._heads: dict[int, _Heads] = {}
        self._ready = False
        self._packing = asyncio.Lock()
        self._redis = RedisClient(url, connect_timeout_s=connect_timeout_s, command_timeout_s=command_timeout_s)

    async def claim(self, partition: int, partitions: int = 0) -> tuple[int, Meta | None]:
        reply = await self._function("claim", [self._meta_key(partition)], [partitions or ""])
        epoch, incarnation, *rest = reply
        return int(epoch), _meta(incarnation, epoch, *rest)

    async def begin(self, partition: int, meta: Meta) -> None:
        until = f"{meta.incarnation}:{_text(meta.until)}" if meta.until else ""
        groups = f"{meta.incarnation}:{_groups_text(meta.groups)}" if meta.groups else ""
        args = [meta.epoch, meta.incarnation, meta.state_hash, _text(meta.vector), until, groups]
        _accept(partition, await self._function("begin", [self._meta_key(partition)], args))
        self._unanswered.pop(partition, None)

    async def load(self, wanted: Wanted, metas: Mapping[int, Meta]) -> dict[int, list[bytes | None]]:
        found = await self.read(wanted)
        for partition, (meta, _) in found.items():
            check_load(partition, metas[partition], meta)
        if await self._redis.is_cluster():
            # There a redirected request may be answered after the one behind it: the metas once more, after the rows.
            for partition, (meta, _) in (await self.read(dict.fromkeys(wanted, ()))).items():
                check_load(partition, metas[partition], meta)
        return {partition: rows for partition, (_, rows) in found.items()}

    async def read(self, wanted: Wanted, known: Mapping[int, Meta] | None = None) -> dict[int, Found]:
        known = known or {}
        values, metas = await self._read(wanted, [p for p in wanted if p not in known])
        found = {p: _found(metas.get(p, known.get(p)), keys, values[p]) for p, keys in wanted.items()}
        # Rows that a meta which was not read now does not account for: it may be another one by now.
        doubted = {p: wanted[p] for p in known if p in wanted and found[p].rows.count(None) != values[p].count(None)}
        if doubted:
            values, metas = await self._read(doubted, list(doubted))
            found |= {p: _found(metas[p], keys, values[p]) for p, keys in doubted.items()}
        return found

    async def write(self, partition: int, follows: Meta, vector: Vector, rows: Iterable[Row]) -> Meta:
        meta_key = self._meta_key(partition)
        unanswered = self._unanswered.get(partition, follows.vector)
        before = [follows.incarnation, follows.epoch, _text(follows.vector), _text(unanswered), _text(vector)]
        before.append(next(self._attempts))
        self._unanswered[partition] = vector
        chunks, calls, is_last = _chunks(rows), list[_Call](), False
        while not is_last:
            chunk, is_last = await self._next(chunks)
            if len(calls) == CHUNKS or (is_last and calls):  # the last one moves the vector: when all others are there
                await self._write(partition, calls)
                calls = []
            row_keys = self._row_keys(partition, [key for key, _ in chunk])
            args = [*before, int(is_last), self._ttl_ms or 0, *[value for _, value in chunk]]
            calls.append(([meta_key, *row_keys], args))
        await self._write(partition, calls)
        del self._unanswered[partition]
        return replace(follows, vector=vector)

    async def servers(self) -> dict[str, dict[str, Any]]:
        """What INFO says, by host:port, of the server, or of each primary of the cluster."""
        return await self._redis.on_primaries("INFO")

    async def some_rows(self, group: int, most: int) -> list[RowKey]:
        """Up to `most` rows of a group, of any partition and incarnation: for who knows none by name."""
        head = f"weir:{{{self._pipeline}:"
        found = await self._redis.some_keys(f"{head}*}}:row:{group:x}:*", most)
        return [RowKey(group, _ROW.sub("", key.decode("utf-8", "surrogatepass"), 1)) for key in found]

    async def close(self) -> None:
        await self._redis.close()

    async def _next(self, chunks: Iterator[_Chunk]) -> _Chunk:
        """The next chunk. To pack one takes milliseconds: one at a time, and rounds in between."""
        async with self._packing:
            await asyncio.sleep(0)
            return next(chunks)

    async def _write(self, partition: int, calls: Sequence[_Call]) -> None:
        for refusal in await self._functions("write", calls):
            _accept(partition, refusal)

    async def _read(
        self, wanted: Wanted, asked: Sequence[int]
    ) -> tuple[dict[int, list[bytes | None]], dict[int, Meta | None]]:
        """The rows wanted, as they are, and the metas of the partitions `asked`; in one round trip.

        A meta comes after the rows: rows that an owner may use were read before anyone else's claim.
        """
        keys = {p: self._row_keys(p, wanted[p]) for p in wanted if wanted[p]}
        if await self._redis.is_cluster():
            commands = [Command(some[0], ("MGET", *some)) for some in keys.values()]
        elif keys:
            together = [key for some in keys.values() for key in some]
            commands = [Command(together[0], ("MGET", *together))]
        else:
            commands = []
        rows_end = len(commands)
        commands += [Command(key := self._meta_key(p), ("HMGET", key, *_META)) for p in asked]
        if len(commands) == 1:
            replies = [await self._redis.ask(commands[0])]
        else:
            replies = await self._redis.run_all(commands) if commands else []
        rows = itertools.chain.from_iterable(replies[:rows_end])
        values = {p: list(itertools.islice(rows, len(wanted[p]))) for p in wanted}
        return values, {p: _meta(*reply) for p, reply in zip(asked, replies[rows_end:], strict=True)}

    def _meta_key(self, partition: int) -> bytes:
        return f"weir:{{{self._pipeline}:{partition}}}:meta".encode()

    def _row_keys(self, partition: int, keys: Sequence[RowKey]) -> list[bytes]:
        heads = self._heads.get(partition)
        if heads is None:
            heads = self._heads[partition] = _Heads(f"weir:{{{self._pipeline}:{partition}}}:row:")
        return [heads[group] + key.encode("utf-8", "surrogatepass") for group, key in keys]

    async def _function(self, name: str, keys: Sequence[bytes], args: Sequence[Any]) -> Any:
        (found,) = await self._functions(name, [(keys, args)])
        return found

    async def _functions(self, name: str, calls: Sequence[_Call]) -> list[Any]:
        """The answers to calls of one partition, in their order; calls may be made twice."""
        if not self._ready:
            await self._prepare()
        commands = [
            Command(keys[0], ("FCALL", f"weir_{_VERSION}_{name}", len(keys), *keys, *args)) for keys, args in calls
        ]
        try:
            return await self._redis.run_all(commands)
        except FunctionMissing:  # a server without what it had, or a new primary
            await self._prepare()
            return await self._redis.run_all(commands)

    async def _prepare(self) -> None:
        """Loads the functions on every primary, and refuses a server that would drop rows on its own."""
        harmless = ("noeviction",) if self._ttl_ms else ("noeviction", "volatile-")
        for where, memory in (await self._redis.on_primaries("INFO", "memory")).items():
            policy = memory.get("maxmemory_policy", "noeviction")
            if int(memory.get("maxmemory", 0)) and not policy.startswith(harmless):
                raise StoreMisconfigured(
                    f"Redis at {where} drops rows when it is full (maxmemory-policy {policy}): set it to noeviction"
                )
        listed = await self._redis.on_primaries("FUNCTION LIST", "LIBRARYNAME", f"weir_{_VERSION}")
        # Not where it is there: a server that is full takes no library.
        if without := [where for where, libraries in listed.items() if not libraries]:
            await self._redis.on_primaries("FUNCTION LOAD", "REPLACE", _FUNCTIONS, among=without)
        self._ready = True


class _Heads(dict[int, bytes]):
    """What the keys of a partition's rows begin with, by group."""

    def __init__(self, before: str) -> None:
        self._before = before

    def __missing__(self, group: int) -> bytes:
        head = self[group] = f"{self._before}{group:x}:".encode()
        return head


def _accept(partition: int, refusal: bytes) -> None:
    if refusal:
        raise Refused(partition, refusal.decode())


def _found(meta: Meta | None, keys: Sequence[RowKey], values: Sequence[bytes | None]) -> Found:
    return Found(meta, of_incarnation(keys, values, meta) if meta else [None] * len(keys))


def _meta(
    incarnation: bytes | None,
    epoch: bytes | None,
    state_hash: bytes | None,
    vector: bytes | None,
    until: bytes | None = None,
    partitions: bytes | None = None,
    written: bytes | None = None,
    groups: bytes | None = None,
) -> Meta | None:
    if incarnation is None or epoch is None or state_hash is None or vector is None:
        return None
    # A release that knows no `until` or groups leaves those of an incarnation before: they count with their own alone.
    of, _, offsets = (until or b"").partition(b":")
    grouped, _, named = (groups or b"").partition(b":")
    return Meta(
        int(incarnation),
        int(epoch),
        state_hash.decode(),
        _vector(vector),
        _vector(offsets) if of == incarnation and offsets else (),
        int(partitions or 0),
        int(written or 0),
        _groups(named.decode()) if grouped == incarnation and named else {},
    )


def _groups_text(groups: Mapping[int, Group]) -> str:
    return ";".join(f"{n:x}:{hash}:{incarnation}:{_text(since)}" for n, (hash, incarnation, since) in groups.items())


def _groups(text: str) -> dict[int, Group]:
    found = {}
    for number, hash, incarnation, since in (one.split(":") for one in text.split(";")):
        found[int(number, 16)] = Group(hash, int(incarnation), _vector(since.encode()) if since else ())
    return found


def _vector(text: bytes) -> Vector:
    return tuple(map(int, text.split(b",")))


def _text(vector: Vector) -> str:
    return ",".join(map(str, vector))


def _chunks(rows: Iterable[Row]) -> Iterator[_Chunk]:
    """`rows` in chunks of bounded size, the last one, which may be empty, as such."""
    rest, chunk, size, largest = iter(rows), list[Row](), 0, CHUNK_BYTES
    while True:
        full = len(chunk) == CHUNK_ROWS or size >= CHUNK_BYTES
        room = CHUNK_ROWS if full else CHUNK_ROWS - len(chunk)
        if not (some := list(itertools.islice(rest, min(room, SOME_ROWS, max(1, CHUNK_BYTES // (4 * largest)))))):
            break
        if full:
            yield chunk, False
            chunk, size = [], 0
        sizes = [len(key.key) + len(value) for key, value in some]
        chunk, size, largest = chunk + some, size + sum(sizes), max(1, *sizes)
    yield chunk, True
