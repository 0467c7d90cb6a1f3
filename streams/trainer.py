"""The trainer: reads retrain events, blocks and deployments, and does what follows of them, one thing after another.

It reads all partitions in the group `<pipeline>-trainer`: retrain events from where it has worked them off, which it
commits event by event; blocks and deployments from their beginning, for decisions are made anew from them. Of blocks
it commits, too, up to where it has dealt with them: for whoever waits for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections import deque
from collections.abc import Callable
from typing import IO, Any, NamedTuple

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from models import rollout as records
from models.errors import ModelError, ModelRefused
from monitors import block as blocks
from monitors import loop
from monitors.errors import RecordRefused
from monitors.loop import RetrainEvent
from monitors.metrics import Metrics
from streams import release
from streams.errors import WeirError
from streams.kafka import REQUEST_S, client_config, consumer_config, partition_counts
from streams.pipeline import Pipeline
from streams.retraining import Retraining
from streams.rollouts import Rollouts
from streams.routing import Routing
from streams.settings import Settings
from streams.tracing import Tracer, traceparent_of
from streams.training_folder import Done

log = structlog.get_logger(__name__)

_BATCH = 500
_PAUSE_S = (1.0, 30.0)
_BLOCK_S = 10.0
STATES = ("idle", "training", "gating", "shadow", "guard", "failing")
"""Of the metric weir_trainer_state."""


def trainer_group(pipeline: Pipeline) -> str:
    """The consumer group of a pipeline's trainer."""
    return f"{pipeline.name}-trainer"


class _Waiting(NamedTuple):
    """A record of the retrain topic, in its turn. event: None = not readable, it is passed over."""

    event: RetrainEvent | None
    partition: int
    offset: int
    came_s: float
    traceparent: bytes | None


