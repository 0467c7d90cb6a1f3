"""The payments example as a service under measurement: Kafka, Valkey and one worker, real processes each."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from examples.payments import model as payments_model
from loadtest import scrape
from loadtest.kafka import KafkaCluster
from loadtest.systems import PIPELINE
from loadtest.valkey import Valkey
from models import rollout
from models.files import sha256_of
from models.registry import Registry
from models.rollout import Deployment, Version
from streams import release
from streams.errors import WeirError
from streams.loading import load_pipeline
from streams.ports import free_port
from streams.settings import PREFIX, load_settings

STOP_S = 20.0
_POLL_S = 0.02


class Worker:
    """`weir worker` of `pipeline`, exactly once; what it logs goes to `log`, a JSON object a line.

    environment: variables that win over these.
    """

    def __init__(
        self,
        broker: str,
        redis: str,
        data_dir: Path,
        log: Path,
        pipeline: str = PIPELINE,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._port = free_port()
        inherited = {k: v for k, v in os.environ.items() if not k.startswith((PREFIX, "OTEL_"))}
        self._environment = inherited | {
            "WEIR_BROKER": broker,
            "WEIR_REDIS": redis,
            "WEIR_DATA_DIR": str(data_dir),
            "WEIR_HTTP": f"127.0.0.1:{self._port}",
            "WEIR_GUARANTEE": "exactly_once",
            "WEIR_LOG_FORMAT": "json",
            **(environment or {}),
        }
        self.log, self._pipeline = log, pipeline
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streams.cli", "worker", self._pipeline],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM; kill -9 where it does not end."""
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    @property
    def listening(self) -> bool:
        """Whether its HTTP endpoint takes connections."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def ready(self) -> bool:
        """Whether /health/ready says so, and all is read."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health/ready", timeout=5):
                return True
        except OSError:  # nothing listens, or 503
            return False

    def metric(self, name: str, label: str = "") -> float:
        """The sum of a metric's series, of those alone whose labels hold the text `label`."""
        return scrape.total(self.metrics(), name, label)

    def metrics(self) -> str:
        """/metrics as it is now. Raises WeirError where it does not answer."""
        return scrape.page(f"127.0.0.1:{self._port}")

    def said(self, since: int = 0) -> list[dict[str, Any]]:
        """Its log from byte `since` on."""
        with self.log.open("rb") as file:
            file.seek(since)
            return [json.loads(line) for line in file if line.startswith(b"{") and line.endswith(b"\n")]

    def wait(self, done: Callable[[], bool], within_s: float, what: str, pause_s: float = _POLL_S) -> None:
        """Polls until `done`. Raises WeirError with the worker's last words when it ends or the time is over."""
        deadline = time.monotonic() + within_s
        while not done():
            ended = self.process.poll() is not None
            if ended or time.monotonic() > deadline:
                words = " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-5:])
                reason = "the worker ended" if ended else f"not in {within_s:.0f} s"
                raise WeirError(f"{what}: {reason}: {words[-1500:]}")
            time.sleep(pause_s)


class Service:
    """`address`: of the broker. The worker has not been started.

    pipeline: what it runs; environment: of its workers, beside what they all have.
    """

    def __init__(
        self,
        address: str,
        valkey: Valkey,
        folder: Path,
        pipeline: str = PIPELINE,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.address, self.valkey = address, valkey
        self.pipeline = load_pipeline(pipeline)
        self.source, self.predictions = self.pipeline.lead.topic, self.pipeline.topics.predictions
        self._folder, self._named, self._environment = folder, pipeline, environment
        # The settings of this service alone: what the environment says of another is not for it.
        self._settings = load_settings(broker=address, redis=valkey.url, data_dir=folder / "data", registry="")
        self.worker = self.new_worker("worker")

    def new_worker(self, name: str) -> Worker:
        """One more of the same group, to be started; it logs to `name`.log."""
        log = self._folder / f"{name}.log"
        return Worker(self.address, self.valkey.url, self._folder / "data", log, self._named, self._environment)

    def serve(self, model: Path | None = None) -> None:
        """Makes `model` (None = the example's) the champion, past the registry: importing MLflow takes seconds."""
        file = model or payments_model.write(self._folder / "payments.onnx")
        spec, sha256 = self.pipeline.spec.hash, sha256_of(file.read_bytes())
        version = Version(self.pipeline.model, "1", file.as_uri(), sha256, spec, output=self.pipeline.output)
        self._publish(rollout.promote(rollout.unscored(self.pipeline.model), version))

    def register(self, seeds: Sequence[int]) -> list[Version]:
        """The example's model, drawn with each of `seeds`, as `weir models deploy` would register it."""
        files = [payments_model.write(self._folder / f"payments-{seed}.onnx", seed) for seed in seeds]
        return [release.register(self.pipeline, self._registry, file) for file in files]

    def deploy(self, version: Version) -> Deployment:
        """Makes `version` the champion, as `weir models deploy` does."""
        deployment = release.deploy(self.pipeline, self._registry, version)
        self._publish(deployment)
        return deployment

    def _publish(self, deployment: Deployment) -> None:
        release.publish(self.pipeline, self._settings, self.address, deployment)

    @cached_property
    def _registry(self) -> Registry:
        return release.open_registry(self._settings)


@contextmanager
def payments_service(partitions: int, say: Callable[[str], None], **topic_config: str) -> Iterator[Service]:
    """Started servers with the example's topics, and a worker to start; all of it ends on exit.

    topic_config: of the payments and their predictions, as Kafka names it: retention_bytes for retention.bytes.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="weir-measured-")))
        began = time.monotonic()
        kafka = stack.enter_context(KafkaCluster(folder, java_options=()))
        service = Service(kafka.address, stack.enter_context(Valkey()), folder)
        kafka.create_topics(service.source, service.predictions, partitions=partitions, **topic_config)
        say(f"Kafka and Valkey are up after {time.monotonic() - began:.1f} s")
        try:
            yield service
        finally:
            if hasattr(service.worker, "process"):
                service.worker.stop()
