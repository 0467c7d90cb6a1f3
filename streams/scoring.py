"""The scoring agent: a poll in, a round of work, predictions out, acknowledged.

Between the first `produce` of a round and its acknowledgement nothing is awaited, so that a commit covers exactly the
outputs of acknowledged rounds.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence

import numpy as np
import structlog

from features.codec import CodecError
from features.engine import FeatureEngine, Features
from features.partitioner import partition_of
from features.store import Refused, StoreUnavailable
from models.scorer import Scores
from monitors.conditions import bits_of, mask_of
from monitors.metrics import Metrics
from streams.balance import Balance
from streams.batches import Headers, Poll, RecordBatch
from streams.breaker import Breaker
from streams.contract import Marks
from streams.decode import decoder_of
from streams.decoded import Decoded
from streams.deployments import Serving
from streams.inference import Inference
from streams.intake import Intake
from streams.lane import Take
from streams.outputs import Outputs
from streams.ownership import Ownership
from streams.parity import ParitySample
from streams.pipeline import Pipeline
from streams.predictions import DEGRADED, PredictionEncoder
from streams.rounds import ScoredRows, Work, assemble
from streams.schemas.awaited import AwaitedSchemas
from streams.stopwatch import Stopwatch
from streams.tally import Tally
from streams.tracing import Spans, Stage, Tracer
from streams.transactions import Void
from streams.violations import Violations

log = structlog.get_logger(__name__)

_BACKOFF_S = (0.05, 0.1, 0.25, 0.5, 1.0)
_SAMPLE = 100


class Scoring:
    """Works on polls, one at a time.

    gate: held from the first look at the lanes to the acknowledgement; sending: while outputs are sent.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        engine: FeatureEngine,
        ownership: Ownership,
        intake: Intake,
        outputs: Outputs,
        serving: Serving,
        gate: asyncio.Lock,
        sending: asyncio.Lock,
        metrics: Metrics,
        tracer: Tracer,
        partitions: int,
        *,
        schemas: AwaitedSchemas,
        goes_on_without_store: bool,
    ) -> None:
        self._goes_on_without_store = goes_on_without_store
        self._breaker = Breaker(time.monotonic)
        self.waiting = ""
        """What holds scoring up, in words; empty if nothing does."""
        self._pipeline, self._engine, self._ownership = pipeline, engine, ownership
        self._intake, self._outputs, self._serving = intake, outputs, serving
        self._inference = Inference(serving, metrics)
        self._gate, self._sending, self._metrics, self._tracer = gate, sending, metrics, tracer
        self._topics = [source.topic for source in pipeline.sources]
        self.schemas = schemas
        self._decoders = [
            decoder_of(source, s, pipeline.spec, codec)
            for s, (source, codec) in enumerate(zip(pipeline.sources, schemas.codecs, strict=True))
        ]
        self._encoder = PredictionEncoder(self._topics[0], pipeline.spec.names)
        self._rules = pipeline.rules
        self._features_that_withhold = mask_of(pipeline.rules, "withhold")
        self._rule_marks = Marks(pipeline.lead.conditions, pipeline.rules)
        self.violations: Violations | None = None
        """Counts what breaks rules; None where nothing has rules."""
        conditions = [source.conditions for source in pipeline.sources]
        if any(conditions) or self._rules:
            self.violations = Violations(metrics, self._topics, conditions, self._rules)
        self._tally = Tally(metrics, self._topics, self.violations)
        self._parity = ParitySample(pipeline, metrics)
        self._balance = Balance(intake, self._topics, metrics)
        self._partitions = partitions
        self._seen: set[tuple[int, int]] = set()
        self._decoding: Stage = ("decode", 0, 0)  # of the last poll, monotonic

    async def work(self, poll: Poll) -> None:
        """Decodes a poll, then works off all that the lanes give."""
        await self.schemas.ready(poll.batches)
        began_ns = time.monotonic_ns()
        decoded = [(batch.generation, self._decode(batch)) for batch in poll.batches]
        self._decoding = ("decode", began_ns, time.monotonic_ns())
        async with self._gate:
            lanes = self._ownership.lanes
            for generation, batch in decoded:
                lane = lanes.get(batch.partition)
                if lane is not None and lane.generation == generation:
                    lane.add(batch)
            for end in poll.ends:
                lane = lanes.get(end.partition)
                if lane is not None and lane.generation == end.generation:
                    lane.reached(end.stream, end.offset)
        for tries in itertools.count():
            async with self._gate:
                try:
                    if await self._rounds():
                        break
                except Void as void:
                    await self._ownership.start_over(void)
            await asyncio.sleep(_BACKOFF_S[min(tries, len(_BACKOFF_S) - 1)])
        self._balance.keep(self._ownership.lanes)

    def _decode(self, batch: RecordBatch) -> Decoded:
        began = time.perf_counter()
        if (batch.stream, batch.partition) not in self._seen:
            self._check_partitioner(batch)
        decoded = self._decoders[batch.stream].decode(batch)
        self._metrics.observe("weir_stage_seconds", time.perf_counter() - began, stage="decode")
        return decoded

    def _check_partitioner(self, batch: RecordBatch) -> None:
        """Whoever reads features by key must know where the producers put it."""
        self._seen.add((batch.stream, batch.partition))
        source = self._pipeline.sources[batch.stream]
        strays = sum(
            partition_of(key, self._partitions, source.partitioner) != batch.partition
            for key in batch.keys[:_SAMPLE]
            if key is not None
        )
        if strays:
            log.warning(
                "records are not in the partitions of their keys: reads by key will miss them",
                source=source.topic,
                partition=batch.partition,
                strays=f"{strays} of {min(len(batch), _SAMPLE)}",
                declared=source.partitioner,
                mend='declare Source(partitioner="murmur2") for Java producers, "crc32" for librdkafka\'s',
            )

    async def _rounds(self) -> bool:
        """Rounds until the lanes are empty; False if the store does not answer. Nothing is lost: lanes keep it."""
        await self._ownership.take_over_anew()
        while takes := [take for lane in self._ownership.lanes.values() if (take := lane.take()) is not None]:
            # A round replays or scores: what is counted of a round is counted once.
            replays = [replay for take in takes if (replay := take.replay()) is not None]
            if not await self._round(replays or takes):
                return False
            self._ownership.settle()
        self._ownership.settle()
        return True

    async def _round(self, takes: list[Take]) -> bool:
        work = assemble(takes, len(self._topics))
        self._serving.switch()
        if not work.records:
            async with self._sending:
                self._outputs.send_dead(work.dead)
                self._acknowledge(work)
            return True
        clock = Stopwatch()
        if not await self._load(work):
            return False
        if work.replays:
            self._tally.replayed(self._engine.records())
        features = self._engine.process(work.columns)
        clock.mark("features")
        scores = await self._inference.score(features.matrix, work.rows.keys)
        clock.mark("inference")
        broken = self._broken(features) if self._rules and len(work.rows) else None
        if broken is not None and scores is not None:
            scores = scores.without(np.flatnonzero(broken & self._features_that_withhold))
        while not self._outputs.has_room(len(work.rows)):  # noqa: ASYNC110  nothing tells when it drains
            await asyncio.sleep(0.005)
        values = self._predictions(work.rows, features, scores, broken) if len(work.rows) else []
        traces, spans = self._traces(work, clock.wall_ns(work.polled_ns), scores)
        clock.mark("encode")
        async with self._sending:  # nothing is awaited inside
            if values:
                self._outputs.send(work.rows, values, traces)
            self._outputs.send_dead(work.dead)
            while self._inference.alerts:
                self._outputs.send_alert("model_failed", **self._inference.alerts.pop(0))
            self._acknowledge(work)
        clock.mark("produce")
        self._tracer.end(spans, [clock.wall(self._decoding), *clock.stages()])
        for stage, seconds in clock.seconds():
            self._metrics.observe("weir_stage_seconds", seconds, stage=stage)
        self._tally.round(work, features, scores, self._serving.deployment)
        if self.violations is not None:
            self.violations.features(broken)
        self._parity.round(work, features, self._ownership.lanes, self._engine.guessed, time.monotonic())
        return True

    def _acknowledge(self, work: Work) -> None:
        for take in work.takes:
            self._ownership.lanes[take.partition].drop(take)
        self._tally.acknowledged(work)

    async def _load(self, work: Work) -> bool:
        if self._goes_on_without_store and not self._breaker.closed:
            await self._engine.load(work.columns, without_store=True)
            return True
        try:
            await self._engine.load(work.columns)
        except StoreUnavailable as error:
            self._metrics.inc("weir_store_errors_total", operation="load")
            if self._goes_on_without_store:
                log.warning("the feature store does not answer, going on from local state", error=str(error))
                self._breaker.failed()
                await self._engine.load(work.columns, without_store=True)
                return True
            if not self.waiting:
                log.warning("the feature store does not answer, scoring waits", error=str(error))
            self.waiting = f"the feature store does not answer: {error}"
            return False
        except Refused as error:
            self._ownership.disowned(error.partition, str(error))
            return False
        except CodecError as error:
            for take in work.takes:
                self._ownership.disowned(take.partition, str(error), rebuild=True)
            return False
        self._breaker.succeeded()
        if self.waiting:
            log.info("the feature store answers again")
            self.waiting = ""
        return True

    def _broken(self, features: Features) -> np.ndarray:
        """int64 [n]: the rules that the features of each scored event break."""
        return bits_of(self._rules, features.logged, len(features.matrix), None)

    def _predictions(
        self, rows: ScoredRows, features: Features, scores: Scores | None, broken: np.ndarray | None
    ) -> list[bytes]:
        deployment = self._serving.deployment
        marks = self._marks(rows)
        if rows.bits is not None or broken is not None:
            found = self._rule_marks.of_rows(rows.bits, broken, len(rows))
            if marks is None or found is None:
                marks = marks or found
            else:
                marks = [a + b for a, b in zip(marks, found, strict=True)]
        return self._encoder.of_round(rows, features.logged, scores, deployment, marks)

    def _marks(self, rows: ScoredRows) -> list[bytes] | None:
        guessed = self._engine.guessed
        if not guessed:
            return None
        marks = [DEGRADED if partition in guessed else b"" for partition in rows.partitions.tolist()]
        self._metrics.inc("weir_degraded_total", len(marks) - marks.count(b""))
        return marks

    def _traces(
        self, work: Work, began_ns: int, scores: Scores | None
    ) -> tuple[Sequence[bytes | None] | None, Spans]:
        rows = work.rows
        if rows.headers is None:
            return None, Spans()
        parents = [_traceparent(row) if row else None for row in rows.headers]
        if not any(parents):
            return None, Spans()

        def attributes(i: int) -> dict[str, str | int]:
            return {
                "messaging.system": "kafka",
                "messaging.source.name": self._topics[0],
                "messaging.kafka.partition": int(rows.partitions[i]),
                "messaging.kafka.message.offset": int(rows.offsets[i]),
                "weir.model.version": scores.arms[scores.arm[i]][1] if scores and scores.arms else "",
            }

        return self._tracer.begin(parents, began_ns, attributes)


def _traceparent(headers: Headers) -> bytes | None:
    return next((value for name, value in headers if name == "traceparent"), None)
