"""What is kept of a retrain event on disk, in a folder of its own: how often it was begun, and how it ended."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from pathlib import Path
from typing import Literal

import msgspec

from models.files import write_atomically

Ending = Literal["candidate", "champion", "rejected"]


class Done(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a retrain event ended: its version became candidate or champion, or was rejected for these reasons."""

    retrain: str
    ending: Ending
    version: str | None = None
    reasons: tuple[str, ...] = ()
    time: int = 0


class _State(msgspec.Struct):
    attempts: int = 0
    done: Done | None = None


class TrainingFolder:
    """The folder of `event` below `root`. Every method may raise OSError: a full disk, say."""

    def __init__(self, root: Path, event: str) -> None:
        # an event's id comes from a topic: it must not lead elsewhere
        plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", event)
        self.path = root / (event if plain else hashlib.sha256(event.encode()).hexdigest()[:16])
        self._file = self.path / "state.json"

    @property
    def attempts(self) -> int:
        """How often a training was begun that did not come to an end."""
        return self._read().attempts

    @property
    def done(self) -> Done | None:
        return self._read().done

    def begin(self) -> None:
        """Counts an attempt, on disk before it begins."""
        self._write(_State(self.attempts + 1))

    def unbegin(self) -> None:
        """The attempt that was begun does not count: it was stopped in order, or could not be made."""
        self._write(_State(max(0, self.attempts - 1)))

    def end(self, done: Done) -> None:
        """Keeps how it ended; its model file is the registry's by now."""
        self._write(_State(self.attempts, done))
        for left in self.path.iterdir():
            if left != self._file:
                with contextlib.suppress(OSError):
                    shutil.rmtree(left) if left.is_dir() else left.unlink()

    def _read(self) -> _State:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=_State)
        except (FileNotFoundError, msgspec.MsgspecError):  # never begun; or written by a disk that lies
            return _State()

    def _write(self, state: _State) -> None:
        write_atomically(self._file, msgspec.json.encode(state))
