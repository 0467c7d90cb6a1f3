"""The scoring agent: a poll in, a round of work, predictions out, acknowledged.

Between the first `produce` of a round and its acknowledgement nothing is awaited, so that a commit covers exactly the
outputs of acknowledged rounds.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from functools import partial

import numpy as np
import structlog

from features.arrivals import scored_fields, scored_records, scored_times
from features.codec import CodecError
from features.engine import FeatureEngine, Features
from features.spec import Columns
from features.store import Refused, StoreUnavailable
from models.scorer import Scores
from monitors.conditions import bits_of, mask_of
from monitors.metrics import Metrics
from streams.balance import Balance
from streams.batches import Headers, Poll
from streams.breaker import Breaker
from streams.commit import Committer
from streams.contract import Marks
from streams.decoding import Decoding
from streams.deployments import Serving
from streams.inference import Inference
from streams.intake import Intake
from streams.lane import Take
from streams.outputs import Outputs
from streams.owner_progress import OwnerProgress
from streams.ownership import Ownership
from streams.parity import ParitySample
from streams.parts import Part
from streams.predictions import DEGRADED, PredictionEncoder
from streams.remote_reads import Reads, RemoteReads
from streams.rounds import ScoredRows, Work, assemble
from streams.sending_on import Onward, SendingOn
from streams.stopwatch import Stopwatch
from streams.tally import Tally
from streams.tracing import Spans, Stage, Tracer
from streams.transactions import Void
from streams.violations import Violations

log = structlog.get_logger(__name__)

_RELIEF_S, _RELIEFS = 1.0, 30
_BACKOFF_S = (0.05, 0.1, 0.25, 0.5, 1.0)


class Scoring:
    """Works on polls, one at a time.

    part: what of the pipeline is worked on here; remote: the groups that it reads, progress: how far its own is, for
    those who read it; None where that is not what it does.
    gate: held from the first look at the lanes to the acknowledgement.
    """

    def __init__(
        self,
        part: Part,
        engine: FeatureEngine,
        ownership: Ownership,
        intake: Intake,
        outputs: Outputs,
        serving: Serving,
        gate: asyncio.Lock,
        committer: Committer,
        metrics: Metrics,
        tracer: Tracer,
        decoding: Decoding,
        *,
        goes_on_without_store: bool,
        remote: RemoteReads | None = None,
        progress: OwnerProgress | None = None,
    ) -> None:
        pipeline = part.pipeline
        self._part, self._remote, self._progress = part, remote, progress
        self._onward = SendingOn(part, metrics) if part.sends_to else None
        self._goes_on_without_store = goes_on_without_store
        self._breaker = Breaker(time.monotonic)
        self.waiting = ""
        """What holds scoring up, in words; empty if nothing does."""
        self._pipeline, self._engine, self._ownership = pipeline, engine, ownership
        self._spec = pipeline.spec
        self._intake, self._outputs, self._serving = intake, outputs, serving
        self._inference = Inference(serving, metrics)
        self._committer = committer
        self._gate, self._metrics, self._tracer = gate, metrics, tracer
        self.decoding = decoding
        self._topics = [source.topic for source in pipeline.sources]
        self._encoder = PredictionEncoder(part.declared.lead.topic, pipeline.spec.names)
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
        self._decode_stage: Stage = ("decode", 0, 0)  # of the last poll, monotonic

    async def work(self, poll: Poll) -> None:
        """Decodes a poll, then works off all that the lanes give."""
        decoded = await self.decoding.of(poll.batches)
        self._decode_stage = ("decode", decoded.began_ns, decoded.ended_ns)
        async with self._gate:
            lanes = self._ownership.lanes
            for generation, batch in decoded.batches:
                lane = lanes.get(batch.partition)
                if lane is not None and lane.generation == generation:
                    lane.add(batch)
            for end in poll.ends:
                lane = lanes.get(end.partition)
                if lane is not None and lane.generation == end.generation:
                    lane.reached(end.stream, end.offset)
        await self._make_room()
        for tries in itertools.count():
            async with self._gate:
                try:
                    if await self._rounds():
                        break
                except Void as void:
                    await self._ownership.start_over(void)
            await asyncio.sleep(_BACKOFF_S[min(tries, len(_BACKOFF_S) - 1)])
        self._balance.keep(self._ownership.lanes)

    async def _make_room(self) -> None:
        """While new entities come faster than they can be written, waits for a checkpoint: memory has a bound.

        Not where the store takes nothing: entities that are here can be scored all the same. Where no checkpoint comes
        for another reason, half a minute at most.
        """
        for _ in range(_RELIEFS):
            lanes = self._ownership.lanes
            recovered = [p for p, lane in lanes.items() if lane.recovered and p not in self._engine.guessed]
            if self._committer.store_away or not self._engine.crowded(recovered):
                return
            self._metrics.inc("weir_cache_waits_total")
            await self._committer.relieve(_RELIEF_S)

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
            await self._room_for(len(work.dead))
            self._outputs.send_dead(work.dead)
            self._acknowledge(work)
            return True
        clock = Stopwatch()
        if not await self._load(work):
            return False
        fields: Columns = {}
        if self._onward is not None:
            scored = scored_records(work.columns)
            fields = scored_fields(self._spec, work.columns, scored)
        if not self._part.scores:
            return await self._pass_on(work, fields, clock)
        reads = None
        if self._remote is not None:
            reads = await self._read_remote(self._remote, fields, scored_times(work.columns, scored))
            if reads is None:
                return False
            clock.mark("remote")
        if work.replays:
            self._tally.replayed(self._engine.records())
        features = self._engine.process(work.columns, self._given(work.rows, reads))
        clock.mark("features")
        scores = await self._inference.score(features.matrix, work.rows.keys)
        clock.mark("inference")
        broken = self._broken(features) if self._rules and len(work.rows) else None
        if broken is not None and scores is not None:
            scores = scores.without(np.flatnonzero(broken & self._features_that_withhold))
        if reads is not None and scores is not None:
            withheld = np.flatnonzero(reads.withheld(len(work.rows)))
            before = scores.withheld if scores.withheld is not None else withheld[:0]
            scores = scores.without(np.union1d(before, withheld)) if len(withheld) else scores
        await self._room_for(len(work.rows) * (1 + len(self._part.sends_to)) + len(work.dead))
        values = self._predictions(work.rows, features, scores, broken, reads) if len(work.rows) else []
        traces, spans = self._traces(work, clock.wall_ns(work.polled_ns), scores)
        onward = self._records(work.rows, fields, features.aggregates, traces)
        clock.mark("encode")
        # From here to the acknowledgement nothing is awaited.
        if values:
            self._outputs.send(*self._in_partitions(work.rows, values, traces))
        if self._onward is not None:
            self._onward.send(onward, self._outputs)
        self._outputs.send_dead(work.dead)
        while self._inference.alerts:
            self._outputs.send_alert("model_failed", **self._inference.alerts.pop(0))
        self._acknowledge(work)
        self._outputs.then(partial(self._sent, clock, spans, self._decode_stage))
        if not work.replays:
            self._outputs.then(partial(self._tally.sent, len(work.rows), work.polled_ns))
        self._tally.round(work, features, scores, self._serving.deployment)
        if self.violations is not None:
            self.violations.features(broken)
        if reads is not None:
            reads.count(self._metrics)
        self._parity.round(work, features, self._ownership.lanes, self._engine.guessed, time.monotonic())
        return True

    async def _room_for(self, records: int) -> None:
        while not self._outputs.has_room(records):  # noqa: ASYNC110  nothing tells when it drains
            await asyncio.sleep(0.005)

    def _sent(self, clock: Stopwatch, spans: Spans, decode: Stage) -> None:
        """A round's outputs are handed over to the producer: how long each stage took."""
        clock.mark("produce")
        self._tracer.end(spans, [clock.wall(decode), *clock.stages()])
        for stage, seconds in clock.seconds():
            self._metrics.observe("weir_stage_seconds", seconds, stage=stage)

    async def _pass_on(self, work: Work, fields: Columns, clock: Stopwatch) -> bool:
        """A round of a part that does not score: its events are added, and go on if they are to be scored elsewhere."""
        if work.replays:
            self._tally.replayed(self._engine.records())
        folded = self._engine.fold(work.columns)
        clock.mark("features")
        await self._room_for(len(work.rows) + len(work.dead))
        traces, spans = self._traces(work, clock.wall_ns(work.polled_ns), None)
        onward = self._records(work.rows, fields, folded.aggregates, traces)
        clock.mark("encode")
        # From here to the acknowledgement nothing is awaited.
        if self._onward is not None:
            self._onward.send(onward, self._outputs)
        self._outputs.send_dead(work.dead)
        self._acknowledge(work)
        self._outputs.then(partial(self._sent, clock, spans, self._decode_stage))
        self._tally.folded(work, folded)
        self._parity.round(work, folded, self._ownership.lanes, self._engine.guessed, time.monotonic())
        return True

    def _records(
        self, rows: ScoredRows, fields: Columns, aggregates: np.ndarray, traces: Sequence[bytes | None] | None
    ) -> list[Onward]:
        return [] if self._onward is None else self._onward.records(rows, fields, aggregates, traces)

    def _given(self, rows: ScoredRows, reads: Reads | None) -> dict[str, np.ndarray]:
        """Values by aggregate of what is not kept here: carried along, or read."""
        given = {} if reads is None else reads.given
        if self._part.carried and rows.origin is not None:
            given |= {name: rows.origin.carried[:, place] for place, name in enumerate(self._part.carried)}
        return given

    async def _read_remote(self, remote: RemoteReads, fields: Columns, times: np.ndarray) -> Reads | None:
        """The remote groups of the scored events; None where the store does not answer."""
        if self._goes_on_without_store and not self._breaker.closed:
            return remote.unknown(len(times))
        try:
            found = await remote.read(fields, times) if len(times) else remote.unknown(0)
        except StoreUnavailable as error:
            self._metrics.inc("weir_store_errors_total", operation="remote")
            if self._goes_on_without_store:
                self._breaker.failed()
                return remote.unknown(len(times))
            self._wait(error)
            return None
        self._go_on()
        return found

    def _in_partitions(
        self, rows: ScoredRows, values: list[bytes], traces: Sequence[bytes | None] | None
    ) -> tuple[ScoredRows, list[bytes], Sequence[bytes | None] | None]:
        """Predictions of one partition together, where they are not: they go out by partition."""
        if self._part.group is None:
            return rows, values, traces
        order = np.argsort(rows.partitions, kind="stable")
        places = order.tolist()
        return rows.at(order), [values[i] for i in places], None if traces is None else [traces[i] for i in places]

    def _acknowledge(self, work: Work) -> None:
        for take in work.takes:
            self._ownership.lanes[take.partition].drop(take)
        if self._progress is not None:
            self._progress.worked_off(work, self._ownership.lanes)
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
            self._wait(error)
            return False
        except Refused as error:
            self._ownership.disowned(error.partition, str(error))
            return False
        except CodecError as error:
            for take in work.takes:
                self._ownership.disowned(take.partition, str(error), rebuild=True)
            return False
        if self._remote is None:  # else it is asked again in this round, and may not answer that
            self._go_on()
        return True

    def _go_on(self) -> None:
        """All that a round needs of the store is there."""
        self._breaker.succeeded()
        if self.waiting:
            log.info("the feature store answers again")
            self.waiting = ""

    def _wait(self, error: StoreUnavailable) -> None:
        """Scoring waits for the store, and says so once."""
        if not self.waiting:
            log.warning("the feature store does not answer, scoring waits", error=str(error))
        self.waiting = f"the feature store does not answer: {error}"

    def _broken(self, features: Features) -> np.ndarray:
        """int64 [n]: the rules that the features of each scored event break."""
        return bits_of(self._rules, features.logged, len(features.matrix), None)

    def _predictions(
        self,
        rows: ScoredRows,
        features: Features,
        scores: Scores | None,
        broken: np.ndarray | None,
        reads: Reads | None,
    ) -> list[bytes]:
        marks = [self._marks(rows), None if reads is None else reads.marks()]
        if rows.bits is not None or broken is not None:
            marks.append(self._rule_marks.of_rows(rows.bits, broken, len(rows)))
        given = [of_rows for of_rows in marks if of_rows is not None]
        joined = [b"".join(of_row) for of_row in zip(*given, strict=True)] if given else None
        return self._encoder.of_round(rows, features.logged, scores, self._serving.deployment, joined)

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
