"""What the label join holds, in Redis: one segment for each commit, and the state of the open blocks beside it.

    weir:{<pipeline>:monitor}:segment:<incarnation>:<number>   predictions and labels that came with that commit
    weir:{<pipeline>:monitor}:head:<incarnation>               hash: the state as of a commit, by its number; `owner`
    weir:{<pipeline>:monitor}:live:<incarnation>               sorted set: the numbers of the segments that count

A segment is written before its commit, and what was committed names its number: segments above it are of a commit that
never came, and read as absent. Rows that the archive has by now are left out by whoever loads. All keys expire.

A write follows the one before it, by the same owner, or it is refused: a Redis that lost its data under a monitor would
hold what came after alone, and a monitor whose place another one has taken would write over what that one wrote.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import msgspec
import redis
from redis import exceptions as driver
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from monitors.join import Label

_LEVEL = 1
_AT_ONCE = 200
"""Segments read in one command."""
_TIMEOUT_S = 5.0
_OWNER = "owner"
_ERRORS = (driver.RedisError, OSError, TimeoutError)


class JoinStoreAway(Exception):
    """Redis does not answer, or refuses; the message says which and why."""


class JoinStateLost(Exception):
    """Redis does not hold what the commit before brought: it is to be made anew."""


class JoinStateTaken(Exception):
    """Another monitor goes on from here."""


class Segment(msgspec.Struct, array_like=True, frozen=True):
    """predictions: the records' values as they were read; labels: those that were the first of their id."""

    predictions: tuple[bytes, ...] = ()
    labels: tuple[Label, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.predictions or self.labels)


class Loaded(NamedTuple):
    """state: as it was written; segments: (number, segment) in their order."""

    state: bytes
    segments: list[tuple[int, Segment]]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Segment).decode


