"""A real Kafka for measurements and tests: one broker or three (KRaft), to stop, kill and start one by one.

Needs `java`, 17 or later. No worker needs it. `python -m loadtest.kafka` fetches the jars.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined, unused-ignore]

from loadtest.jars import VERSION, KafkaUnavailable, fetch_jars
from streams.ports import held_ports

_READY_S = 60.0
_STOP_S = 20.0

ONE_CORE = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""One core's worth of compiler and collector: for tests, which share the machine with the brokers."""

# Joins at once, sessions as short as a test wants, small internal topics; and nothing is deleted by age: the
# records of a replay carry the time of their event, which may be years ago, and retention goes by that time. The log
# cleaner's buffer is 128 MB by default, a good part of a small heap: a broker would collect garbage all the time.
_BROKER = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
log.retention.ms=-1
log.retention.check.interval.ms=10000
num.partitions=4
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.num.partitions=4
offsets.topic.replication.factor={replicas}
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.max.timeout.ms=900000
transaction.abort.timed.out.transaction.cleanup.interval.ms=2000
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
replica.lag.time.max.ms=5000
controlled.shutdown.enable=true
log.cleaner.dedupe.buffer.size=8388608
"""


class KafkaCluster:
    """A cluster of `brokers` nodes (1 or 3), each broker and controller, with its files under `folder`.

    `nodes` are counted from 1. `start(node)` after `kill(node)` or `stop(node)` is the same broker again: its
    port and its data stay. `close` ends all of them; as a context manager: started on entry, closed on exit.
    Raises KafkaUnavailable, with the last lines of the broker's log, when a broker does not come up.
    """

    def __init__(self, folder: Path, brokers: int = 1, *, java_options: Sequence[str] = ONE_CORE) -> None:
        self.nodes = range(1, brokers + 1)
        self._folder = folder
        self._java_options = java_options
        # Until they start, so that nobody else takes them; who does not listen refuses connections.
        self._held = held_ports(2 * brokers)
        ports = list(self._held)
        self._ports = dict(zip(self.nodes, ports[:brokers], strict=True))
        self._controller_ports = dict(zip(self.nodes, ports[brokers:], strict=True))
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def address(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self._ports.values())

    def start(self, *nodes: int) -> None:
        """Starts `nodes` (default: all) and waits until each has its place in the cluster."""
        if shutil.which("java") is None:
            raise KafkaUnavailable("java is missing: install a Java runtime, 17 or later")
        for node in nodes or self.nodes:
            if not (self._home(node) / "data" / "meta.properties").exists():
                self._format(node)
            self._launch(node)
        self._await(lambda: self._registered() >= set(self._processes))

    def stop(self, node: int) -> None:
        """The broker hands over its partitions and ends."""
        self._end(node, signal.SIGTERM)

    def kill(self, node: int) -> None:
        """kill -9."""
        self._end(node, signal.SIGKILL)

    def close(self) -> None:
        for held in self._held.values():
            held.close()
        for node in list(self._processes):
            self.kill(node)  # nobody will read its data

    def pid(self, node: int) -> int:
        return self._processes[node].pid

    def create_topics(self, *names: str, partitions: int = 4, **config: str) -> None:
        """Creates topics and waits for them; `config` as Kafka names it, retention_ms for retention.ms."""
        admin = AdminClient({"bootstrap.servers": self.address})
        settings = {name.replace("_", "."): value for name, value in config.items()}
        wanted = [NewTopic(n, partitions, min(3, len(self.nodes)), config=settings) for n in names]
        for future in admin.create_topics(wanted, operation_timeout=20).values():
            future.result()
        self._await(lambda: set(names) <= set(admin.list_topics(timeout=5).topics))

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def _home(self, node: int) -> Path:
        return self._folder / f"kafka-{node}"

    def _format(self, node: int) -> None:
        home = self._home(node)
        home.mkdir(parents=True, exist_ok=True)
        properties = _BROKER.format(
            node=node,
            voters=",".join(f"{n}@127.0.0.1:{port}" for n, port in self._controller_ports.items()),
            port=self._ports[node],
            controller_port=self._controller_ports[node],
            data=home / "data",
            replicas=len(self.nodes),
            in_sync=min(2, len(self.nodes)),
        )
        (home / "server.properties").write_text(properties)
        tool = [*self._java(128), "kafka.tools.StorageTool", "format", "-t", "d2VpciB0ZXN0cyAuLi4uLg"]
        done = subprocess.run(
            [*tool, "-c", str(home / "server.properties")], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise KafkaUnavailable(f"Kafka's storage could not be prepared: {done.stderr.strip()[-400:]}")

    def _launch(self, node: int) -> None:
        for port in (self._ports[node], self._controller_ports[node]):
            self._held[port].close()
        home = self._home(node)
        heap_mb = 512 if len(self.nodes) == 1 else 384
        with (home / "server.log").open("ab") as log:
            self._processes[node] = subprocess.Popen(
                [*self._java(heap_mb), "kafka.Kafka", str(home / "server.properties")],
                stdout=log,
                stderr=log,
                cwd=home,
                start_new_session=True,
            )

    def _java(self, heap_mb: int) -> list[str]:
        return ["java", f"-Xmx{heap_mb}m", *self._java_options, "-cp", f"{fetch_jars()}/*"]

    def _registered(self) -> set[int]:
        admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        try:
            return set(admin.list_topics(timeout=2).brokers)
        except KafkaException:
            return set()

    def _await(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_S
        while not (self._any_listens() and done()):
            for node, process in self._processes.items():
                if process.poll() is not None:
                    ended = f"broker {node} ended at start with {process.returncode}"
                    raise KafkaUnavailable(f"{ended}: {self._last_words(node)}")
            if time.monotonic() > deadline:
                raise KafkaUnavailable(f"not ready in {_READY_S:.0f} s: {self._last_words(min(self.nodes))}")
            time.sleep(0.1)

    def _any_listens(self) -> bool:
        for node in self._processes:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._ports[node])) == 0:
                    return True
        return False

    def _last_words(self, node: int) -> str:
        lines = (self._home(node) / "server.log").read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-3:]) or "no output"

    def _end(self, node: int, how: signal.Signals) -> None:
        process = self._processes.pop(node)
        process.send_signal(how)
        try:
            process.wait(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    print(f"Kafka {VERSION}: {fetch_jars()}")
