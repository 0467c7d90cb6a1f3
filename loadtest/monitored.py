"""The payments example with labels: what the monitor's bench watches."""

from __future__ import annotations

from examples.payments.pipeline import Payment
from streams import Blocks, Event, Labels, Pipeline, Source


class Outcome(Event):
    """Whether a payment was fraud, known at `ts`."""

    payment_id: str
    fraud: int
    ts: int


payments = Source("monitored", Payment, key="user_id", id="payment_id", time="ts")
user = payments.by("user_id")

pipeline = Pipeline(
    "monitored",
    score=payments,
    features=[
        payments.field("amount"),
        user.since_last(),
        user.count("1h", "24h"),
        user.sum("amount", "1h", "24h"),
        user.mean("amount", "1h", "24h"),
    ],
    model="monitored",
    labels=Labels("monitored.outcomes", Outcome, id="payment_id", value="fraud", time="ts", within="1h"),
    blocks=Blocks(every="1m"),
)
