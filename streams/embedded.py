"""The embedded broker and Valkey: each in a process of its own, which cannot outlive the one that started it.

A running pair is known by its data directory: `embedded.json` there holds its addresses, and a lock on
`embedded.lock` says that its owner lives. The kernel drops the lock with the owner, so a file left by a
`kill -9` misleads nobody.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from streams import embedded_server
from streams.errors import WeirError

_START_S = 20.0
_STOP_S = 5.0
_LOCK_S = 1.0  # a reader holds the lock for a moment to see whether it is free


@dataclass(frozen=True)
class Addresses:
    """Where a running pair is: `broker` as host:port, `redis_url` as redis://…, `pid` of its owner."""

    broker: str
    redis_url: str
    pid: int


class Embedded:
    """A running pair that this process owns; as a context manager it stops on exit.

    `stop` ends both servers and may be called twice.
    """

    def __init__(self, addresses: Addresses, servers: list[Server], state: Path, lock: IO[str]) -> None:
        self.addresses = addresses
        self._servers = servers
        self._state = state
        self._lock = lock

    @property
    def broker(self) -> str:
        return self.addresses.broker

    @property
    def redis_url(self) -> str:
        return self.addresses.redis_url

    def stop(self) -> None:
        if not self._lock.closed:
            self._state.unlink(missing_ok=True)
            for server in self._servers:
                server.stop()
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.stop()


def start_embedded(data_dir: Path) -> Embedded:
    """Starts the pair of `data_dir` (made if missing) and waits until both answer: about 0.3 s.

    Raises WeirError when a pair of this directory runs already, or when a server does not start.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    lock = (data_dir / "embedded.lock").open("a")
    servers: list[Server] = []
    try:
        _take(lock, data_dir)
        state = data_dir / "embedded.json"
        state.unlink(missing_ok=True)
        servers.extend(Server(role, data_dir) for role in ("broker", "valkey"))
        broker, redis_url = (server.address() for server in servers)
        addresses = Addresses(broker, redis_url, os.getpid())
        fresh = state.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(addresses)) + "\n")
        fresh.replace(state)
    except BaseException:
        for server in servers:
            server.stop()
        lock.close()
        raise
    return Embedded(addresses, servers, state, lock)


def find_embedded(data_dir: Path) -> Addresses | None:
    """The pair of `data_dir` that another process, or this one, has running; None where there is none."""
    try:
        with (data_dir / "embedded.lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return Addresses(**json.loads((data_dir / "embedded.json").read_text()))
    except FileNotFoundError:  # no lock: never started; no state: not started yet, or stopping
        pass
    return None


def _take(lock: IO[str], data_dir: Path) -> None:
    deadline = time.monotonic() + _LOCK_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                found = find_embedded(data_dir)
                owner = f" (process {found.pid})" if found else ""
                raise WeirError(
                    f"an embedded broker and Valkey of {data_dir} are running already{owner}: "
                    "stop their owner, or set WEIR_DATA_DIR to another directory"
                ) from None
            time.sleep(0.02)


class Server:
    """One server process; `role` is broker or valkey, its log `embedded-ROLE.log` in the data directory."""

    def __init__(self, role: str, data_dir: Path) -> None:
        self._role = role
        self._log = data_dir / f"embedded-{role}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                # -P: the file's own directory is no place to import from
                [sys.executable, "-P", embedded_server.__file__, role, str(data_dir)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the owner, who stops this one last
            )

    def address(self) -> str:
        """Waits for the server to be ready. Raises WeirError when it is not in time."""
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], _START_S)
        line = self._process.stdout.readline().decode().strip() if readable else ""
        if not line:
            last = self._log.read_text(errors="replace").strip().splitlines()[-1:] or ["no word from it"]
            raise WeirError(f"the embedded {self._role} did not start: {last[0]} (see {self._log})")
        return line

    def stop(self) -> None:
        process = self._process
        process.terminate()
        try:
            process.wait(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
