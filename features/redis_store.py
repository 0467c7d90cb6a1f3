"""The store on Redis (7.0 or later) or Valkey.

A partition's keys share a hash tag, so that one slot of a cluster holds them:

    weir:{<pipeline>:<partition>}:meta                 hash: incarnation, epoch, state_hash, vector, attempt
    weir:{<pipeline>:<partition>}:row:<entity>:<key>   a packed row; <entity> is the kind's index in the spec
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, TypeVar
from urllib.parse import urlsplit

import redis.asyncio
from redis import exceptions as driver
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from features.redis_errors import FunctionMissing, meaning
from features.store import (
    Found,
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

T = TypeVar("T")

CHUNK_BYTES = 256 * 1024
CHUNK_ROWS = 1000
"""A chunk keeps the server busy for 1 to 3 ms."""

_LIBRARY = resources.files(__package__).joinpath("checkpoint.lua").read_text()
_VERSION = hashlib.sha256(_LIBRARY.encode()).hexdigest()[:12]
_FUNCTIONS = _LIBRARY.replace("@VERSION@", _VERSION)

_DRIVER_ERRORS = (driver.RedisError, OSError, TimeoutError)


class RedisStore:
    """See `features.store.Store`.

    url: redis://[user:password@]host:port[/db], rediss:// or unix://.
    ttl_ms: rows expire this long (wall clock) after their last write; None = never. Not less than the spec's
        `longest_ms` plus the topics' retention: a worker that lags must still find the rows that count.
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
        self._running: set[asyncio.Future[Any]] = set()
        self._ready = False
        try:
            parts = urlsplit(url)
            self._where = f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path
            self._redis = redis.asyncio.Redis.from_url(
                url,
                protocol=2,
                decode_responses=False,
                socket_connect_timeout=connect_timeout_s,
                socket_timeout=command_timeout_s,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError:  # whose message may hold a piece of the password
            raise StoreMisconfigured(
                "the Redis address cannot be read: write redis://[user:password@]host:port[/db], "
                "special characters in the password as %XX"
            ) from None

    async def claim(self, partition: int) -> tuple[int, Meta | None]:
        reply = await self._function("claim", [self._meta_key(partition)], [])
        epoch = int(reply[0])
        return epoch, _meta(reply[1], epoch, reply[2], reply[3])

    async def begin(self, partition: int, meta: Meta) -> None:
        args = [meta.epoch, meta.incarnation, meta.state_hash, _text(meta.vector)]
        _accept(partition, await self._function("begin", [self._meta_key(partition)], args))
        self._unanswered.pop(partition, None)

    async def load(self, wanted: Wanted, metas: Mapping[int, Meta]) -> dict[int, list[bytes | None]]:
        found = await self.read(wanted)
        for partition, (meta, _) in found.items():
            check_load(partition, metas[partition], meta)
        return {partition: rows for partition, (_, rows) in found.items()}

    async def read(self, wanted: Wanted) -> dict[int, Found]:
        pipe = self._redis.pipeline(transaction=False)
        for partition, keys in wanted.items():
            # The meta comes after the rows: rows that an owner may use were read before anyone else's claim.
            if keys:
                pipe.mget(self._row_keys(partition, keys))
            pipe.hmget(self._meta_key(partition), ["incarnation", "epoch", "state_hash", "vector"])
        replies = iter(await self._answer(pipe.execute()))
        answer: dict[int, Found] = {}
        for partition, keys in wanted.items():
            values: list[bytes | None] = next(replies) if keys else []
            meta = _meta(*next(replies))
            if meta is None:
                values = [None] * len(keys)
            else:
                values = of_incarnation(values, meta.incarnation)
            answer[partition] = Found(meta, values)
        return answer

    async def write(self, partition: int, follows: Meta, vector: Vector, rows: Sequence[Row]) -> Meta:
        meta_key = self._meta_key(partition)
        unanswered = self._unanswered.get(partition, follows.vector)
        before = [follows.incarnation, follows.epoch, _text(follows.vector), _text(unanswered), _text(vector)]
        before.append(next(self._attempts))
        self._unanswered[partition] = vector
        chunks = list(_chunks(rows))
        for number, chunk in enumerate(chunks, start=1):
            row_keys = self._row_keys(partition, [key for key, _ in chunk])
            last = int(number == len(chunks))
            args = [*before, last, self._ttl_ms or 0, *[value for _, value in chunk]]
            _accept(partition, await self._function("write", [meta_key, *row_keys], args))
        del self._unanswered[partition]
        return Meta(follows.incarnation, follows.epoch, follows.state_hash, vector)

    async def close(self) -> None:
        if self._running:
            await asyncio.wait(self._running)
        await self._redis.aclose()

    def _meta_key(self, partition: int) -> bytes:
        return f"weir:{{{self._pipeline}:{partition}}}:meta".encode()

    def _row_keys(self, partition: int, keys: Sequence[RowKey]) -> list[bytes]:
        head = f"weir:{{{self._pipeline}:{partition}}}:row:"
        return [f"{head}{entity}:{key}".encode("utf-8", "surrogatepass") for entity, key in keys]

    async def _function(self, name: str, keys: Sequence[bytes], args: Sequence[Any]) -> Any:
        if not self._ready:
            await self._prepare()
        call: Any = self._redis.fcall
        function = f"weir_{_VERSION}_{name}"
        try:
            return await self._answer(call(function, len(keys), *keys, *args))
        except FunctionMissing:  # the server was started anew, without what it had
            await self._prepare()
            return await self._answer(call(function, len(keys), *keys, *args))

    async def _prepare(self) -> None:
        """Loads the functions, and refuses a server that would drop rows on its own."""
        memory: dict[str, Any] = await self._answer(self._redis.info("memory"))
        policy = memory.get("maxmemory_policy", "noeviction")
        harmless = ("noeviction",) if self._ttl_ms else ("noeviction", "volatile-")
        if int(memory.get("maxmemory", 0)) and not policy.startswith(harmless):
            raise StoreMisconfigured(
                f"Redis at {self._where} drops rows when it is full (maxmemory-policy {policy}): "
                "set it to noeviction"
            )
        if not await self._answer(self._redis.function_list(library=f"weir_{_VERSION}")):
            # Not where it is there: a server that is full takes no library.
            await self._answer(self._redis.function_load(_FUNCTIONS, replace=True))
        self._ready = True

    async def _answer(self, command: Awaitable[T]) -> T:
        """The command's answer, or its error as one of the contract's.

        It runs in a task of its own, to its end: a caller that is cancelled must not leave its answer on a
        connection for the next one. A command that ran out of time has its connection closed by the driver.
        """
        task = asyncio.ensure_future(command)
        self._running.add(task)
        task.add_done_callback(self._done)
        try:
            return await asyncio.shield(task)
        except _DRIVER_ERRORS as error:
            meant = meaning(error, self._where)
            if meant is None:
                raise
            raise meant from error

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # seen, also where nobody waits any more


def _accept(partition: int, refusal: bytes) -> None:
    if refusal:
        raise Refused(partition, refusal.decode())


def _meta(
    incarnation: bytes | None, epoch: bytes | int | None, state_hash: bytes | None, vector: bytes | None
) -> Meta | None:
    if incarnation is None or epoch is None or state_hash is None or vector is None:
        return None
    return Meta(int(incarnation), int(epoch), state_hash.decode(), tuple(map(int, vector.split(b","))))


def _text(vector: Vector) -> str:
    return ",".join(map(str, vector))


def _chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """`rows` in pieces of bounded size; one empty piece where there are none, which moves the vector."""
    start = size = 0
    for stop, (key, value) in enumerate(rows):
        if stop > start and (stop - start == CHUNK_ROWS or size >= CHUNK_BYTES):
            yield rows[start:stop]
            start, size = stop, 0
        size += len(key.key) + len(value)
    yield rows[start:]
