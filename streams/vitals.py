"""How a worker is: measured once a second, and told to whoever asks over HTTP."""

from __future__ import annotations

import os
import time
from typing import Any

from confluent_kafka import KafkaError

from features.engine import FeatureEngine
from monitors.metrics import Metrics
from streams.commit import Committer
from streams.deployments import Serving
from streams.ownership import Ownership
from streams.pipeline import Pipeline
from streams.scoring import Scoring

_STALLED_S = 60.0
_DOWN_S = 5.0  # librdkafka says every two seconds that no broker is there

Ends = dict[tuple[int, int], int]
"""By (stream, partition), the offset at which all that is there will have been worked off, where that is known."""

Lag = dict[tuple[int, int], int]
"""Records by (stream, partition)."""


class Vitals:
    """Health, status and gauges of one worker."""

    def __init__(
        self, pipeline: Pipeline, engine: FeatureEngine, ownership: Ownership, serving: Serving, metrics: Metrics
    ) -> None:
        self._pipeline, self._engine = pipeline, engine
        self._ownership, self._serving, self._metrics = ownership, serving, metrics
        self._scoring: Scoring | None = None
        self._committer: Committer | None = None
        self._down: tuple[float, str] | None = None
        self._waiting = "starting"
        self._ends: Ends = {}
        self._positions: tuple[int, ...] = ()
        self._progress_s = time.monotonic()

    def say(self, waiting: str) -> None:
        """What the start waits for, in words."""
        self._waiting = waiting

    def started(self, scoring: Scoring, committer: Committer) -> None:
        """The worker has joined its group."""
        self._scoring, self._committer, self._waiting = scoring, committer, ""

    def broker_error(self, error: KafkaError) -> None:
        """A client of this worker met an error; may be called in any thread."""
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._down = time.monotonic(), error.str()

    def measure(self, ends: Ends) -> None:
        """Sets the gauges, and notes whether offsets have moved."""
        self._ends = ends
        metrics, lanes = self._metrics, self._ownership.lanes
        topics = [source.topic for source in self._pipeline.sources]
        lag = self._lag()
        held = self._held(lag)
        for topic in topics:
            metrics.set("weir_owned_partitions", len(lanes), topic=topic)
        for (stream, partition), records in lag.items():
            metrics.set("weir_consumer_lag_records", records, topic=topics[stream], partition=partition)
        metrics.drop("weir_watermark_timestamp_seconds")  # partitions that have left have none
        for partition, lane in lanes.items():
            for topic, position in zip(topics, lane.positions, strict=True):
                if position.watermark >= 0:
                    seconds = position.watermark / 1000
                    metrics.set("weir_watermark_timestamp_seconds", seconds, source=topic, partition=partition)
        for entity, stats in self._engine.stats().items():
            metrics.set("weir_cache_rows", stats.rows, entity=entity)
            metrics.set("weir_cache_hits_total", stats.hits, entity=entity)
            metrics.set("weir_cache_misses_total", stats.misses, entity=entity)
            metrics.set("weir_cache_evictions_total", stats.evictions, entity=entity)
            metrics.set("weir_cache_over_bound_rows", stats.over_bound, entity=entity)
        if self._scoring is not None and (violations := self._scoring.violations) is not None:
            violations.look(time.monotonic(), listening=bool(lanes) and self._behind(lag) == sum(held.values()))
        positions = tuple(p.next_offset for lane in lanes.values() for p in lane.positions)
        if positions != self._positions or all(records == held.get(at, 0) for at, records in lag.items()):
            self._positions, self._progress_s = positions, time.monotonic()

    def status(self) -> dict[str, Any]:
        """What GET /status answers."""
        lanes, deployment, lag = self._ownership.lanes, self._serving.deployment, self._lag()
        return {
            "pipeline": self._pipeline.name,
            "pid": os.getpid(),
            "partitions": sorted(lanes),
            "recovering": self._ownership.recovering,
            "deployment": deployment.id if deployment else None,
            "versions": self._serving.versions(),
            "refused": self._serving.refused or None,
            "degraded": sorted(self._engine.guessed),
            "offsets": {
                source.topic: {p: lane.positions[s].next_offset for p, lane in lanes.items()}
                for s, source in enumerate(self._pipeline.sources)
            },
            "lag": self._behind(lag) if self._scoring else None,
            "held": sum(self._held(lag).values()),
            "predictions": self._metrics.total("weir_predictions_total"),
            "unscored": self._metrics.total("weir_unscored_total"),
            "dead_letters": self._metrics.total("weir_dead_letters_total"),
        }

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Ready, and if not, why."""
        down = self._down is not None and time.monotonic() - self._down[0] < _DOWN_S and self._down[1]
        scoring, committer = self._scoring, self._committer
        reasons = {
            "worker": self._waiting,
            "broker": down or (committer.broker_away if committer else ""),
            "store": self._ownership.waiting
            or (scoring.waiting if scoring else "")
            or (committer.store_away if committer else ""),
            "schemas": scoring.decoding.schemas.waiting if scoring else "",
            "recovering": self._ownership.recovering,
        }
        found = {name: reason for name, reason in reasons.items() if reason}
        return self._scoring is not None and not found, found

    def live(self) -> dict[str, Any]:
        """Liveness is offset progress while there is lag; one that waits for a server or another stream is alive."""
        stalled_s = time.monotonic() - self._progress_s
        ready, _ = self.ready()
        return {"live": not (ready and stalled_s > _STALLED_S), "stalled_s": round(stalled_s, 1)}

    def _behind(self, lag: Lag) -> int | None:
        """Records that are there and not worked off, of all that this worker owns; None while that is not known."""
        streams = range(len(self._pipeline.sources))
        owned = {*self._ownership.lanes, *self._ownership.recovering}
        return sum(lag.values()) if all((s, p) in lag for p in owned for s in streams) else None

    def _lag(self) -> Lag:
        """What has come since the last measurement counts as soon as it has its place."""
        lanes = self._ownership.lanes
        return {
            (s, p): max(end - lanes[p].positions[s].next_offset, lanes[p].buffered[s])
            for (s, p), end in self._ends.items()
            if p in lanes
        }

    def _held(self, lag: Lag) -> Lag:
        """Of the lag, what has been read and waits for its order beside other streams, where it is all of it."""
        lanes = self._ownership.lanes
        return {
            (s, p): records
            for (s, p), records in lag.items()
            if lanes[p].held and lanes[p].received(s) >= self._ends[s, p]
        }
