"""`weir run`: the roles of a pipeline as processes of this machine, started again when one ends by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from types import FrameType

import structlog

from streams.settings import PREFIX, Settings
from streams.watch import Watch

log = structlog.get_logger(__name__)

WRONG_USE = 2
_STOP_S = 30.0
_BACKOFF_S = (1.0, 30.0)
_SETTLED_S = 60.0


class Role:
    """One process, `weir NAME PIPELINE`, and when to start it again. Options stand behind the name."""

    def __init__(self, name: str, pipeline: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self._pipeline, self._environment = pipeline, environment
        self._process: subprocess.Popen[bytes] | None = None
        self._started_s = self._next_s = 0.0
        self._pause_s = _BACKOFF_S[0]

    def tend(self, now_s: float) -> int | None:
        """Starts the process when it is due. Returns an exit code that starting again cannot mend."""
        if self._process is None:
            if now_s >= self._next_s:
                self._start(now_s)
            return None
        code = self._process.poll()
        if code is None:
            return None
        self._forget()
        if code in (0, WRONG_USE):
            return code
        if now_s - self._started_s > _SETTLED_S:
            self._pause_s = _BACKOFF_S[0]
        self._next_s = now_s + self._pause_s
        log.warning("process ended, starting it again", role=self.name, code=code, in_s=self._pause_s)
        self._pause_s = min(2 * self._pause_s, _BACKOFF_S[1])
        return None

    def ask_to_stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def wait(self, timeout_s: float) -> None:
        """Waits for the end, which comes at the latest after `timeout_s`."""
        if self._process is None:
            return
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            log.warning("process does not stop, killing it", role=self.name)
            self._process.kill()
            self._process.wait()
        self._forget()

    def _forget(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None

    def _start(self, now_s: float) -> None:
        self._started_s = now_s
        log.info("process starts", role=self.name)
        command, *options = self.name.split()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "streams.cli", command, self._pipeline, *options, "--with-parent"],
            stdin=subprocess.PIPE,  # it ends with this process, however that ends
            env={**os.environ, **self._environment},
            start_new_session=True,  # Ctrl-C is for this process, which stops the others in order
        )


def run_all(pipeline: str, settings: Settings, names: Sequence[str] = ("worker", "monitor")) -> int:
    """Runs the roles `names` of `pipeline` until SIGINT or SIGTERM; returns the exit code.

    The HTTP endpoint of each is on the port after that of the one before; the first has the setting's.
    """
    host, port = settings.http_address
    roles = [
        Role(name, pipeline, {PREFIX + "HTTP": f"{host}:{port + place if port else 0}"} if place else {})
        for place, name in enumerate(names)
    ]
    watch = Watch(f"http://{settings.http}") if port else None
    stop = threading.Event()
    code = 0

    def on_signal(number: int, _: FrameType | None) -> None:
        nonlocal code
        code = 130 if number == signal.SIGINT else 0
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while not stop.is_set():
            ended = [found for role in roles if (found := role.tend(time.monotonic())) is not None]
            if ended:
                code = max(ended)
                break
            if watch is not None:
                watch.look(time.monotonic())
            stop.wait(0.2)
    finally:
        for role in roles:
            role.ask_to_stop()
        for role in roles:
            role.wait(_STOP_S)
        for number, handler in before.items():
            signal.signal(number, handler)
    return code


def end_with_parent() -> None:
    """Ends this process by SIGTERM when its standard input closes, as it does when its parent is gone."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
