"""A training in a process of its own: one that diverges, eats all memory or is killed costs the trainer nothing.

The child gets its job as JSON on stdin, which also tells it that its parent lives; it answers on stdout, one JSON
object a line: {"phase": …} as it goes on, {"result": …} at its end. What others print goes to stderr.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import IO, Any

import msgspec
import structlog

from models.rollout import Version
from monitors.loop import RetrainEvent

log = structlog.get_logger(__name__)

LIMIT_S = 6 * 3600.0
_STOP_S = 5.0
_NICE = 10


class Job(msgspec.Struct, frozen=True):
    """What to train and to judge.

    pipeline: as on the command line. archive, folder, cache: the archive, where the model goes, model files by digest.
    champion: whom the new model must beat; None = there is none. wait_s: for rows that the event names and the archive
    does not have yet.
    """

    pipeline: str
    event: RetrainEvent
    archive: str
    folder: str
    cache: str
    seed: int
    champion: Version | None = None
    wait_s: float = 10.0


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of a job.

    path: the model's file, if there is one that could be served; sha256: of it. lineage: for the registry.
    reasons: why the model is rejected; none = it passed the gate. evidence: the gate's.
    later: nothing was decided, for this reason: try again. skipped: files of the archive that were left out.
    """

    path: str | None = None
    lineage: dict[str, str | int | float] = {}
    reasons: tuple[str, ...] = ()
    evidence: dict[str, Any] = {}
    later: str = ""
    skipped: tuple[str, ...] = ()


class Child:
    """The parent's side. The process runs once this is made; `poll` says whether it has ended."""

    def __init__(self, job: Job, limit_s: float = LIMIT_S) -> None:
        self.phase = "training"
        """training or judging."""
        self.result: Result | None = None
        self.started_s = time.monotonic()
        self._limit_s = limit_s
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the trainer, which stops this one
        )
        self._reader = threading.Thread(target=self._read, name="training-child", daemon=True)
        self._reader.start()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already, as `poll` will say
            self._process.stdin.write(msgspec.json.encode(job) + b"\n")
            self._process.stdin.flush()

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> str | None:
        """None while it runs; then "" when it has said its result, else how it died."""
        code = self._process.poll()
        if code is None:
            if time.monotonic() - self.started_s > self._limit_s:
                log.error("training takes too long, killing it", limit_s=self._limit_s)
                self._process.kill()
            return None
        self._reader.join()
        self._close()
        if self.result is not None:
            return ""
        if code < 0:
            return f"the training process was killed ({signal.Signals(-code).name})"
        return f"the training process ended with code {code}"

    def stop(self) -> None:
        """Ends it, at the latest after five seconds."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                said = msgspec.json.decode(line)
                if "result" in said:
                    self.result = msgspec.convert(said["result"], Result)
                else:
                    self.phase = str(said["phase"])
            except (msgspec.MsgspecError, KeyError, TypeError) as error:
                log.warning("the training process said what cannot be read", error=str(error))

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def main() -> None:
    """The child's side."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a user's function may print
    with_parent = sys.stdin.buffer
    job = msgspec.json.decode(with_parent.readline(), type=Job)
    _end_with(with_parent)
    with contextlib.suppress(OSError):
        os.nice(_NICE)  # scoring comes first

    def say(what: str, value: Any) -> None:
        answers.write(msgspec.json.encode({what: value}) + b"\n")

    from streams.logs import configure_logs
    from streams.settings import load_settings

    settings = load_settings()
    configure_logs(settings.log_level, settings.log_format, role="trainer")
    structlog.contextvars.bind_contextvars(retrain=job.event.id)
    from streams.judging import work

    result = work(job, lambda phase: say("phase", phase))
    say("result", result)
    sys.stderr.flush()
    os._exit(0)  # whatever threads a user's function has left


def _end_with(pipe: IO[bytes]) -> None:
    """Ends this process when its parent is gone, as the end of `pipe` says."""

    def watch() -> None:
        while pipe.read(1):
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
