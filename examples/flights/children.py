"""The processes of the demo: a worker, a trainer and the replay. They end with it, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from examples.flights.sending import Progress
from streams.errors import WeirError
from streams.ports import free_port

PIPELINE = "examples.flights.pipeline:pipeline"
_STOP_S = 20.0
_RESTART_S = 1.0
_RESTARTS = 20


class Child:
    """A process of its own session; what it writes on stderr goes to `log`."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        *,
        reads: bool = True,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if reads else stderr,
                stderr=stderr,
                env={**os.environ, **environment},
                start_new_session=True,  # Ctrl-C is for the demo, which stops the others in order
            )

    def ended(self) -> int | None:
        return self.process.poll()

    def failed(self) -> WeirError:
        """The error to raise when it has ended and should not have: its last words."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        last = lines[-1][:300] if lines else f"exit code {self.process.poll()}"
        return WeirError(f"the {self.name} failed: {last} (see {self.log})")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


class Service:
    """`weir worker` or `weir trainer`, started again when it dies."""

    def __init__(self, role: str, log: Path, environment: Mapping[str, str]) -> None:
        self.role = role
        self._log = log
        self._http = f"127.0.0.1:{free_port()}"
        self._environment = {**environment, "WEIR_HTTP": self._http}
        self._child = self._start()
        self._died_s: float | None = None
        self.restarts = 0

    def tend(self, now_s: float) -> bool:
        """Starts it again if it has died. Returns whether it has just been found dead."""
        if self._child.ended() is None:
            return False
        if self._died_s is None:
            self._died_s = now_s
            self.restarts += 1
            if self._child.ended() == 2 or self.restarts > _RESTARTS:  # starting again mends nothing
                raise self._child.failed()
            return True
        if now_s - self._died_s >= _RESTART_S:
            self._died_s = None
            self._child.stop()
            self._child = self._start()
        return False

    def status(self) -> dict[str, Any] | None:
        """What GET /status answers; None while it does not."""
        return self._get("status")

    def ready(self) -> bool:
        """Whether it works."""
        return self._get("health/ready") is not None

    def stop(self) -> None:
        self._child.stop()

    def _get(self, path: str) -> dict[str, Any] | None:
        try:
            with urllib.request.urlopen(f"http://{self._http}/{path}", timeout=2) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except (OSError, ValueError):  # not there yet, or 503
            return None

    def _start(self) -> Child:
        arguments = ["streams.cli", self.role, PIPELINE, "--with-parent"]
        return Child(self.role, arguments, self._log, self._environment, reads=False)


class ReplayProcess:
    """`python -m examples.flights.replay`; a thread reads its progress."""

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        self._child = Child("replay", ["examples.flights.replay", *arguments], log, {})
        self.progress = Progress("running", 0, [0, 0, 0], [], 0.0)
        self.sent_at: dict[tuple[int, int], float] = {}
        """When the sampled requests were sent, by (partition, offset)."""
        self._thread = threading.Thread(target=self._read, name="replay", daemon=True)
        self._thread.start()

    @property
    def sent(self) -> int:
        """Events sent, as last heard of."""
        return sum(self.progress.sent)

    def check(self) -> None:
        """Raises WeirError if it ended before its end."""
        if self._child.ended() is not None and not self._thread.is_alive() and self.progress.state != "done":
            raise self._child.failed()

    def go_on(self) -> None:
        assert self._child.process.stdin is not None
        self.progress = msgspec.structs.replace(self.progress, state="running")
        self._child.process.stdin.write(b"\n")
        self._child.process.stdin.flush()

    def stop(self) -> None:
        self._child.stop()
        self._thread.join(_STOP_S)

    def _read(self) -> None:
        decode = msgspec.json.Decoder(Progress).decode
        assert self._child.process.stdout is not None
        for line in self._child.process.stdout:
            progress = decode(line)
            self.sent_at.update({(partition, offset): at for partition, offset, at in progress.samples})
            self.progress = progress
