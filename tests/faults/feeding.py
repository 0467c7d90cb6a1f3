"""Sending part of a tape while something happens to the worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

from tests.integration.tape import Tape
from tests.integration.worker import Servers, Worker

Piece = tuple[int, int]
"""Records [start, stop) of a tape."""


def pieces(tape: Tape, count: int) -> list[Piece]:
    """The tape in `count` pieces of about equal length."""
    edges = [len(tape.records) * i // count for i in range(count + 1)]
    return list(pairwise(edges))


@contextmanager
def feeding(tape: Tape, servers: Servers, piece: Piece, per_s: float) -> Iterator[threading.Thread]:
    """Sends the piece in a thread; on exit all of it has been delivered."""
    failed: list[BaseException] = []

    def send() -> None:
        try:
            tape.send(servers.broker, *piece, per_s=per_s)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    yield thread
    thread.join(120)
    assert not thread.is_alive()
    if failed:
        raise failed[0]


def made(worker: Worker) -> int:
    """How many predictions this process has made."""
    status = worker.status()
    return int(status.get("predictions", 0) + status.get("unscored", 0))


def killed_in_mid_replay(tape: Tape, servers: Servers, downs: Sequence[Callable[[], None]], **settings: str) -> None:
    """Sends all of the tape but its last piece; a worker is killed in each piece, and `downs` run while it is dead.

    Each has committed and written a checkpoint by then, and has made predictions since.
    """
    for i, (piece, down) in enumerate(zip(pieces(tape, len(downs) + 1), downs, strict=False)):
        with Worker(tape.path, servers, **settings) as worker:
            worker.ready()
            with feeding(tape, servers, piece, per_s=800):
                worker.wait_for(lambda worker=worker: _has_saved(worker), 60)  # type: ignore[misc]
                time.sleep(0.1 + 0.17 * i)  # not always at the same distance from a commit
                worker.kill()
            worker.assert_calm()
        down()


def _has_saved(worker: Worker) -> bool:
    saved = [worker.metric(f"weir_{what}_total") for what in ("commits", "checkpoints")]
    return min(saved) >= 1 and made(worker) >= 100


def last_piece(tape: Tape, downs: int) -> Piece:
    return pieces(tape, downs + 1)[-1]
