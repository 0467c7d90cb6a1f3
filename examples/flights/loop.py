"""What the loop does in a run: its drifts, retrain events, promotions and rejections, and whether it is at rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from models import rollout
from models.rollout import Deployment
from monitors.loop import Drift, RetrainEvent
from monitors.report import Happening
from streams.kafka import client_config, consumer_config, partition_counts
from streams.loop_folds import Outcome
from streams.pipeline import Pipeline
from streams.settings import Settings

_ENDINGS = frozenset({"champion", "candidate", "rejected"})
_PROMOTIONS = frozenset({"champion", "promoted"})


class Alert(msgspec.Struct, frozen=True):
    """A record of `<pipeline>.alerts`: what the trainer has done. time: of the event or block behind it, ms."""

    kind: str
    time: int
    id: str = ""
    retrain: str | None = None
    version: str | None = None
    reasons: tuple[str, ...] = ()


@dataclass
class Loop:
    """Everything that happened, in its order. Fed by the monitor, and by what the trainer publishes."""

    drifts: list[Drift] = field(default_factory=list)
    retrains: list[RetrainEvent] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    deployments: list[Deployment] = field(default_factory=list)
    closed_ms: int = 0
    """End of the last block, ms of event time."""
    _unsettled: bool = False

    def on_outcome(self, outcome: Outcome) -> list[str]:
        """A block was published. Returns what there is to say of it."""
        self.closed_ms = max(self.closed_ms, outcome.block.end)
        self.drifts += outcome.drifts
        self.retrains += outcome.retrains
        self._unsettled = self._unsettled or bool(outcome.retrains)
        said = [f"{_day(d.time)}: {d.signal} drifts ({d.detector})" for d in outcome.drifts]
        return said + [f"{_day(e.time)}: retrain, {_why(e)}; {e.labels:,} labels" for e in outcome.retrains]

    def on_records(self, alerts: Iterable[Alert], deployments: Iterable[Deployment]) -> list[str]:
        """Records of the two topics, some perhaps for the second time. Returns what there is to say of them."""
        said = []
        for alert in alerts:
            if (alert.kind, alert.id) not in {(a.kind, a.id) for a in self.alerts}:
                self.alerts.append(alert)
                said += _told(alert)
        known = {deployment.id for deployment in self.deployments}
        for deployment in deployments:
            if deployment.id not in known:
                known.add(deployment.id)
                self.deployments.append(deployment)
        return said

    @property
    def open(self) -> RetrainEvent | None:
        """The newest retrain event, if it is not worked off."""
        if not self.retrains:
            return None
        ended = {alert.retrain for alert in self.alerts if alert.kind in _ENDINGS}
        return None if self.retrains[-1].id in ended else self.retrains[-1]

    @property
    def moves(self) -> bool:
        """Whether a block has brought, or may bring, something that must take effect before the replay goes on."""
        return self._unsettled

    def settled(self, trainer: Mapping[str, Any] | None, worker: Mapping[str, Any] | None) -> bool:
        """Whether the trainer has dealt with every block and event, and the worker scores with what came of it.

        trainer, worker: what they answer on /status; None = nothing.
        """
        if trainer is None or worker is None or trainer["block_end"] < self.closed_ms or self.open is not None:
            return False
        if trainer["retrain"] or trainer["waiting_events"] or worker["deployment"] != trainer["deployment"]:
            return False
        if trainer["deployment"] and trainer["deployment"] not in {d.id for d in self.deployments}:
            return False
        self._unsettled = bool(trainer["candidate"] or trainer["previous"])
        return True

    @property
    def champion(self) -> rollout.Version | None:
        return self.deployments[-1].champion if self.deployments else None

    @property
    def state(self) -> str:
        """In a word or two, for the live view."""
        if (event := self.open) is not None:
            return f"training ({_why(event)})"
        current = self.deployments[-1] if self.deployments else None
        if current is None or current.champion is None:
            return "no model yet"
        if current.candidate is not None:
            return f"{current.candidate} is a shadow"
        return f"{current.champion.version} under guard" if current.previous is not None else "watching"

    @property
    def promotions(self) -> list[Alert]:
        """How versions became champion, the first one included."""
        return [alert for alert in self.alerts if alert.kind in _PROMOTIONS]

    def of(self, kind: str) -> list[Alert]:
        return [alert for alert in self.alerts if alert.kind == kind]

    def as_json(self) -> dict[str, Any]:
        """The loop's part of what `weir demo --json` prints. Dates are of event time."""
        reasons = {event.id: event.reason for event in self.retrains}
        return {
            "drift_events": len(self.drifts),
            "retrain_events": len(self.retrains),
            "promotions": [
                {
                    "version": a.version,
                    "date": _date(a.time),
                    "retrain": a.retrain,
                    "reason": reasons.get(a.retrain or ""),
                }
                for a in self.promotions
            ],
            "rejections": len(self.of("rejected")),
            "rollbacks": len(self.of("rolled_back")),
            "drifts": [
                {
                    "date": _date(d.time),
                    "signal": d.signal,
                    "detector": d.detector,
                    "severity": round(d.severity, 3),
                    "id": d.id,
                }
                for d in self.drifts
            ],
            "retrains": [
                {"date": _date(e.time), "reason": e.reason, "labels": e.labels, "drifts": len(e.drifts), "id": e.id}
                for e in self.retrains
            ],
        }

    def timeline(self) -> list[Happening]:
        """For the report, by time."""
        found = [Happening(d.time, "drift", d.signal, f"{d.detector}, severity {d.severity:.2f}") for d in self.drifts]
        found += [Happening(e.time, "retrain", _why(e), f"{e.labels:,} labels") for e in self.retrains]
        kinds = {"champion": "promotion", "promoted": "promotion", "rejected": "rejection", "rolled_back": "rejection"}
        found += [
            Happening(
                a.time, kinds[a.kind], f"version {a.version}" if a.version else "no version", "; ".join(a.reasons)
            )
            for a in self.alerts
            if a.kind in kinds
        ]
        return sorted(found, key=lambda happening: happening.time)


