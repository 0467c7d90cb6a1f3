"""Health, metrics and status of a process over HTTP, in the running event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from streams.errors import UsageError, WeirError

_STOP_S = 2.0


class HttpServer:
    """GET /health/live, /health/ready (503 with its reasons while not ready), /metrics, /status.

    live: → facts about progress; {"live": False, …} is a 503: the process should be restarted.
    ready: → (ready?, reasons by name).
    metrics: → (body, content type).
    status: → whatever a person asks of a running worker.
    routes: what the process serves beside these.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        live: Callable[[], dict[str, Any]],
        ready: Callable[[], tuple[bool, dict[str, Any]]],
        metrics: Callable[[], tuple[bytes, str]],
        status: Callable[[], dict[str, Any]],
        routes: Sequence[Route] = (),
    ) -> None:
        self._host, self._port = host, port
        self._app = make_app(live=live, ready=ready, metrics=metrics, status=status, routes=routes)
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self._socket: socket.socket | None = None

    @property
    def port(self) -> int:
        """The port listened on; with 0 asked for, the one that was free."""
        return int(self._socket.getsockname()[1]) if self._socket else self._port

    @property
    def url(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    async def start(self) -> None:
        """Listens. UsageError when the port is taken or the address is not this machine's."""
        self._socket = _listen(self._host, self._port)
        config = uvicorn.Config(
            self._app,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
            server_header=False,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]), name="weir-http")
        while not self._server.started:
            if self._task.done():
                self._task.result()
                raise WeirError(f"the HTTP server on {self.url} did not start")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Lets requests in flight end, for at most two seconds; then closes."""
        if self._server is None or self._task is None or self._socket is None:
            return
        self._server.should_exit = True
        done, _ = await asyncio.wait([self._task], timeout=_STOP_S)
        if not done:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_STOP_S)
        self._socket.close()
        self._server = self._task = self._socket = None


def make_app(
    *,
    live: Callable[[], dict[str, Any]],
    ready: Callable[[], tuple[bool, dict[str, Any]]],
    metrics: Callable[[], tuple[bytes, str]],
    status: Callable[[], dict[str, Any]],
    routes: Sequence[Route] = (),
) -> Starlette:
    """The ASGI application."""

    async def get_live(_: Request) -> Response:
        found = {"live": True, **live()}
        return JSONResponse(found, 200 if found["live"] else 503)

    async def get_ready(_: Request) -> Response:
        is_ready, reasons = ready()
        return JSONResponse({"ready": is_ready, "reasons": reasons}, 200 if is_ready else 503)

    async def get_metrics(_: Request) -> Response:
        body, content_type = metrics()
        return Response(body, headers={"content-type": content_type})

    async def get_status(_: Request) -> Response:
        return JSONResponse({"weir": version("weir"), **status()})

    return Starlette(
        routes=[
            Route("/health/live", get_live),
            Route("/health/ready", get_ready),
            Route("/metrics", get_metrics),
            Route("/status", get_status),
            *routes,
        ]
    )


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has its own."""

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        mend = "set WEIR_HTTP to another host:port (port 0 = any free one)"
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror or error}; {mend}") from error
    listener.setblocking(False)
    return listener
