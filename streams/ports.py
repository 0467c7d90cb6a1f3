"""Free ports for servers that are started, killed and started again at the same address."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from random import SystemRandom

_RANGE = range(10_000, 32_768)
"""Below what Linux (32768) and macOS (49152) hand out by themselves: a port of those may be somebody's connection
before the server listens on it, or while it is down."""


def free_port() -> int:
    """A TCP port of the loopback that nobody has."""
    (port,) = free_ports(1)
    return port


def free_ports(count: int) -> list[int]:
    """`count` different ones. Raises OSError where there are not so many."""
    tries = iter(SystemRandom().sample(_RANGE, len(_RANGE)))
    with ExitStack() as held:
        return [held.enter_context(_held(tries)) for _ in range(count)]


@contextmanager
def _held(tries: Iterator[int]) -> Iterator[int]:
    for port in tries:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:  # somebody has it
                continue
            yield port
            return
    raise OSError(f"no port of {_RANGE.start} to {_RANGE.stop - 1} is free")
