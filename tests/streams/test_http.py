"""The HTTP endpoint of a process, asked over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import pytest

from streams.errors import UsageError
from streams.http import HttpServer


class State:
    """What the worker would say."""

    alive: bool = True
    waiting: str = ""


@asynccontextmanager
async def serving(state: State, port: int = 0) -> AsyncIterator[HttpServer]:
    server = HttpServer(
        "127.0.0.1",
        port,
        live=lambda: {"live": state.alive, "stalled_s": 0.5},
        ready=lambda: (not state.waiting, {"broker": state.waiting} if state.waiting else {}),
        metrics=lambda: (b"weir_events_total 3\n", "text/plain; version=0.0.4"),
        status=lambda: {"pipeline": "fraud", "partitions": [0, 1]},
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def get(server: HttpServer, path: str) -> tuple[int, str, bytes]:
    def ask() -> tuple[int, str, bytes]:
        try:
            with urllib.request.urlopen(server.url + path, timeout=5) as answer:
                return answer.status, answer.headers["content-type"], answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["content-type"], error.read()

    return await asyncio.to_thread(ask)


async def get_json(server: HttpServer, path: str) -> tuple[int, Any]:
    status, content_type, body = await get(server, path)
    assert content_type == "application/json"
    return status, json.loads(body)


async def test_a_ready_process_answers_on_every_path() -> None:
    async with serving(State()) as server:
        assert server.port > 0
        assert await get_json(server, "/health/live") == (200, {"live": True, "stalled_s": 0.5})
        assert await get_json(server, "/health/ready") == (200, {"ready": True, "reasons": {}})
        assert await get_json(server, "/status") == (
            200,
            {"weir": version("weir"), "pipeline": "fraud", "partitions": [0, 1]},
        )
        assert await get(server, "/metrics") == (200, "text/plain; version=0.0.4", b"weir_events_total 3\n")
        assert (await get(server, "/other"))[0] == 404


async def test_a_process_that_waits_is_not_ready_and_says_why() -> None:
    state = State()
    async with serving(state) as server:
        state.waiting = "no Kafka broker answers"
        expected = {"ready": False, "reasons": {"broker": "no Kafka broker answers"}}
        assert await get_json(server, "/health/ready") == (503, expected)
        assert (await get_json(server, "/health/live"))[0] == 200


async def test_a_process_that_stalls_is_not_live() -> None:
    state = State()
    async with serving(state) as server:
        state.alive = False
        assert (await get_json(server, "/health/live"))[0] == 503


async def test_a_port_that_is_taken_is_wrong_use_and_says_the_mend() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"^cannot listen on 127\.0\.0\.1:{port}: .*; set WEIR_HTTP to another"):
            async with serving(State(), port):
                pass


async def test_a_stopped_server_frees_its_port_and_may_be_stopped_twice() -> None:
    async with serving(State()) as server:
        port = server.port
        await server.stop()
    async with serving(State(), port) as again:
        assert again.port == port


async def test_stopping_does_not_wait_for_a_connection_that_stays_open() -> None:
    async with serving(State()) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.wait_for(server.stop(), 5)
        writer.close()
