"""Something between the workers and a server: answers that come late, or never."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

_HOST = "127.0.0.1"
_CHUNK = 65_536
_METADATA, _FIND_COORDINATOR, _END_TXN = 3, 10, 26
_LENGTH = struct.Struct(">i")
_REQUEST = struct.Struct(">hhi")  # api key, version, correlation id
_FLEXIBLE_END_TXN = 3

Asked = dict[int, int]
"""Of a connection: by correlation id, the kind of request to which an answer is due."""


class Proxy:
    """Passes on what comes for `targets` (ports), each on a port of its own. As a context manager: open inside.

    ports: by target, where it listens. delay_s: what every answer takes longer.
    """

    def __init__(self, targets: Sequence[int]) -> None:
        self.ports: dict[int, int] = {}
        self.delay_s = 0.0
        self._targets = list(targets)
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    async def _requests(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, asked: Asked) -> None:
        while data := await reader.read(_CHUNK):
            server.write(data)
            await server.drain()

    async def _answers(self, server: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> None:
        due = 0.0
        while data := await server.read(_CHUNK):
            now = self._loop.time()
            due = max(now + self.delay_s, due + 1e-6)  # never before the answer before it
            self._loop.call_at(due, writer.write, data)

    async def _serve(self, target: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked: Asked = {}
        try:
            back, forth = await asyncio.open_connection(_HOST, target)
        except OSError:
            writer.close()
            return
        ways = [
            asyncio.ensure_future(self._requests(reader, forth, asked)),
            asyncio.ensure_future(self._answers(back, writer, asked)),
        ]
        with contextlib.suppress(asyncio.CancelledError):  # by `_hang_up`: asyncio prints one that comes through
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*ways, return_exceptions=True)
        writer.close()
        forth.close()

    async def _listen(self, target: int) -> None:
        server = await asyncio.start_server(lambda r, w: self._serve(target, r, w), _HOST, 0)
        self.ports[target] = server.sockets[0].getsockname()[1]
        self._servers.append(server)

    async def _hang_up(self) -> None:
        for server in self._servers:
            server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def __enter__(self) -> Self:
        self._thread.start()
        for target in self._targets:
            asyncio.run_coroutine_threadsafe(self._listen(target), self._loop).result(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class KafkaProxy(Proxy):
    """In front of all brokers of a cluster: what they say of their addresses is changed to the proxy's on the way.

    A port takes four bytes, whichever it is, so that no message becomes longer. dropped: answers withheld so far.
    """

    def __init__(self, address: str) -> None:
        super().__init__([int(broker.rsplit(":", 1)[1]) for broker in address.split(",")])
        self.dropped = 0
        self._to_drop = 0

    @property
    def address(self) -> str:
        return ",".join(f"{_HOST}:{port}" for port in self.ports.values())

    def drop(self, count: int) -> None:
        """The brokers' next answers to commits of transactions do not arrive; the commits do."""
        self._to_drop += count

    async def _requests(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, asked: Asked) -> None:
        while frame := await _frame(reader):
            key, version, correlation = _REQUEST.unpack_from(frame)
            if key != _END_TXN or _commits(frame, version):
                asked[correlation] = key
            server.write(_LENGTH.pack(len(frame)) + frame)
            await server.drain()

    async def _answers(self, server: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: Asked) -> None:
        while frame := await _frame(server):
            key = asked.pop(_LENGTH.unpack_from(frame)[0], -1)
            if key == _END_TXN and self._to_drop:
                self._to_drop -= 1
                self.dropped += 1
                continue
            if key in (_METADATA, _FIND_COORDINATOR):
                for target, port in self.ports.items():
                    frame = frame.replace(_address(target), _address(port))
            writer.write(_LENGTH.pack(len(frame)) + frame)
            await writer.drain()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """A message without its length; empty where the connection has ended."""
    try:
        return await reader.readexactly(_LENGTH.unpack(await reader.readexactly(_LENGTH.size))[0])
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


def _commits(frame: bytes, version: int) -> bool:
    """Whether an EndTxn request commits: its last field, with an empty set of tags after it in later versions."""
    return bool(frame[-2 if version >= _FLEXIBLE_END_TXN else -1])


def _address(port: int) -> bytes:
    return _HOST.encode() + _LENGTH.pack(port)
