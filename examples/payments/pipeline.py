"""The payments pipeline: what a user did in the last hour and the last day, scored payment by payment."""

from __future__ import annotations

from streams import Event, Pipeline, Source


class Payment(Event):
    """A card payment. `ts` is event time in ms since 1970."""

    payment_id: str
    user_id: str
    merchant: str
    amount: float
    ts: int


payments = Source("payments", Payment, key="user_id", id="payment_id", time="ts")
user = payments.by("user_id")

pipeline = Pipeline(
    "payments",
    score=payments,
    features=[
        payments.field("amount"),
        user.since_last(),
        user.count("1h", "24h"),
        user.sum("amount", "1h", "24h"),
        user.mean("amount", "1h", "24h"),
    ],
    model="payments",
)
