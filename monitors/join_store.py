"""What the label join holds, in Redis: one segment for each commit, and the state of the open blocks beside it.

    weir:{<pipeline>:monitor}:segment:<incarnation>:<number>   predictions and labels that came with that commit
    weir:{<pipeline>:monitor}:head:<incarnation>               hash: the state as of a commit, by its number
    weir:{<pipeline>:monitor}:live:<incarnation>               sorted set: the numbers of the segments that count

A segment is written before its commit, and what was committed names its number: segments above it are of a commit that
never came, and read as absent. Rows that the archive has by now are left out by whoever loads. All keys expire.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import redis
from redis import exceptions as driver
from redis.backoff import NoBackoff
from redis.retry import Retry

from monitors.join import Label

_LEVEL = 1
_AT_ONCE = 200
"""Segments read in one command."""
_TIMEOUT_S = 5.0


class JoinStoreAway(Exception):
    """Redis does not answer, or refuses; the message says which and why."""


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

    url: redis://[user:password@]host:port[/db], rediss:// or unix://. ttl_ms: keys expire so long (wall clock) after
    they were last written: longer than labels may take. Every method but `close` raises JoinStoreAway.
    """

    def __init__(self, url: str, pipeline: str, ttl_ms: int) -> None:
        parts = urlsplit(url)
        self._where = f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path
        self._root = f"weir:{{{pipeline}:monitor}}"
        self._ttl_ms = ttl_ms
        self._redis: Any = redis.Redis.from_url(
            url,
            protocol=2,
            socket_connect_timeout=_TIMEOUT_S,
            socket_timeout=_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )

    def write(self, incarnation: str, number: int, state: bytes, segment: Segment) -> None:
        """Keeps what the commit `number` will cover, before it is made; the state of the commit before it stays."""
        head = self._key("head", incarnation)
        pipe = self._redis.pipeline(transaction=True)
        if segment:
            key = self._key("segment", incarnation, number)
            pipe.set(key, zlib.compress(_encode(segment), _LEVEL), px=self._ttl_ms)
            pipe.zadd(self._key("live", incarnation), {str(number): number})
            pipe.pexpire(self._key("live", incarnation), self._ttl_ms)
        pipe.hset(head, str(number), zlib.compress(state, _LEVEL))
        pipe.hdel(head, str(number - 2))
        pipe.pexpire(head, self._ttl_ms)
        self._answer(pipe.execute)

    def load(self, incarnation: str, number: int) -> Loaded | None:
        """What there is as of the commit `number`; None where it is not there, or not whole.

        What was written for a later commit is removed.
        """
        live = self._key("live", incarnation)
        pipe = self._redis.pipeline(transaction=True)
        pipe.hget(self._key("head", incarnation), str(number))
        pipe.zrangebyscore(live, "-inf", number)
        pipe.zrangebyscore(live, number + 1, "+inf")
        state, numbers, later = self._answer(pipe.execute)
        if state is None:
            return None
        self.drop(incarnation, map(int, later))
        segments = self._segments(incarnation, [int(n) for n in numbers])
        return None if segments is None else Loaded(zlib.decompress(state), segments)

    def drop(self, incarnation: str, numbers: Iterable[int]) -> None:
        """Forgets segments of which nothing is needed any more."""
        gone = list(numbers)
        if gone:
            pipe = self._redis.pipeline(transaction=True)
            pipe.zrem(self._key("live", incarnation), *map(str, gone))
            pipe.delete(*(self._key("segment", incarnation, number) for number in gone))
            self._answer(pipe.execute)

    def close(self) -> None:
        self._redis.close()

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
        except (driver.RedisError, OSError, TimeoutError) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise JoinStoreAway(f"Redis at {self._where}: {said}") from error
