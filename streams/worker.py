"""A worker: the process that scores. Everything is wired here; `serve` reads like its life."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from features.engine import FeatureEngine
from features.redis_store import RedisStore
from features.store import StoreMisconfigured
from models.errors import ModelRefused
from monitors.metrics import Metrics
from streams.batches import Poll
from streams.commit import Committer
from streams.decoding import Decoding
from streams.delivery import AtLeastOnce, Delivery, ExactlyOnce
from streams.deployments import DeploymentReader, Serving
from streams.embedded import find_embedded, start_embedded
from streams.errors import UsageError, WeirError
from streams.http import HttpServer
from streams.instance import Instance
from streams.intake import Intake
from streams.kafka import (
    MAX_OUTPUT_BYTES,
    client_config,
    consumer_config,
    is_fatal,
    largest_record,
    prepare_topics,
    producer_config,
    session_ms,
    transactional_config,
    worker_group,
)
from streams.lean import end_of_imports
from streams.offsets import Offsets
from streams.outputs import Outputs
from streams.owner_progress import OwnerProgress
from streams.ownership import Ownership
from streams.parts import Part, part_of
from streams.pipeline import Pipeline
from streams.pulse import BEAT_S, Pulse
from streams.remote_reads import RemoteReads
from streams.schemas.awaited import AwaitedSchemas
from streams.scoring import Scoring
from streams.settings import Settings
from streams.topic_ids import TopicIds
from streams.tracing import Tracer
from streams.transactions import TransactionalOutputs, Void
from streams.vitals import Vitals

if TYPE_CHECKING:
    from streams.agent import Agent

log = structlog.get_logger(__name__)

T = TypeVar("T")
_VITALS_S = 1.0
_TOPICS_S = 2.0
_DAY_MS = 24 * 3_600_000


class _Clients(NamedTuple):
    """What speaks to Kafka for this worker; nothing of it is in the group yet."""

    intake: Intake
    offsets: Offsets
    outputs: Outputs


class Worker:
    """One worker of a part of a pipeline. broker, redis_url: real addresses, also of the embedded servers."""

    def __init__(self, part: Part, settings: Settings, broker: str, redis_url: str) -> None:
        pipeline = part.pipeline
        self.part, self.pipeline, self.settings = part, pipeline, settings
        self._redis_url = redis_url
        self._progress = OwnerProgress() if part.owns else None
        self._remote_stores: list[RedisStore] = []
        providers = _providers(settings.onnx_providers)
        self.metrics = Metrics()
        self._stop = asyncio.Event()
        self._error: BaseException | None = None
        self._schemas = AwaitedSchemas.of(pipeline, settings, self.metrics)
        self._instance = Instance.claim(settings.data_dir)
        base = client_config(settings, broker, f"weir-{pipeline.name}-{os.getpid()}", self._on_broker_error)
        self._base = base
        self._store = RedisStore(redis_url, pipeline.name, ttl_ms=pipeline.spec.kept_ms + 30 * _DAY_MS)
        self._engine = FeatureEngine(pipeline.spec, self._store, capacity=settings.cache_entities)
        self._gate = asyncio.Lock()
        self._pulse = Pulse()
        self._tracer = Tracer.from_environment(pipeline.name)
        self._ownership = Ownership(
            pipeline,
            self._engine,
            self._store,
            self._gate,
            self.metrics,
            can_rebuild=not settings.embedded_broker,
            session_s=session_ms(settings) / 1000,
            pulse=self._pulse,
            failed=self.fail,
        )
        self._serving = Serving(
            pipeline.spec,
            self.metrics,
            cache_dir=settings.data_dir / "models",
            threads=settings.onnx_threads,
            providers=providers,
        )
        self._deployments = DeploymentReader(pipeline, base, self._serving.want)
        self.vitals = Vitals(pipeline, self._engine, self._ownership, self._serving, self.metrics)
        host, port = settings.http_address
        self.http = HttpServer(
            host,
            port,
            live=self.vitals.live,
            ready=self.vitals.ready,
            metrics=self.metrics.render,
            status=self.vitals.status,
        )

    def stop(self) -> None:
        """Asks the worker to give its partitions up and end."""
        self._stop.set()

    def fail(self, error: BaseException) -> None:
        """Ends the worker with `error`: what cannot be mended here is mended by starting again."""
        if self._error is None:
            self._error = error
            self._ownership.broken = True
            log.error("worker fails", error=str(error), kind=type(error).__name__, exc_info=error)
        self._stop.set()

    async def serve(self) -> None:
        """From the first request to the last commit. Raises what made the worker fail.

        What waits for others (Kafka's answers, the producer of before to be fenced, the models) is begun as early as it
        can be, side by side. The group is joined last: whoever has the partitions keeps them until then.
        """
        loop = asyncio.get_running_loop()
        await self.http.start()
        importing = asyncio.ensure_future(asyncio.to_thread(_import_agent))
        opening: _Opening[_Clients] | None = None
        try:
            partitions = await asyncio.to_thread(
                prepare_topics,
                self.pipeline,
                self.settings,
                self._base,
                stopped=self._stop.is_set,
                say=self.vitals.say,
            )
            if self.part.scores:
                self._deployments.begin(loop)
            if partitions is not None and not self._stop.is_set():
                opening = _Opening(self._open_clients)
            if self.part.scores:
                await self._take_models()
            if partitions is not None and opening is not None and not self._stop.is_set():
                both = asyncio.gather(opening.result, importing)
                await self._until(both, "starting the producer")
                if not self._stop.is_set():
                    clients, make_agent = both.result()
                    folder, most = self.settings.data_dir / "faust", self.settings.batch_records
                    agent = make_agent(self.pipeline.name, folder, self._work, most)
                    await self._score(partitions, clients, agent)
        finally:
            if self.part.scores:
                await self._deployments.stop()
            for store in (self._store, *self._remote_stores):
                await store.close()
            self._tracer.shutdown()
            if opening is None or not opening.is_alive():  # else it would fence whoever has the name after it
                self._instance.close()
            await self.http.stop()
        if self._error is not None:
            raise self._error

    async def _take_models(self) -> None:
        await self._until(self._deployments.at_end.wait(), "reading deployments")
        await self._until(self._serving.loaded(), "loading models")
        self._serving.switch()
        if not self._serving.versions() and not self._stop.is_set():
            log.warning("no champion deployed yet: predictions go out unscored", mend="weir models deploy")

    def _open_clients(self) -> _Clients:
        """Connects to Kafka, and fences the producer of the process before. Blocks. Joins nothing, reads nothing."""
        topics = [source.topic for source in self.pipeline.sources]
        ids = TopicIds(None if self.settings.embedded_broker else AdminClient(self._base), topics)
        group = worker_group(self.pipeline)
        static = None if self.settings.embedded_broker else f"{self.pipeline.name}-{self._instance.name}"
        intake = Intake(
            consumer_config(self.settings, self._base, group, static),
            topics,
            self._ownership,
            self._deliver,
            ids=ids,
            max_records=self.settings.batch_records,
            rebalanced=self._on_rebalance,
        )
        intake.connect()
        offsets = Offsets(consumer_config(self.settings, self._base, group), topics, ids)
        ids.changed()
        return _Clients(intake, offsets, self._open_outputs())

    async def _score(self, partitions: int, clients: _Clients, agent: Agent) -> None:
        loop = asyncio.get_running_loop()
        intake, offsets, outputs = clients
        delivery: Delivery = AtLeastOnce(outputs, intake)
        if isinstance(outputs, TransactionalOutputs):
            delivery = ExactlyOnce(outputs, intake)
        progress = None if self._progress is None else self._progress.of
        disowned = self._ownership.disowned
        committer = Committer(delivery, outputs, self._engine, self._store, self.metrics, disowned, progress)
        self._ownership.connect(intake, offsets, outputs, committer, partitions)
        self._intake, self._offsets, self._committer = intake, offsets, committer
        decoding = Decoding(self.part, self._schemas, self.metrics, partitions)
        self._scoring = Scoring(
            self.part,
            self._engine,
            self._ownership,
            intake,
            outputs,
            self._serving,
            self._gate,
            committer,
            self.metrics,
            self._tracer,
            decoding,
            goes_on_without_store=self.settings.on_store_away == "local",
            remote=RemoteReads(self.part, self._remote_store, partitions) if self.part.read else None,
            progress=self._progress,
        )
        self._agent = agent
        await agent.start()
        intake.begin(loop)
        self.vitals.started(self._scoring, self._committer)
        loops = self._commit_loop, self._vitals_loop, self._topics_loop, self._pulse_loop
        tasks = [loop.create_task(run()) for run in loops]
        for task in tasks:
            task.add_done_callback(self._on_task_done)
        await self._stop.wait()
        log.info("stopping")
        await intake.stop()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await agent.stop()
        await offsets.close()

    def _remote_store(self, owner: str) -> RedisStore:
        """What the owners of that name write, to be read."""
        self._remote_stores.append(store := RedisStore(self._redis_url, owner))
        return store

    def _open_outputs(self) -> Outputs:
        name = self.pipeline.topics.dead_letters
        largest = MAX_OUTPUT_BYTES if self.settings.embedded_broker else largest_record(self._base, name)
        if self.settings.guarantee == "at_least_once":
            outputs = Outputs(self.pipeline, producer_config(self._base), largest)
        else:
            name = f"{self.pipeline.name}-{self._instance.name}"
            config = transactional_config(self._base, name, self.settings.commit_interval)
            outputs = TransactionalOutputs(self.pipeline, config, largest)
        outputs.start()
        return outputs

    def _deliver(self, poll: Poll) -> None:
        self._agent.deliver(poll)

    async def _work(self, poll: Poll) -> None:
        try:
            if self._error is None:  # after a failure the state may hold a round that was never acknowledged
                await self._scoring.work(poll)
        except Exception as error:
            self.fail(error)
        finally:
            self._intake.done(poll)

    async def _commit_loop(self) -> None:
        commit_s, checkpoint_s = self.settings.commit_interval / 1000, self.settings.checkpoint_interval / 1000
        next_s = time.monotonic() + checkpoint_s
        while self._error is None:
            await asyncio.sleep(commit_s)
            now_s = time.monotonic()
            due = now_s > next_s - commit_s / 2 or self._committer.hurried  # the commit nearest to its time
            if due:
                next_s = max(next_s + checkpoint_s, now_s)
            try:
                await self._commit(checkpoint=due)
            except Void as void:
                async with self._gate:
                    await self._ownership.start_over(void)

    async def _commit(self, *, checkpoint: bool) -> None:
        async with self._gate:
            if self._error is not None:  # since: the state may hold a round that was never acknowledged
                return
            self._serving.switch()  # also while no events come
            await self._ownership.take_over_anew()
            boundary = await self._committer.mark(self._ownership.lanes, checkpoint=checkpoint)
        # Rounds go on from here; what they send is kept until what was sent before has been delivered, or committed.
        await self._committer.finish(boundary, give_up=lambda: bool(self._ownership.leaving) or self._stop.is_set())

    async def _vitals_loop(self) -> None:
        while True:
            await asyncio.sleep(_VITALS_S)
            self.vitals.measure(await self._intake.ends(list(self._ownership.lanes)))
            await self._ownership.check_guesses()
            if self._progress is not None:
                await self._look_for_ends(self._progress)

    async def _look_for_ends(self, progress: OwnerProgress) -> None:
        """Where all has been read and worked off, the state is as of now, however long ago the last record came."""
        for partition, lane in list(self._ownership.lanes.items()):
            asked_ms = progress.now_ms()
            try:
                _, (end,) = await self._offsets.bounds(partition)
            except KafkaException:
                return  # the next time
            if await self._intake.done_up_to(partition, end) and self._ownership.lanes.get(partition) is lane:
                progress.at_end(lane, asked_ms)

    async def _topics_loop(self) -> None:
        while True:
            await asyncio.sleep(_TOPICS_S)
            if topic := await self._offsets.another_topic():
                self.fail(WeirError(f"topic {topic} was deleted and made again: a new process reads it from the start"))

    async def _pulse_loop(self) -> None:
        while True:
            self._pulse.beat()
            await asyncio.sleep(BEAT_S)

    async def _until(self, what: Any, waiting: str) -> None:
        """Waits for `what`, or for the stop."""
        self.vitals.say(waiting)
        stop, task = asyncio.ensure_future(self._stop.wait()), asyncio.ensure_future(what)
        await asyncio.wait([stop, task], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if task.done():
            task.result()
        else:
            task.cancel()

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    def _on_rebalance(self, event: str, took_s: float) -> None:
        self.metrics.inc("weir_rebalances_total", event=event)
        self.metrics.observe("weir_rebalance_seconds", took_s, event=event)

    def _on_broker_error(self, error: KafkaError) -> None:
        self.metrics.inc("weir_broker_errors_total", code=error.name())
        self.vitals.broker_error(error)
        if is_fatal(error):
            log.error("kafka client failed for good", error=error.str())
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            log.warning("no Kafka broker can be reached, trying again")
        else:
            log.debug("kafka client", error=error.str())  # librdkafka's own lines say it


class _Opening(threading.Thread, Generic[T]):
    """A call that may wait for Kafka without end, and that the end of the process waits not for. `result`: its own."""

    def __init__(self, call: Callable[[], T]) -> None:
        super().__init__(name="opening", daemon=True)
        self._call, self._answer = call, Future[T]()
        self._answer.set_running_or_notify_cancel()
        self.result = asyncio.wrap_future(self._answer)
        self.result.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, also if nobody waits
        self.start()

    def run(self) -> None:
        try:
            self._answer.set_result(self._call())
        except BaseException as error:
            self._answer.set_exception(error)


def _import_agent() -> type[Agent]:
    from streams.agent import Agent

    end_of_imports()
    return Agent


def _providers(named: str) -> tuple[str, ...]:
    """ONNX Runtime's providers as the settings name them. Raises UsageError for what is not there."""
    if not named:
        return ()
    from models.runner import providers_of  # with ONNX Runtime, which else is imported beside the waiting

    try:
        return providers_of(named)
    except ModelRefused as error:
        raise UsageError(f"WEIR_ONNX_PROVIDERS={named}: {error}") from None


def run_worker(
    pipeline: Pipeline,
    settings: Settings,
    *,
    group: str | None = None,
    started: Callable[[str], None] | None = None,
) -> None:
    """Runs one worker until SIGTERM or SIGINT. Raises WeirError when it fails; the supervisor starts it again.

    group: the remote group that it is a worker of; None = it reads the sources. `started` is told the URL of its HTTP
    endpoint.
    """
    part = part_of(pipeline, group)
    with ExitStack() as stack:
        broker, redis_url = settings.broker, settings.redis
        if settings.embedded_broker or settings.embedded_redis:
            found = find_embedded(settings.data_dir)
            pair = found or stack.enter_context(start_embedded(settings.data_dir))
            broker = pair.broker if settings.embedded_broker else broker
            redis_url = pair.redis_url if settings.embedded_redis else redis_url
        asyncio.run(_serve(part, settings, broker, redis_url, started))


async def _serve(
    part: Part, settings: Settings, broker: str, redis_url: str, started: Callable[[str], None] | None
) -> None:
    try:
        worker = Worker(part, settings, broker, redis_url)
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, worker.stop)
        task = asyncio.ensure_future(worker.serve())
        await asyncio.sleep(0)
        if started is not None:
            started(worker.http.url)
        await task
    except StoreMisconfigured as error:
        raise UsageError(str(error)) from error
    except WeirError:
        raise
    except Exception as error:
        raise WeirError(f"the worker failed: {type(error).__name__}: {error}") from error
