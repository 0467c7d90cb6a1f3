"""Which model versions are served: read from the pipeline's compacted topic, loaded aside, switched between rounds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from features.spec import FeatureSpec
from models.errors import ModelRefused, ModelUnavailable
from models.rollout import Deployment, from_json
from models.scorer import Scorer
from monitors.metrics import Metrics
from streams.kafka import REQUEST_S, Config
from streams.pipeline import Pipeline

log = structlog.get_logger(__name__)

_POLL_S = 0.2
_RETRY_S = 2.0


class DeploymentReader:
    """Follows the deployments topic in a thread; `found` is told, in the loop, of each record for the model.

    `at_end` is set when the topic has been read to its end once. After a failure it is read anew.
    """

    def __init__(self, pipeline: Pipeline, config: Config, found: Callable[[Deployment], None]) -> None:
        self._topic, self._model = pipeline.topics.deployments, pipeline.model
        self._config = {
            **config,
            "group.id": f"{pipeline.name}-deployments",  # never joined, nothing is committed
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 100,
        }
        self._found = found
        self._told: Deployment | None = None
        self._halt = threading.Event()
        self.at_end = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="deployments", daemon=True)

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread.start()

    async def stop(self) -> None:
        self._halt.set()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while not self._halt.is_set():
            try:
                self._follow()
            except Exception as error:
                log.error("deployments cannot be read, trying again", topic=self._topic, error=repr(error))
                self._halt.wait(_RETRY_S)

    def _follow(self) -> None:
        consumer = Consumer(self._config)
        try:
            open_ends = self._assign(consumer)
            caught_up = False
            newest: Deployment | None = None
            while not self._halt.is_set():
                message = consumer.poll(_POLL_S)
                if message is None:
                    continue
                error = message.error()
                if error is None:
                    if message.key() == self._model.encode() and (read := _read(message.value())) is not None:
                        newest = read
                        if not open_ends:
                            self._tell(newest)
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_ends.discard(message.partition())
                    if not open_ends and not caught_up:
                        caught_up = True
                        if newest is not None and newest != self._told:
                            self._tell(newest)
                        self._loop.call_soon_threadsafe(self.at_end.set)
                else:
                    log.warning("kafka error", topic=self._topic, error=error.str())
        finally:
            consumer.close()

    def _assign(self, consumer: Consumer) -> set[int]:
        while not self._halt.is_set():
            try:
                found = consumer.list_topics(self._topic, timeout=REQUEST_S).topics[self._topic]
                if found.error is None and found.partitions:
                    consumer.assign([TopicPartition(self._topic, p, OFFSET_BEGINNING) for p in found.partitions])
                    return set(found.partitions)
            except KafkaException as error:
                log.warning("deployments cannot be read, trying again", error=error.args[0].str())
            self._halt.wait(0.5)
        return set()

    def _tell(self, deployment: Deployment) -> None:
        self._told = deployment
        self._loop.call_soon_threadsafe(self._found, deployment)


def _read(value: bytes | None) -> Deployment | None:
    try:
        return None if value is None else from_json(value)
    except ModelRefused as error:
        log.error("a deployment record is not readable, the one before stays", error=str(error))
        return None


class Serving:
    """The scorer in use, and the next one while it loads."""

    def __init__(
        self,
        spec: FeatureSpec,
        metrics: Metrics,
        *,
        cache_dir: Path,
        threads: int,
        providers: Sequence[str] = (),
    ) -> None:
        self.scorer: Scorer | None = None
        self.refused = ""
        """Why the newest deployment is not served, if so."""
        self._spec, self._metrics = spec, metrics
        self._cache_dir, self._threads, self._providers = cache_dir, threads, providers
        self._previous: Scorer | None = None
        self._next: Scorer | None = None
        self._wanted: Deployment | None = None
        self._loading: asyncio.Task[None] | None = None

    @property
    def deployment(self) -> Deployment | None:
        return self.scorer.deployment if self.scorer else None

    def want(self, deployment: Deployment) -> None:
        """Begins to load `deployment`; scoring goes on with the present one meanwhile."""
        self._wanted = deployment
        if self._loading is None or self._loading.done():
            self._loading = asyncio.get_running_loop().create_task(self._load())

    async def loaded(self) -> None:
        """Waits until what was wanted has been loaded or refused."""
        while self._loading is not None and not self._loading.done():
            await asyncio.wait([self._loading])

    def switch(self) -> None:
        """Takes the next scorer into use, if one is ready: between two rounds."""
        if self._next is None:
            return
        old, self._previous, self.scorer, self._next = self._previous, self.scorer, self._next, None
        self._metrics.inc("weir_model_switches_total", result="ok")
        self._show()
        log.info("deployment in use", deployment=self.scorer.deployment.id, versions=self.versions())
        if old is not None:
            _free(old)

    def fall_back(self, reason: str) -> Scorer | None:
        """Takes the deployment in use out of service; returns the one before it, now in use again, if there is one."""
        failed, self.scorer, self._previous = self.scorer, self._previous, None
        self.refused = reason
        self._show()
        if failed is not None:
            _free(failed)
        return self.scorer

    def versions(self) -> list[tuple[str, str]]:
        """(arm, version) of each model in use."""
        deployment = self.deployment
        if deployment is None:
            return []
        champion = [("champion", deployment.champion.version)] if deployment.champion else []
        canary = [("canary", deployment.canary.version.version)] if deployment.canary else []
        return [*champion, *canary, *(("shadow", v.version) for v in deployment.shadows)]

    def _show(self) -> None:
        """Sets the metrics to what is in use."""
        self._metrics.drop("weir_model_info")
        if (shown := self.deployment) is None:
            return
        for arm, version in self.versions():
            self._metrics.set("weir_model_info", 1, model=shown.model, version=version, arm=arm, deployment=shown.id)

    async def _load(self) -> None:
        while (wanted := self._wanted) is not None:
            self._wanted = None
            try:
                scorer = await asyncio.to_thread(
                    Scorer.load,
                    wanted,
                    self._spec.names,
                    self._spec.hash,
                    cache_dir=self._cache_dir,
                    threads=self._threads,
                    providers=self._providers,
                    previous=self._next or self.scorer,
                    features=self._spec.digests,
                )
            except ModelRefused as error:
                self._refuse(wanted, str(error))
            except (ModelUnavailable, OSError) as error:  # a full disk, say
                self._refuse(wanted, f"{error}; trying again")
                await asyncio.sleep(_RETRY_S)
                self._wanted = self._wanted or wanted
            except Exception as error:  # a task's own end is seen by nobody
                self._refuse(wanted, f"{type(error).__name__}: {error}")
            else:
                self.refused = ""
                replaced, self._next = self._next, scorer
                if replaced is not None:
                    _free(replaced)

    def _refuse(self, deployment: Deployment, reason: str) -> None:
        if reason != self.refused:
            self._metrics.inc("weir_model_switches_total", result="refused")
            log.error("deployment refused, the one before stays", deployment=deployment.id, reason=reason)
        self.refused = reason


def _free(scorer: Scorer) -> None:
    """Closes a scorer that nobody uses any more; what it cannot free is said, and costs nobody a score."""
    try:
        scorer.close()
    except Exception as error:
        log.error("a deployment could not be freed", deployment=scorer.deployment.id, error=repr(error))
