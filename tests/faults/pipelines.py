"""What the suite runs: payments, and orders with visits beside them; each under the name of its run."""

from __future__ import annotations

import json
import random
import zlib
from pathlib import Path
from typing import Literal

from examples.flights.replay import CLOSED, WATERMARK
from examples.payments.generate import Payments
from examples.payments.pipeline import Payment
from streams import Event, Pipeline, Source
from tests.integration.tape import Record

PARTITIONS = 12
Kind = Literal["payments", "streams"]


class Order(Event):
    order: str
    user: str
    amount: float
    ts: int


class Visit(Event):
    user: str
    seconds: float | None
    ts: int


def payments(name: str) -> Pipeline:
    """The example's pipeline with another topic and group."""
    source = Source(name, Payment, key="user_id", id="payment_id", time="ts")
    user = source.by("user_id")
    return Pipeline(
        name,
        score=source,
        features=[
            source.field("amount"),
            user.since_last(),
            user.count("1h", "24h"),
            user.sum("amount", "1h", "24h"),
            user.mean("amount", "1h", "24h"),
        ],
        model=name,
    )


def streams(name: str) -> Pipeline:
    """Two co-partitioned streams: orders are scored, visits only learned from."""
    orders = Source(f"{name}.orders", Order, key="user", id="order", time="ts", max_skew="1m")
    visits = Source(f"{name}.visits", Visit, key="user", time="ts", max_skew="1m")
    buyer, visitor = orders.by("user"), visits.by("user")
    return Pipeline(
        name,
        score=orders,
        learn=[visits],
        features=[
            orders.field("amount"),
            buyer.count("10m"),
            buyer.sum("amount", "10m", "30m"),
            visitor.mean("seconds", "10m"),
            visitor.max("seconds", "30m"),
            visitor.last("seconds", within="30m"),
            visitor.since_last(within="30m"),
        ],
        model=name,
    )


PIPELINES = {"payments": payments, "streams": streams}


def write(kind: Kind, name: str, folder: Path) -> Path:
    """A file that declares the pipeline under `name`, for `weir worker`."""
    path = folder / f"{name}.py"
    path.write_text(f"from tests.faults.pipelines import {kind}\n\npipeline = {kind}({name!r})\n")
    return path


def records(kind: Kind, n: int) -> list[Record]:
    """`n` events in the order of sending; record timestamps are event times."""
    return _payments(n) if kind == "payments" else _streams(n)


def partition_of(key: bytes) -> int:
    return zlib.crc32(key) % PARTITIONS


def _payments(n: int) -> list[Record]:
    """A payment every half second, by 2,000 users: each pays four times an hour."""
    made = Payments(users=2000, rate=2.0).records(n)
    return [Record(0, partition_of(r.key), r.key, r.value, r.time_ms) for r in made]


def _streams(n: int) -> list[Record]:
    """An order for two visits, a few late by up to 20 minutes, with watermarks so that their order is told."""
    draw = random.Random(4)
    now = 1_700_000_000_000
    made = _marks(now - 3_600_000, now)
    for i in range(n):
        now += draw.randrange(0, 1000)
        user = f"u{draw.randrange(400)}"
        late = draw.randrange(1_200_000) if draw.random() < 0.02 else 0
        seconds = None if draw.random() < 0.1 else round(draw.expovariate(0.01), 3)
        order = {"order": f"o{i}", "user": user, "amount": round(draw.lognormvariate(3, 1), 2), "ts": now - late}
        value = order if i % 3 == 0 else {"user": user, "seconds": seconds, "ts": now - late}
        key = user.encode()
        made.append(Record(int(i % 3 != 0), partition_of(key), key, json.dumps(value).encode(), now))
        if i % 300 == 299:
            made += _marks(now - 1_200_000, now)
    return [*made, *_marks(CLOSED, now)]


def _marks(time_ms: int, timestamp: int) -> list[Record]:
    headers = [(WATERMARK, str(time_ms).encode())]
    return [Record(s, p, None, None, timestamp, headers) for p in range(PARTITIONS) for s in (0, 1)]