class Following:
    """Reads the alerts and deployments of a pipeline from their beginning, as they come."""

    def __init__(self, pipeline: Pipeline, settings: Settings, broker: str) -> None:
        base = client_config(settings, broker, f"{pipeline.name}-demo", lambda _: None)
        config = {**consumer_config(settings, base, f"{pipeline.name}-demo"), "fetch.wait.max.ms": 20}
        self._alerts, self._model = pipeline.topics.alerts, pipeline.model.encode()
        topics = (self._alerts, pipeline.topics.deployments)
        counts = partition_counts(AdminClient(base), topics, embedded=settings.embedded_broker)
        self._consumer = Consumer(config)
        self._consumer.assign([TopicPartition(t, p, OFFSET_BEGINNING) for t in topics for p in range(counts[t])])

    def read(self) -> tuple[Sequence[Alert], Sequence[Deployment]]:
        """What is there; does not wait."""
        alerts, deployments = [], []
        messages: list[Any] = self._consumer.consume(100, 0)
        for message in messages:
            value = message.value()
            if message.error() is not None or value is None:
                continue
            if message.topic() == self._alerts:
                alerts.append(msgspec.json.decode(value, type=Alert))
            elif message.key() == self._model:
                deployments.append(rollout.from_json(value))
        return alerts, deployments

    def close(self) -> None:
        self._consumer.close()


def _told(alert: Alert) -> list[str]:
    words = {
        "champion": "is the first champion",
        "candidate": "is trained and scores as a shadow",
        "promoted": "is promoted",
        "rejected": f"is rejected: {alert.reasons[0] if alert.reasons else 'no reason'}",
        "rolled_back": f"is rolled back: {alert.reasons[0] if alert.reasons else 'no reason'}",
    }.get(alert.kind)
    subject = f"version {alert.version}" if alert.version else "what was trained"
    return [f"{_day(alert.time)}: {subject} {words}"] if words else []


def _why(event: RetrainEvent) -> str:
    if event.reason == "drift":
        return f"{len(event.drifts)} drift{'s' if len(event.drifts) != 1 else ''}"
    return event.reason.replace("_", " ")


def _date(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d}"


def _day(time_ms: int) -> str:
    at = datetime.fromtimestamp(time_ms / 1000, UTC)
    return f"{at.day} {at:%b}"
