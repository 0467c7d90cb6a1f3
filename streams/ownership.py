"""The partitions of a worker: taken over with their state, recovered, given up.

Taking over: raise the owner epoch, look at what the store holds, and either read on from there or begin a new
incarnation, in which groups whose state is known go on and the others are rebuilt from the log. Events before the
committed offsets only update features.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import structlog
from confluent_kafka import KafkaError, KafkaException

from features.engine import FeatureEngine
from features.store import Meta, Refused, RowKey, Store, StoreUnavailable
from monitors.metrics import Metrics
from streams.commit import Committer
from streams.errors import WeirError
from streams.intake import Intake
from streams.kafka import is_fatal
from streams.lane import Lane, Position
from streams.offsets import Offsets
from streams.outputs import Outputs
from streams.pipeline import Pipeline
from streams.pulse import Pulse
from streams.recovery import Plan, plan, rebuild_all, rebuild_at, rebuild_from, within_log
from streams.transactions import TransactionalOutputs, Void

log = structlog.get_logger(__name__)

T = TypeVar("T")
_BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)


class Ownership:
    """Keeps the lanes of the partitions that are this worker's; the intake's `Owner`.

    gate: held by whoever works on a round or a boundary; partitions leave between rounds only. session_s: after this
    long without a sign of life, Kafka gives the partitions to others.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        engine: FeatureEngine,
        store: Store,
        gate: asyncio.Lock,
        metrics: Metrics,
        *,
        can_rebuild: bool,
        session_s: float,
        pulse: Pulse,
        failed: Callable[[BaseException], None],
    ) -> None:
        self.lanes: dict[int, Lane] = {}
        self.leaving: set[int] = set()
        self.broken = False
        """The worker has failed: what is in memory may not be what was acknowledged, so nothing more is committed."""
        self.waiting = ""
        """What holds partitions up, in words; empty if nothing does."""
        self._pipeline, self._engine, self._store = pipeline, engine, store
        self._gate, self._metrics = gate, metrics
        self._can_rebuild = can_rebuild
        self._session_s, self._pulse = session_s, pulse
        self._failed = failed
        self._generations = itertools.count(1)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._began: dict[int, float] = {}
        self._anew: dict[int, tuple[str, bool]] = {}

    def connect(
        self, intake: Intake, offsets: Offsets, outputs: Outputs, committer: Committer, partitions: int
    ) -> None:
        """partitions: how many the sources' topics have."""
        self._intake, self._offsets, self._outputs, self._committer = intake, offsets, outputs, committer
        self._partitions = partitions

    @property
    def recovering(self) -> list[int]:
        """Partitions that are this worker's and whose state is not there yet."""
        return sorted(p for p in self._began if p not in self.lanes or not self.lanes[p].recovered)

    def assigned(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self._take_over(partition)

    async def revoked(self, partitions: Sequence[int]) -> None:
        self.leaving.update(partitions)
        async with self._gate:
            await self._cancel(partitions)
            await self._committer.written()
            if self.broken:
                self._forget(partitions)
                return
            try:
                if await self._committer.boundary(self.lanes, checkpoint=True, give_up=lambda: True):
                    await self._committer.written()
            except Void as void:
                self._forget(partitions)
                await self.start_over(void)
            self._forget(partitions)
        log.info("partitions given up", partitions=sorted(partitions))

    async def lost(self, partitions: Sequence[int]) -> None:
        self.leaving.update(partitions)
        async with self._gate:
            await self._cancel(partitions)
            self._forget(partitions)
            log.warning("partitions lost", partitions=sorted(partitions))
            await self.start_over(Void("partitions were lost"))

    async def start_over(self, void: Void) -> None:
        """What was sent since the last commit is void: every partition begins again where Kafka has committed.

        The gate is held. At least once, what was sent stays, and there is nothing to begin again; nor is there where
        it was done since, nor in a worker that has failed, whose producer may be another's by now.
        """
        if self.broken:
            return
        if not isinstance(self._outputs, TransactionalOutputs) or void.number not in (None, self._outputs.number):
            return
        self._metrics.inc("weir_transactions_aborted_total")
        partitions = sorted(self.lanes)
        if (stood_s := self._pulse.stood_still_s()) > self._session_s:
            self._failed(
                WeirError(
                    f"this process stood still for {stood_s:.1f} s, longer than its session of {self._session_s:.0f} s "
                    f"({void}): others have its partitions by now, and a new process takes its place"
                )
            )
            return
        log.warning("transaction void, beginning again from the commit", reason=str(void), partitions=partitions)
        await self._committer.written()
        async with self._committer.at_rest:
            await asyncio.to_thread(self._outputs.start_over)
        leaving = self.leaving & set(partitions)
        self._forget(partitions)
        self.leaving |= leaving
        for partition in partitions:
            if partition not in leaving:  # those are revoked by now: `revoked` waits for the gate
                self._take_over(partition)

    def out_of_range(self, partition: int, reason: str) -> None:
        self._anew[partition] = (reason, False)

    def committed_late(self) -> None:
        self._committer.commit_anew()

    def failed(self, error: BaseException) -> None:
        self._failed(error)

    def disowned(self, partition: int, reason: str, *, rebuild: bool = False) -> None:
        """The stored state is not what this worker wrote; see `take_over_anew`. `rebuild`: it cannot be used."""
        self._metrics.inc("weir_store_refusals_total")
        self._anew[partition] = (f"stored state refused: {reason}", rebuild)

    async def check_guesses(self) -> None:
        """Begins partitions anew whose state was guessed while the store was away, once it answers again."""
        guessed = [p for p in self._engine.guessed if p in self.lanes]
        if guessed:
            try:
                await self._store.read({guessed[0]: [RowKey(0, "")]})
            except StoreUnavailable:
                return
            for partition in guessed:
                reason = "the store answers again; what was guessed meanwhile is computed anew"
                self._anew[partition] = (reason, False)

    async def take_over_anew(self) -> None:
        """Begins such partitions again, from where they are committed. The gate is held."""
        anew, self._anew = self._anew, {}
        for partition, (reason, rebuild) in anew.items():
            lane = self.lanes.get(partition)
            if lane is None or partition in self.leaving:
                continue
            log.warning("taking the partition over anew", partition=partition, reason=reason)
            await self._committer.boundary(self.lanes, checkpoint=False, give_up=lambda: True)
            self._forget([partition])
            self._take_over(partition, reason if rebuild else "")

    def settle(self) -> None:
        """Notes the lanes that have recovered since the last call; to be called after rounds."""
        for partition in [p for p in self._began if p in self.lanes and self.lanes[p].recovered]:
            seconds = time.perf_counter() - self._began.pop(partition)
            self._intake.recovered(partition)
            self._metrics.observe("weir_recovery_seconds", seconds)
            log.info("partition ready", partition=partition, recovery_s=round(seconds, 3))

    def _take_over(self, partition: int, unusable: str = "") -> None:
        self.leaving.discard(partition)
        self._began[partition] = time.perf_counter()
        task = asyncio.get_running_loop().create_task(self._recover(partition, unusable))
        self._tasks[partition] = task
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    async def _cancel(self, partitions: Sequence[int]) -> None:
        tasks = [task for p in partitions if (task := self._tasks.pop(p, None)) is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _forget(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self.lanes.pop(partition, None)
            self._began.pop(partition, None)
            self._engine.release(partition)
            self._committer.forget(partition)
            self.leaving.discard(partition)
            for source in self._pipeline.sources:
                self._metrics.drop("weir_consumer_lag_records", topic=source.topic, partition=partition)

    async def _recover(self, partition: int, unusable: str) -> None:
        found = await self._patiently(lambda: self._offsets.committed(partition))
        start, committed = await self._patiently(lambda: self._prepare(partition, found, unusable))
        lane = Lane(partition, start, committed, next(self._generations))
        self.lanes[partition] = lane
        self._committer.taken_over(partition, committed)
        self._intake.start(partition, start, lane.generation)
        self.settle()

    async def _prepare(
        self, partition: int, committed: list[Position], unusable: str
    ) -> tuple[list[int], list[Position]]:
        """Makes the partition's store record and the engine ready.

        Returns where to read from, and up to where events were scored, by stream. unusable: why what is stored must
        not be used; empty where it may.
        """
        low, high = await self._offsets.bounds(partition)
        offsets = [p.next_offset for p in committed]
        if any(k > end for k, end in zip(offsets, high, strict=True)):
            log.warning(
                "committed offsets lie beyond the log, which is another: it is read from its beginning",
                partition=partition,
                committed=offsets,
                ends=high,
            )
        for source, k, oldest in zip(self._pipeline.sources, offsets, low, strict=True):
            if k < oldest:
                self._metrics.inc("weir_expired_records_total", oldest - k, source=source.topic)
                log.error(
                    "records were deleted from Kafka before they were read: raise the topic's retention",
                    topic=source.topic,
                    partition=partition,
                    records=oldest - k,
                )
        committed = within_log(committed, low, high)
        offsets = [p.next_offset for p in committed]
        if not self._engine.spec.kept:
            self._engine.own(partition, Meta(0, 0, self._engine.spec.state_hash, ()), empty=True)
            return offsets, committed
        epoch, meta = await self._store.claim(partition, self._partitions)
        hashes = {kind.number: kind.hash for kind in self._engine.layout.kinds}
        found = rebuild_all(hashes, unusable) if unusable else plan(meta, hashes, offsets, low)
        if meta is not None and found.resumes:
            self._engine.own(partition, meta, committed=tuple(offsets))
            start = found.start(())
            behind = sum(offsets) - sum(start)
            log.info("state found in the store", partition=partition, incarnation=meta.incarnation, replay=behind)
            return start, committed
        start = found.start(await self._rebuild_start(partition, committed, low, found) if found.rebuilt else ())
        if found.kept:
            names = self._named(found.kept)
            log.info("state of some features found in the store", partition=partition, groups=names)
        elif meta is not None and not any(k > oldest for k, oldest in zip(offsets, low, strict=True)):
            reasons = list(dict.fromkeys(found.rebuilt.values()))
            log.warning("new incarnation: feature state is empty", partition=partition, reason="; ".join(reasons))
        fresh = found.begun(epoch, self._engine.spec.state_hash, hashes, start, offsets)
        await self._store.begin(partition, fresh)
        self._engine.own(partition, fresh, empty=True, committed=tuple(offsets) if found.kept else None)
        return start, committed

    def _named(self, numbers: Iterable[int]) -> list[str]:
        """Groups by the fields of their entity."""
        wanted = set(numbers)
        return ["_".join(kind.fields) for kind in self._engine.layout.kinds if kind.number in wanted]

    async def _rebuild_start(
        self, partition: int, committed: list[Position], low: list[int], found: Plan
    ) -> list[int]:
        """Where a rebuild of the plan's groups begins to read, by stream."""
        offsets = [p.next_offset for p in committed]
        if all(k <= oldest for k, oldest in zip(offsets, low, strict=True)):
            return offsets  # nothing has been read before
        if not self._can_rebuild:
            lost = "feature state is lost: the embedded broker keeps no log to rebuild it from"
            log.error(lost, partition=partition, groups=self._named(found.rebuilt))
            return offsets
        skews = [source.max_skew_ms for source in self._pipeline.sources]
        reach_ms = max(kind.reach_ms for kind in self._engine.layout.kinds if kind.number in found.rebuilt)
        times = rebuild_from(committed, reach_ms, skews)
        since = None if times is None else await self._offsets.since(partition, times)
        start = rebuild_at(committed, low, since)
        log.warning(
            "new incarnation: feature state is rebuilt from the log",
            partition=partition,
            groups=self._named(found.rebuilt),
            reason="; ".join(dict.fromkeys(found.rebuilt.values())),
            records=sum(offsets) - sum(start),
        )
        return start

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Tries until the store and the broker answer, saying once what it waits for."""
        for tries in itertools.count():
            try:
                found = await attempt()
                self.waiting = ""
                return found
            except StoreUnavailable as error:
                self._metrics.inc("weir_store_errors_total", operation="claim")
                waiting = f"the feature store does not answer: {error}"
            except Refused as error:  # another worker claimed it since; whoever has the partition claims last
                waiting = f"the feature store refused this worker: {error}"
            except KafkaException as error:
                if is_fatal(error.args[0]):
                    raise
                waiting = f"Kafka does not answer: {error.args[0].str()}"
                if error.args[0].code() in (KafkaError.UNSTABLE_OFFSET_COMMIT, KafkaError._TIMED_OUT):
                    waiting = "a transaction of the worker before has not ended yet, or Kafka does not answer"
            if waiting != self.waiting:
                log.warning(waiting)
                self.waiting = waiting
            await asyncio.sleep(_BACKOFF_S[min(tries, len(_BACKOFF_S) - 1)])
        raise AssertionError