class Trainer:
    """One a pipeline. Not for several threads.

    where: the pipeline, as on the command line. broker: host:port,… monotonic: seconds.
    """

    def __init__(
        self,
        where: str,
        pipeline: Pipeline,
        settings: Settings,
        broker: str,
        *,
        metrics: Metrics,
        monotonic: Callable[[], float] = time.monotonic,
        tracer: Tracer | None = None,
    ) -> None:
        self._pipeline, self._settings, self._metrics = pipeline, settings, metrics
        self._monotonic = monotonic
        base = client_config(settings, broker, f"weir-{pipeline.name}-trainer", self._broker_error)
        config = consumer_config(settings, base, trainer_group(pipeline))
        self._consumer = Consumer({**config, "fetch.wait.max.ms": 20} if settings.embedded_broker else config)
        self._admin = AdminClient(base)
        self.routing = Routing(pipeline, settings, broker, release.open_registry(settings), tracer)
        self.retraining = Retraining(where, pipeline, settings, self.routing, metrics)
        self.rollouts = Rollouts(pipeline, self.routing, metrics)
        self._events: deque[_Waiting] = deque()
        self._behind: set[tuple[str, int]] = set()
        self._offsets: dict[tuple[str, int], int] = {}
        self._blocks_read: dict[tuple[str, int], int] = {}
        self._again_s, self._pause_s = 0.0, _PAUSE_S[0]
        self._lock: IO[str] | None = None
        self.failing = ""
        """Why it tries again, if it does."""
        self.last: Done | None = None
        self.worked_off = 0

    @property
    def state(self) -> str:
        """idle, training, judging or rolling out."""
        phase = self.retraining.phase
        if phase != "idle":
            return phase
        return "rolling out" if self.rollouts.open else "idle"

    @property
    def status(self) -> dict[str, Any]:
        """What a person, or a replay that waits for it, asks."""
        event, current = self.retraining.event, self.routing.current
        return {
            "pipeline": self._pipeline.name,
            "state": self.state,
            "retrain": event.id if event else None,
            "waiting_events": len(self._events),
            "worked_off": self.worked_off,
            "failing": self.failing,
            "block": self.rollouts.last_block,
            "block_end": self.rollouts.last_end,
            "deployment": current.id or None,
            "champion": current.champion.version if current.champion else None,
            "candidate": current.candidate,
            "previous": current.previous,
            "last": {
                "retrain": self.last.retrain,
                "outcome": self.last.ending,
                "version": self.last.version,
                "reasons": list(self.last.reasons),
            }
            if self.last
            else None,
        }

    def connect(self) -> str:
        """Takes up all partitions; what it waits for where it cannot yet, else "". Raises BrokerUnavailable."""
        if not self._alone():
            return f"another trainer of {self._pipeline.name} works in this data directory"
        topics = self._pipeline.topics
        wanted = (topics.retrain, topics.blocks, topics.deployments)
        counts = partition_counts(self._admin, wanted, embedded=self._settings.embedded_broker)
        if missing := [topic for topic in wanted if not counts[topic]]:
            return f"waiting for topics that do not exist yet: {', '.join(missing)}"
        events = [TopicPartition(topics.retrain, p) for p in range(counts[topics.retrain])]
        try:
            # asked here: a consumer that is to find them by itself may miss the answer of a group that is new
            events = self._consumer.committed(events, timeout=REQUEST_S)
            if failed := next((found.error for found in events if found.error is not None), None):
                raise KafkaException(failed)
        except KafkaException as error:
            return f"the offsets of group {trainer_group(self._pipeline)} are not to be had: {error.args[0].str()}"
        assigned = [TopicPartition(e.topic, e.partition, max(e.offset, 0) or OFFSET_BEGINNING) for e in events]
        for topic in (topics.blocks, topics.deployments):
            assigned += [TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(counts[topic])]
        self._behind = {(t.topic, t.partition) for t in assigned}
        self._consumer.assign(assigned)
        return ""

    def poll(self, timeout_s: float) -> None:
        """Reads what is there, waiting at most `timeout_s`; then does what is due."""
        for message in self._consumer.consume(_BATCH, timeout_s):
            self._take(message)
        now = self._monotonic()
        if now < self._again_s:
            return
        try:
            while self._act(now):
                pass
        except (WeirError, ModelError, KafkaException, OSError) as error:
            said = str(error) or type(error).__name__
            if said != self.failing:
                log.warning("trying again", reason=said, in_s=self._pause_s)
            self.failing = said
            self._again_s = now + self._pause_s
            self._pause_s = min(2 * self._pause_s, _PAUSE_S[1])
        else:
            self.failing = ""
            if self.retraining.event is None:  # a training that fails anew is tried again later and later
                self._pause_s = _PAUSE_S[0]
        self._show()

    def close(self) -> None:
        """Stops what runs; the event is taken up at the next start."""
        with contextlib.suppress(OSError):
            self.retraining.stop()
        with contextlib.suppress(KafkaException):
            self._commit()
        self._consumer.close()
        if self._lock is not None:
            self._lock.close()

    def _act(self, now: float) -> bool:
        """One thing; False when nothing is due. Blocks are folded before an event that came with them is begun."""
        if self.routing.settle():
            self.rollouts.anew()
        if any(topic == self._pipeline.topics.blocks for topic, _ in self._behind):
            return False
        if self.rollouts.decide():
            return True
        self._offsets |= self._blocks_read
        self._blocks_read = {}
        self._commit()
        if self.retraining.event is not None:
            done = self.retraining.poll()
            if done is None:
                return False
            self.last = done
            self._worked_off()
            return True
        if not self._events:
            return False
        event, came_s = self._events[0].event, self._events[0].came_s
        if event is None:
            self._worked_off()
            return True
        if event.reason != "manual" and self.rollouts.last_end < event.time and now - came_s < _BLOCK_S:
            return False
        self.retraining.begin(event, self._events[0].traceparent)
        return True

    def _worked_off(self) -> None:
        done = self._events.popleft()
        self._offsets[self._pipeline.topics.retrain, done.partition] = done.offset + 1
        self.worked_off += done.event is not None
        self._commit()

    def _commit(self) -> None:
        """Commits what is worked off. Raises KafkaException: it is committed with the next."""
        if self._offsets:
            positions = [TopicPartition(topic, p, offset) for (topic, p), offset in self._offsets.items()]
            self._consumer.commit(offsets=positions, asynchronous=False)
            self._offsets = {}

    def _take(self, message: Any) -> None:
        topic, partition, error = message.topic(), message.partition(), message.error()
        topics = self._pipeline.topics
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                self._behind.discard((topic, partition))
            else:
                self._broker_error(error)
            return
        value = message.value()
        try:
            if topic == topics.retrain:
                event = None if value is None else loop.retrain_from_json(value)
                self._wait_for(event, message)
            elif value is None:
                return
            elif topic == topics.blocks:
                self._blocks_read[topic, partition] = message.offset() + 1
                self.rollouts.take(blocks.from_json(value))
            elif message.key() == self._pipeline.model.encode():
                self.routing.seen(records.from_json(value))
        except (RecordRefused, ModelRefused) as refused:
            log.error(
                "a record is not readable, it is left out", topic=topic, offset=message.offset(), why=str(refused)
            )
            if topic == topics.retrain:
                self._wait_for(None, message)

    def _wait_for(self, event: RetrainEvent | None, message: Any) -> None:
        at, header = (message.partition(), message.offset()), traceparent_of(message.headers())
        self._events.append(_Waiting(event, *at, self._monotonic(), header))

    def _alone(self) -> bool:
        """Whether this is the only trainer of the pipeline in its data directory; it stays so until it is closed."""
        if self._lock is None:
            folder = self._settings.data_dir / "training" / self._pipeline.name
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / ".lock").open("a")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.close()
                return False
            self._lock = lock
        return True

    def _show(self) -> None:
        state = {"judging": "gating", "rolling out": "shadow" if self.routing.current.candidate else "guard"}
        now = "failing" if self.failing else state.get(self.state, self.state)
        for name in STATES:
            self._metrics.set("weir_trainer_state", float(name == now), state=name)

    def _broker_error(self, error: KafkaError) -> None:
        self._metrics.inc("weir_broker_errors_total", code=error.name())
        log.warning("broker error", code=error.name(), reason=error.str())