class JoinStore:
    """The join's state of one pipeline. Not for several threads.

    url: redis://[user:password@]host:port[/db], rediss:// or unix://; of a cluster any node, or several separated by
    commas. Its keys share a hash tag, so that one node of a cluster has them all. ttl_ms: keys expire so long (wall
    clock) after they were last written: longer than labels may take. Every method but `close` raises JoinStoreAway.
    Whoever loaded an incarnation last, or began it, owns it.
    """

    def __init__(self, url: str, pipeline: str, ttl_ms: int) -> None:
        self._addresses = _addresses(url)
        parts = [urlsplit(address) for address in self._addresses]
        self._where = ",".join(f"{p.hostname}:{p.port or 6379}" if p.hostname else p.path for p in parts)
        self._root = f"weir:{{{pipeline}:monitor}}"
        self._ttl_ms = ttl_ms
        self._owner = os.urandom(8).hex().encode()
        self._client: Any = None
        self._of_cluster = self._doubted = False

    def write(self, incarnation: str, number: int, state: bytes, segment: Segment) -> None:
        """Keeps what the commit `number` will cover, before it is made; the state of the commit before it stays.

        number: from 1 on. Raises JoinStateLost where that of the commit before is not there, and JoinStateTaken.
        """
        head, live = self._key("head", incarnation), self._key("live", incarnation)
        with self._redis.pipeline(transaction=True) as pipe:
            self._answer(lambda: pipe.watch(head))
            owner, before = self._answer(lambda: pipe.hmget(head, _OWNER, str(number - 1)))
            if owner is not None and owner != self._owner:
                raise JoinStateTaken(f"another monitor has gone on from commit {number - 1}")
            if before is None and number > 1:
                raise JoinStateLost(f"Redis at {self._where} has lost the state of commit {number - 1}")
            pipe.multi()
            if segment:
                key = self._key("segment", incarnation, number)
                pipe.set(key, zlib.compress(_encode(segment), _LEVEL), px=self._ttl_ms)
                pipe.zadd(live, {str(number): number})
            pipe.hset(head, mapping={str(number): zlib.compress(state, _LEVEL), _OWNER: self._owner})
            pipe.hdel(head, str(number - 2))
            pipe.pexpire(head, self._ttl_ms)
            pipe.pexpire(live, self._ttl_ms)
            self._answer(pipe.execute)

    def load(self, incarnation: str, number: int) -> Loaded | None:
        """What there is as of the commit `number`; None where it is not there, or not whole, or cannot be read.

        What was written for a later commit is removed, and nobody else writes any more.
        """
        head, live = self._key("head", incarnation), self._key("live", incarnation)
        if not self._answer(lambda: self._redis.hexists(head, str(number))):
            return None
        self._answer(lambda: self._redis.hset(head, _OWNER, self._owner))
        pipe = self._redis.pipeline(transaction=True)
        pipe.hget(head, str(number))
        pipe.zrangebyscore(live, "-inf", number)
        pipe.zrangebyscore(live, number + 1, "+inf")
        state, numbers, later = self._answer(pipe.execute)
        if state is None:
            return None
        self.drop(incarnation, map(int, later))
        try:
            segments = self._segments(incarnation, [int(n) for n in numbers])
            return None if segments is None else Loaded(zlib.decompress(state), segments)
        except (zlib.error, msgspec.MsgspecError):
            return None

    def drop(self, incarnation: str, numbers: Iterable[int]) -> None:
        """Forgets segments of which nothing is needed any more."""
        gone = list(numbers)
        if gone:
            pipe = self._redis.pipeline(transaction=True)
            pipe.zrem(self._key("live", incarnation), *map(str, gone))
            pipe.delete(*(self._key("segment", incarnation, number) for number in gone))
            self._answer(pipe.execute)

    def close(self) -> None:
        self._forget()

    @property
    def _redis(self) -> Any:
        """A client of the server, or of the cluster's node that has the keys, which after an error may be another."""
        if self._doubted:
            self._forget()
        if self._client is None:
            self._client = self._answer(self._found)
        return self._client

    def _found(self) -> Any:
        error: Exception | None = None
        for address in self._addresses:
            client = _client(address)
            try:
                self._of_cluster = _in_cluster(client)
                if not self._of_cluster:
                    return client
                node = _node(client, key_slot(self._key("head", "").encode()), address)
            except _ERRORS as failed:
                error = failed
            else:
                client.close()
                return _client(node)
            client.close()
        assert error is not None
        raise error

    def _forget(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client, self._doubted = None, False

    def _segments(self, incarnation: str, numbers: Sequence[int]) -> list[tuple[int, Segment]] | None:
        found = []
        for start in range(0, len(numbers), _AT_ONCE):
            chunk = numbers[start : start + _AT_ONCE]
            keys = [self._key("segment", incarnation, number) for number in chunk]
            for number, packed in zip(chunk, self._answer(lambda keys=keys: self._redis.mget(keys)), strict=True):
                if packed is None:
                    return None
                found.append((number, _decode(zlib.decompress(packed))))
        return found

    def _key(self, kind: str, incarnation: str, number: int | None = None) -> str:
        end = "" if number is None else f":{number}"
        return f"{self._root}:{kind}:{incarnation}{end}"

    def _answer(self, call: Any) -> Any:
        try:
            return call()
        except _ERRORS as error:
            self._doubted = self._of_cluster
            said = " ".join(str(error).split()) or type(error).__name__
            raise JoinStoreAway(f"Redis at {self._where}: {said}") from error


def _addresses(url: str) -> list[str]:
    """One URL for each address of `url`, with the same credentials."""
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    return [urlunsplit(parts._replace(netloc=f"{credentials}{at}{host}")) for host in hosts.split(",")]


def _client(url: str) -> Any:
    return redis.Redis.from_url(
        url,
        protocol=2,
        socket_connect_timeout=_TIMEOUT_S,
        socket_timeout=_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


def _in_cluster(client: Any) -> bool:
    """HELLO says so, is allowed to every user, and changes nothing without arguments."""
    found = client.execute_command("HELLO")
    pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=False)
    return any(name in (b"mode", "mode") and value in (b"cluster", "cluster") for name, value in pairs)


def _node(client: Any, slot: int, address: str) -> str:
    """The URL of the primary that has `slot`, as the node behind `address` says."""
    parts = urlsplit(address)
    credentials, at, _ = parts.netloc.rpartition("@")
    for first, last, (host, port, *_), *_ in client.execute_command("CLUSTER", "SLOTS"):
        if first <= slot <= last:
            name = host.decode() or parts.hostname or ""
            name = f"[{name}]" if ":" in name else name
            return urlunsplit(parts._replace(netloc=f"{credentials}{at}{name}:{port}"))
    raise driver.ClusterDownError(f"no node has slot {slot}")
