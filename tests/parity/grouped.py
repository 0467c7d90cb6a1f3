"""Payments with features of their merchants, who are not in the topic's key: a remote group."""

from __future__ import annotations

from pathlib import Path

from tests.integration.tape import Tape, payments

DECLARED = """
from examples.payments.pipeline import Payment
from streams import Pipeline, Source

payments = Source("{name}.payments", Payment, key="user_id", id="payment_id", time="ts")
user, merchant = payments.by("user_id"), payments.by("merchant", {options})
pipeline = Pipeline(
    "{name}",
    score=payments,
    features=[
        payments.field("amount"),
        user.count("1h"),
        user.mean("amount", "24h"),
        merchant.since_last(),
        merchant.count("1h"),
        merchant.mean("amount", "24h"),
        merchant.max("amount", "1h"),
    ],
    model="{name}",
)
"""


def merchants(
    folder: Path, name: str, n: int, *, users: int = 300, rate: float = 2.0, options: str = "exact=True"
) -> Tape:
    """The first `n` synthetic payments, for that pipeline. options: of the group; none = it is read."""
    made = payments(folder, f"{name}-plain", n, users=users, rate=rate, expected={})
    path = folder / f"{name}.py"
    path.write_text(DECLARED.format(name=name, options=options))
    return Tape(path, made.records, {})
