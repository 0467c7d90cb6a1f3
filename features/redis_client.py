"""A connection to Redis or Valkey: one server, or a cluster, whichever answers at the address.

The server itself says what it is (`HELLO`), so one form of URL does for both. Of a cluster, any node will do, or
several separated by commas, of which one must answer when the process starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import SplitResult, urlsplit, urlunsplit

import hiredis
from redis import exceptions as driver
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from features.redis_errors import FunctionMissing, meaning
from features.store import StoreMisconfigured, StoreUnavailable

T = TypeVar("T")

_PAGE_KEYS, _PAGES = 1000, 20
"""How many keys of a server one request looks at, and how many requests look for some."""
_ROOM_BYTES = 64 * 1024
"""What a connection may hold that is not sent yet without being waited for: as much as asyncio lets it."""
_DRIVER_ERRORS = (driver.RedisError, driver.RedisClusterException, OSError, TimeoutError)


class Command(NamedTuple):
    """A command, and the key that says which node of a cluster it is for."""

    key: bytes
    words: tuple[Any, ...]


class RedisClient:
    """Runs commands, each to its end but for questions: a caller that is cancelled leaves no answer on a connection for
    the next one.

    url: redis://[user:password@]host:port[,host:port…][/db], rediss:// or unix://. where: the same for messages,
    without the password.

    Every method may raise StoreUnavailable (as FunctionMissing where a function is not loaded) or
    StoreMisconfigured. Nothing is retried, but for a cluster's redirections.
    """

    def __init__(self, url: str, *, connect_timeout_s: float, command_timeout_s: float) -> None:
        self._options: dict[str, Any] = {
            "protocol": 2,
            "decode_responses": False,
            "socket_connect_timeout": connect_timeout_s,
            "socket_timeout": command_timeout_s,
            "retry": Retry(NoBackoff(), 0),
        }
        self._driver: Any = None
        self._cluster = False
        self._doubted = False
        """A command failed: before the next one, look again at who is there."""
        self._connecting = asyncio.Lock()
        self._running: set[asyncio.Future[Any]] = set()
        try:
            self._addresses = _addresses(url)
            for address in self._addresses:
                Redis.from_url(address, **self._options)  # raises what the driver cannot read; connects to nothing
            parts = [urlsplit(address) for address in self._addresses]
            self.where = ",".join(f"{p.hostname}:{p.port or 6379}" if p.hostname else p.path for p in parts)
        except ValueError:  # whose message may hold a piece of the password
            raise StoreMisconfigured(
                "the Redis address cannot be read: write redis://[user:password@]host:port[/db], of a cluster also "
                "host:port,host:port, and special characters in the password as %XX"
            ) from None

    async def is_cluster(self) -> bool:
        """Whether a cluster answers there, or did when it was asked last."""
        if self._driver is None:
            await self._answer(self._connected())
        return self._cluster

    async def run(self, command: Command) -> Any:
        """The answer to one command."""
        return await self._answer(self._run(command))

    async def ask(self, command: Command) -> Any:
        """`run` for a question: a caller that is cancelled takes the connection with it, and no task is made for it."""
        if self._cluster or self._driver is None or self._doubted:  # who looks at who is there looks to the end
            return await self.run(command)
        return await self._meant(self._run(command))

    async def run_all(self, commands: Sequence[Command]) -> list[Any]:
        """The answers to several, in one round trip; of a cluster, in one to each node, and in order within it."""
        return await self._answer(self._run_all(commands))

    async def on_primaries(self, *words: Any, among: Collection[str] | None = None) -> dict[str, Any]:
        """The answers by host:port of every server that takes writes, or of those `among` them."""
        return await self._answer(self._on_primaries(words, among))

    async def some_keys(self, pattern: str, most: int) -> list[bytes]:
        """Up to `most` of the keys that match (as KEYS does), of all servers that take writes.

        Bounded: fewer where many others are in the way. Those are found that the servers come upon first.
        """
        return await self._answer(self._some_keys(pattern, most))

    async def close(self) -> None:
        """Waits for what is running, and closes the connections."""
        if self._running:
            await asyncio.wait(self._running)
        if self._driver is not None:
            await self._driver.aclose()

    async def _run(self, command: Command) -> Any:
        redis = await self._connected()
        if not self._cluster:
            return await redis.execute_command(*command.words)
        return await redis.execute_command(*command.words, target_nodes=redis.get_node_from_key(command.key))

    async def _run_all(self, commands: Sequence[Command]) -> list[Any]:
        if len(commands) == 1:
            return [await self._run(commands[0])]
        redis = await self._connected()
        pipe = redis.pipeline() if self._cluster else redis.pipeline(transaction=False)
        for key, words in commands:
            target = {"target_nodes": redis.get_node_from_key(key)} if self._cluster else {}
            pipe.execute_command(*words, **target)
        found: list[Any] = await pipe.execute()
        return found

    async def _on_primaries(self, words: tuple[Any, ...], among: Collection[str] | None) -> dict[str, Any]:
        redis = await self._connected()
        if not self._cluster:
            return {self.where: await redis.execute_command(*words)}
        return {
            node.name: await redis.execute_command(*words, target_nodes=node)
            for node in redis.get_primaries()
            if among is None or node.name in among
        }

    async def _some_keys(self, pattern: str, most: int) -> list[bytes]:
        redis = await self._connected()
        found: dict[bytes, None] = {}
        for node in redis.get_primaries() if self._cluster else [None]:
            cursor = 0
            for _ in range(_PAGES):
                target = {} if node is None else {"target_nodes": node}
                where, keys = await redis.scan(cursor, match=pattern, count=_PAGE_KEYS, **target)
                found |= dict.fromkeys(keys)
                cursor = where if node is None else where[node.name]
                if len(found) >= most:
                    return list(found)[:most]
                if cursor == 0:
                    break
        return list(found)

    async def _connected(self) -> Any:
        """The driver's client, which knows who is there. Asked again after an error: there may be a new primary."""
        if self._driver is None or self._doubted:
            async with self._connecting:
                if self._driver is None:
                    await self._find()
                elif self._doubted and self._cluster:
                    await self._driver.nodes_manager.initialize()
                elif self._doubted and await _mode(self._driver) != "standalone":
                    await self._driver.aclose()
                    await self._find()
                self._doubted = False
        if self._cluster:
            await self._driver.initialize()  # does nothing but the first time, and where the driver gave it up
        return self._driver

    async def _find(self) -> None:
        """Asks the addresses in turn what is there. Raises the last one's error where none answers."""
        error: Exception | None = None
        for address in self._addresses:
            single = Redis.from_url(address, **self._options)
            pool = single.connection_pool
            pool.connection_class = _lean(pool.connection_class)
            try:
                mode = await _mode(single)
            except _DRIVER_ERRORS as failed:
                await single.aclose()
                error = failed
                continue
            if mode == "standalone" and len(self._addresses) == 1:
                self._driver, self._cluster = single, False
                return
            await single.aclose()
            if mode != "cluster":
                mend = "give its address alone" if mode == "standalone" else "give the address of the server itself"
                raise StoreMisconfigured(f"Redis at {self.where} is no cluster but a {mode} server: {mend}")
            self._driver, self._cluster = self._of_cluster(address), True
            return
        assert error is not None
        raise error

    def _of_cluster(self, address: str) -> RedisCluster:
        parts = urlsplit(address)
        if parts.path not in ("", "/", "/0") or parts.query:
            raise StoreMisconfigured(
                f"Redis at {self.where} is a cluster, which has one database: end WEIR_REDIS with the port"
            )
        others = [urlsplit(other) for other in self._addresses if other != address]
        nodes = [ClusterNode(str(other.hostname), other.port or 6379) for other in others]
        found: RedisCluster = RedisCluster.from_url(
            address, startup_nodes=nodes, require_full_coverage=False, **self._options
        )
        found.connection_kwargs["connection_class"] = _lean(found.connection_kwargs["connection_class"])
        return found

    async def _answer(self, answer: Awaitable[T]) -> T:
        task = asyncio.ensure_future(answer)
        self._running.add(task)
        task.add_done_callback(self._done)
        return await self._meant(asyncio.shield(task))

    async def _meant(self, answer: Awaitable[T]) -> T:
        """The answer, or what the driver's error means."""
        try:
            return await answer
        except _DRIVER_ERRORS as error:
            meant = meaning(error, self.where)
            if meant is None:
                raise
            if isinstance(meant, StoreUnavailable) and not isinstance(meant, FunctionMissing):
                self._doubted = True
            raise meant from error

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # seen, also where nobody waits any more


