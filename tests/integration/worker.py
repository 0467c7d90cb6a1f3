"""Workers as users run them: `weir worker` in a process of its own, against servers that a test controls."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from confluent_kafka import Consumer, TopicPartition

from streams.ports import free_port

ROOT = Path(__file__).parents[2]
READY_S = 120.0


@dataclass(frozen=True)
class Servers:
    """What a worker talks to. settings: its WEIR_ variables; broker: the real address, also of the embedded one."""

    broker: str
    redis_url: str
    data_dir: Path
    settings: dict[str, str] = field(default_factory=dict)


class Worker:
    """One `weir worker PIPELINE`. As a context manager it is started, and killed if it still runs at the end.

    role: the command, if not worker, such as "features serve". settings: WEIR_ and OTEL_ variables, by whole name.
    """

    def __init__(self, pipeline: Path, servers: Servers, *, role: str = "worker", **settings: str) -> None:
        self._command = [sys.executable, "-m", "streams.cli", *role.split(), str(pipeline)]
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        self._broker = servers.broker
        self._log = servers.data_dir / f"worker-{port}.log"
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("WEIR_", "OTEL_"))}
        self._environment = {
            **inherited,
            "PYTHONPATH": str(ROOT),
            "WEIR_DATA_DIR": str(servers.data_dir),
            "WEIR_HTTP": f"127.0.0.1:{port}",
            "WEIR_LOG_FORMAT": "json",
            **servers.settings,
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT
            )
        return self

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self, within_s: float = 30.0) -> int:
        """SIGTERM; returns the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(within_s)

    def get(self, path: str) -> tuple[int, Any]:
        """HTTP status and JSON; (0, None) where nothing listens, or who does is killed before the end."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except (OSError, http.client.HTTPException):
            return 0, None

    def status(self) -> dict[str, Any]:
        """GET /status; empty where nothing listens."""
        return self.get("/status")[1] or {}

    def ready(self) -> Self:
        """Waits until /health/ready says so and partitions are owned."""
        self.wait_for(self.works, READY_S)
        return self

    def works(self) -> bool:
        """Whether it says that it is ready, and owns partitions."""
        return self.get("/health/ready")[0] == 200 and bool(self.status().get("partitions"))

    def caught_up(self, within_s: float = 60.0) -> Self:
        """Waits until all that Kafka has by now of the worker's partitions is worked off, and the worker says so."""
        self.wait_for(lambda: bool(self.status().get("partitions")), within_s)
        ends = ends_of(self._broker, self.status()["offsets"])
        self.wait_for(lambda: worked_off(self.status(), ends), within_s)
        return self

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric over its labels, or over those series that have `labels`."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        with urllib.request.urlopen(self.url + "/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        mine = [line for line in lines if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rsplit(" ", 1)[1]) for line in mine if all(label in line for label in wanted))

    def wait_for(self, what: Callable[[], bool], within_s: float) -> None:
        """Polls until `what`; fails with the end of the log when the time is over or the worker has ended."""
        deadline = time.monotonic() + within_s
        while not what():
            assert self.running, f"the worker ended:\n{self.last_words}"
            assert time.monotonic() < deadline, f"not in {within_s:.0f} s; {self.status()}\n{self.last_words}"
            time.sleep(0.05)

    @property
    def output(self) -> str:
        """All that it has written."""
        return self._log.read_text(errors="replace")

    @property
    def events(self) -> list[str]:
        """What its log says, without details."""
        lines = [line for line in self.output.splitlines() if line.startswith("{")]
        return [json.loads(line)["event"] for line in lines]

    @property
    def last_words(self) -> str:
        return "\n".join(line[:1000] for line in self.output.splitlines()[-12:])

    def assert_calm(self) -> None:
        """No traceback was written, neither as text nor inside a log line."""
        for line in self.output.splitlines():
            assert "Traceback" not in line, self.last_words
            assert '"exception"' not in line, line[:3000]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.running:
            self.kill()


@contextmanager
def ran_out(pipeline: Path, servers: Servers, **settings: str) -> Iterator[Worker]:
    """A worker that is ready on entry, and must end well on exit: by SIGTERM, with code 0, without tracebacks."""
    with Worker(pipeline, servers, **settings) as worker:
        yield worker.ready()
        assert worker.stop() == 0, worker.last_words
        worker.assert_calm()


def ends_of(broker: str, topics: Iterable[str]) -> dict[tuple[str, int], int]:
    """The end offset of every partition of some topics, as the broker has it now."""
    asked = Consumer({"bootstrap.servers": broker, "group.id": "ends"})
    try:
        return {
            (topic, partition): asked.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)[1]
            for topic in topics
            for partition in asked.list_topics(topic, timeout=10).topics[topic].partitions
        }
    finally:
        asked.close()


def worked_off(status: dict[str, Any], ends: dict[tuple[str, int], int]) -> bool:
    """Whether a worker is at those ends of the partitions that it has, but for what waits for another stream."""
    here = {(topic, int(p)): at for topic, found in status.get("offsets", {}).items() for p, at in found.items()}
    behind = sum(max(0, ends[place] - at) for place, at in here.items())
    return bool(here) and status["lag"] == status["held"] >= behind

