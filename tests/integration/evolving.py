"""A pipeline before and after its features were changed, over the same topics."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from streams import Event, Pipeline, Source
from tests.integration.tape import Record, Tape, partition_of

DECLARED = "from tests.integration.evolving import {form}\n\npipeline = {form}({name!r})\n"


class Payment(Event):
    payment: str
    user: str
    shop: str
    channel: str
    amount: float
    ts: int


def before_named(name: str) -> Pipeline:
    """Features of users, and of users in shops."""
    payments = Source(f"{name}.payments", Payment, key="user", id="payment", time="ts", max_skew="1m")
    user, pair = payments.by("user"), payments.by("user", "shop")
    features: list[Any] = [user.count("10m"), user.sum("amount", "10m", "30m"), user.last("amount"), pair.count("20m")]
    return Pipeline(name, score=payments, features=features, model=name)


def after_named(name: str) -> Pipeline:
    """Users get a feature that reads what is kept of them, users in shops another one; those of channels are new."""
    (payments,) = before_named(name).sources
    user, pair, channel = payments.by("user"), payments.by("user", "shop"), payments.by("user", "channel")
    return Pipeline(
        name,
        score=payments,
        features=[
            channel.distinct("amount", "30m"),
            user.count("10m"),
            user.sum("amount", "10m", "30m"),
            user.last("amount"),
            user.mean("amount", "10m"),
            pair.count("20m"),
            pair.max("amount", "30m"),
        ],
        model=name,
    )


def evolving(folder: Path, name: str, n: int) -> tuple[Tape, Tape]:
    """`n` payments over a few hours, with what is expected before and after the change."""
    records = _records(n, name)
    before, after = (Tape(_declared(folder, name, form), records) for form in ("before_named", "after_named"))
    return before, after


def _declared(folder: Path, name: str, form: str) -> Path:
    path = folder / f"{name}-{form}.py"
    path.write_text(DECLARED.format(name=name, form=form))
    return path


def _records(n: int, seed: str) -> list[Record]:
    draw = random.Random(seed)
    now, made = 1_700_000_000_000, []
    for i in range(n):
        now += draw.randrange(12_000)
        user = f"u{draw.randrange(30)}"
        shop, channel = draw.choice("abc"), draw.choice(("web", "app"))
        value = {"payment": f"p{i}", "user": user, "shop": shop, "channel": channel, "ts": now}
        value["amount"] = round(draw.lognormvariate(3, 1), 2)
        key = user.encode()
        made.append(Record(0, partition_of(key), key, json.dumps(value).encode(), now))
    return made
