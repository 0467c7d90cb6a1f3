"""Ports for servers of tests and benchmarks: what the system would give to somebody else is never among them."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from streams import ports
from streams.ports import free_port, free_ports, held_ports


def test_they_are_different_and_below_what_the_system_hands_out() -> None:
    first_own = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found = free_ports(200)
    assert len(set(found)) == 200
    assert max(found) < first_own


def test_one_that_somebody_has_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(ports, "_RANGE", range(port, port + 1))
        with pytest.raises(OSError, match=rf"no port of {port} to {port} is free"):
            free_port()


def test_one_that_is_held_is_nobody_elses_and_refuses_connections_until_it_is_let_go() -> None:
    ((port, held),) = held_ports(1).items()
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", port))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    held.close()
    socket.create_server(("127.0.0.1", port)).close()
