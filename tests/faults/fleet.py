"""Workers as processes, each with its own data directory, started again when they end by themselves."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.integration.worker import Servers, Worker

_RESTART_S = 0.3


class Member(Worker):
    """A worker of a fleet. exits: the codes with which it ended unasked; starts: how often it was started."""

    def __init__(
        self, number: int, pipeline: Path, servers: Servers, unprotected: str, settings: dict[str, str]
    ) -> None:
        super().__init__(pipeline, servers, **settings)
        if unprotected:
            self._command = [sys.executable, "-m", "tests.faults.unprotected", unprotected, "worker", str(pipeline)]
        self.number, self.data_dir = number, servers.data_dir
        self.exits: list[int] = []
        self.starts = 0
        self.wanted = False
        self.frozen = False

    def play(self, role: str) -> None:
        """What it is from its next start on, if not a worker."""
        self._command[self._command.index("worker")] = role

    def tend(self) -> None:
        """Starts it again where it has ended."""
        if self.wanted and not self.running:
            if self._process is not None:
                self.exits.append(self._process.returncode)
                time.sleep(_RESTART_S)
            self.start()
            self.starts += 1

    def forget(self) -> None:
        """It has ended as it was asked to."""
        self._process = None

    def freeze(self) -> None:
        self.frozen = True
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)
        self.frozen = False

    def status(self) -> dict[str, Any]:
        return {} if self.frozen or not self.running else super().status()

    def says(self, *words: str, since: int = 0) -> int:
        """How many lines of its log from byte `since` on hold one of `words`."""
        lines = self.output[since:].splitlines()
        return sum(any(word in line for word in words) for line in lines)


class Fleet:
    """`count` workers of a pipeline under supervision."""

    def __init__(
        self, pipeline: Path, servers: Sequence[Servers], unprotected: str = "", settings: dict[str, str] | None = None
    ) -> None:
        self.members = [Member(i, pipeline, s, unprotected, settings or {}) for i, s in enumerate(servers)]
        self._halt = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._tend, name="fleet", daemon=True)

    def __getitem__(self, number: int) -> Member:
        return self.members[number]

    @property
    def exits(self) -> list[int]:
        """Exit codes of those that ended unasked, but not by kill -9."""
        return [code for member in self.members for code in member.exits if code != -signal.SIGKILL]

    def begin(self, *numbers: int) -> None:
        """Starts the members of these numbers (default: all)."""
        for member in self.members:
            if not numbers or member.number in numbers:
                member.wanted = True
        if not self._thread.is_alive():
            self._thread.start()

    def kill(self, number: int) -> None:
        """kill -9; it is started again."""
        with self._lock:
            self[number].kill()

    def stop(self, number: int, within_s: float = 40.0) -> int:
        """SIGTERM, and no new start; returns the exit code."""
        member = self[number]
        with self._lock:
            member.wanted = False
            if not member.running:
                return 0
        code = member.stop(within_s)
        member.forget()
        return code

    def end(self) -> None:
        """All of them end now."""
        self._halt.set()
        if self._thread.is_alive():
            self._thread.join(10)
        for member in self.members:
            if member.running:
                member.kill()

    def _tend(self) -> None:
        while not self._halt.wait(0.1):
            for member in self.members:
                with self._lock:
                    member.tend()
