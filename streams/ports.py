"""Free ports for servers that are started, killed and started again at the same address."""

from __future__ import annotations

import socket
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
    held = held_ports(count)
    for one in held.values():
        one.close()
    return list(held)


def held_ports(count: int) -> dict[int, socket.socket]:
    """`count` different ones, each with the socket that keeps it until it is closed: nobody else gets the port, and who
    connects to it is refused. Raises OSError where there are not so many.
    """
    held: dict[int, socket.socket] = {}
    draw = iter(SystemRandom().sample(_RANGE, len(_RANGE)))
    while len(held) < count:
        one = socket.socket()
        try:
            one.bind(("127.0.0.1", port := next(draw)))
        except OSError:  # somebody has it
            one.close()
        except StopIteration:
            for taken in (one, *held.values()):
                taken.close()
            raise OSError(f"no port of {_RANGE.start} to {_RANGE.stop - 1} is free") from None
        else:
            held[port] = one
    return held
