"""A loop that has run for a while, written by hand: for those who read it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from confluent_kafka import Producer

from models.rollout import Deployment, Version
from monitors import block as blocks
from monitors.block import Block, Labelled
from monitors.loop import Drift, Range, RetrainEvent, Side

DAY_MS = 86_400_000
PIPELINE = """
from streams import Event, Labels, Pipeline, Retrain, Source

class Payment(Event):
    id: str
    user: str
    amount: float
    ts: int

class Chargeback(Event):
    id: str
    fraud: bool

payments = Source("payments", Payment, key="user", id="id", time="ts")
labels = Labels("chargebacks", Chargeback, id="id", value="fraud")
pipeline = Pipeline(
    "shop", score=payments, features=[payments.field("amount")], model="fraud", labels=labels, retrain=Retrain()
)
"""


def version(name: str) -> Version:
    return Version(model="fraud", version=name, uri="file:///nowhere", sha256="0" * 64, spec_hash="s")


def drift(id: str, day: int = 3, signal: str = "loss") -> Drift:
    before, after = Side(0.5, 3, 2700), Side(0.75, 2, 1800)
    return Drift(id, "shop", day * DAY_MS, signal, "psi", 0.41, 0.25, before, after, day - 2, day - 1, 0.4)


def retrain(id: str, day: int = 3, drifts: tuple[str, ...] = (), labels: int = 2500) -> RetrainEvent:
    at = day * DAY_MS
    return RetrainEvent(id, "shop", at, "drift", Range(0, at), labels, labels, 0.9, "s", drifts)


def block(number: int, labels: int = 900, missing: int = 100) -> Block:
    start = number * DAY_MS
    known = Labelled(n=labels, value=0.2, delay_s=7200.0, missing=missing)
    return Block(f"shop-{number}", "shop", number, start, start + DAY_MS, predictions=1000, labels=known)


def deployment(id: str, champion: str | None, *shadows: str, **named: str) -> Deployment:
    return Deployment(
        id=id,
        model="fraud",
        champion=version(champion) if champion else None,
        shadows=tuple(map(version, shadows)),
        **named,  # type: ignore[arg-type]
    )


def write(broker: str, topic: str, values: Iterable[bytes | msgspec.Struct], key: str = "fraud") -> None:
    """As the loop does: one partition, in order."""
    producer = Producer({"bootstrap.servers": broker})
    for value in values:
        producer.produce(topic, as_bytes(value), key, partition=0)
        assert producer.flush(10) == 0


def as_bytes(value: bytes | msgspec.Struct) -> bytes:
    if isinstance(value, Block):
        return blocks.to_json(value)
    return value if isinstance(value, bytes) else msgspec.json.encode(value)