class _Lean:
    """Of a connection, what redis-py does the long way."""

    _writer: asyncio.StreamWriter
    is_connected: bool
    health_check_interval: float

    def pack_command(self, *args: Any) -> list[bytes]:
        """In C, as redis-py does for its blocking connections alone. In Python it takes 1.2 µs an argument, and a
        checkpoint has thousands.
        """
        return [hiredis.pack_command((*args[0].split(), *args[1:]))]

    async def send_packed_command(self, command: Sequence[bytes], check_health: bool = True) -> None:
        """Without a task that waits for room in the send buffer, where there is room."""
        text = b"".join(command)
        if self._takes(len(text)):
            self._writer.write(text)
        else:
            await super().send_packed_command([text], check_health)  # type: ignore[misc]

    def _takes(self, size: int) -> bool:
        """Whether so many bytes can be written without more ado; who finds a connection that is gone is redis-py."""
        return (
            self.is_connected
            and not self.health_check_interval
            and not self._writer.is_closing()
            and self._writer.transport.get_write_buffer_size() + size <= _ROOM_BYTES
        )


def _lean(kind: Any) -> Any:
    """The same kind of connection, but lean."""
    return type(kind.__name__, (_Lean, kind), {})


def _addresses(url: str) -> list[str]:
    """One URL for each address of `url`, with the same credentials and options."""
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    found = [parts._replace(netloc=f"{credentials}{at}{host}") for host in hosts.split(",")]
    if len(found) > 1 and not all(map(_names_a_host, found)):
        raise ValueError("an address without a host")
    return [urlunsplit(one) for one in found]


def _names_a_host(parts: SplitResult) -> bool:
    return bool(parts.hostname)


async def _mode(redis: Any) -> str:
    """standalone, cluster or sentinel. HELLO is allowed to every user, and changes nothing without arguments."""
    found = await redis.execute_command("HELLO")
    if not isinstance(found, dict):
        found = dict(zip(found[::2], found[1::2], strict=False))
    return str({_text(name): _text(value) for name, value in found.items()}.get("mode", "standalone"))


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
