"""Who this worker is, across restarts: a name that is its own while it lives, and the next process's afterwards.

Kafka fences by it: a new process of the same name ends the transaction and the membership of the one before.
"""

from __future__ import annotations

import fcntl
import uuid
from pathlib import Path
from typing import IO, Self

_MOST = 1024


class Instance:
    """The first free name of `data_dir`. The kernel frees it when the process ends, however that ends."""

    def __init__(self, name: str, lock: IO[str]) -> None:
        self.name = name
        self._lock = lock

    @classmethod
    def claim(cls, data_dir: Path) -> Self:
        folder = data_dir / "instances"
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(_MOST):
            lock = (folder / str(number)).open("a+")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                continue
            lock.seek(0)
            name = lock.read().strip()
            if not name:
                name = uuid.uuid4().hex[:12]
                lock.write(name)
                lock.flush()
            return cls(name, lock)
        raise OSError(f"{folder} has no free name: {_MOST} workers run there")

    def close(self) -> None:
        """Lets the next process have the name."""
        self._lock.close()
