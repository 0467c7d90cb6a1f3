"""What the suite runs: payments, and orders with visits beside them; each under the name of its run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from examples.payments.generate import Payments
from examples.payments.pipeline import Payment
from streams import Pipeline, Source
from tests.integration import shop
from tests.integration.tape import Record, partition_of

PARTITIONS = 12
USERS = 2000
Kind = Literal["payments", "streams"]


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


PIPELINES = {"payments": payments, "streams": shop.pipeline_named}


def write(kind: Kind, name: str, folder: Path) -> Path:
    """A file that declares the pipeline under `name`, for `weir worker`."""
    path = folder / f"{name}.py"
    path.write_text(f"from tests.faults.pipelines import PIPELINES\n\npipeline = PIPELINES[{kind!r}]({name!r})\n")
    return path


def records(kind: Kind, n: int) -> list[Record]:
    """`n` events in the order of sending; record timestamps are event times."""
    return _payments(n) if kind == "payments" else _streams(n)


def _payments(n: int) -> list[Record]:
    """A payment every half second, by 2,000 users: each pays four times an hour."""
    made = Payments(users=USERS, rate=2.0).records(n)
    return [Record(0, partition_of(r.key, PARTITIONS), r.key, r.value, r.time_ms) for r in made]


def _streams(n: int) -> list[Record]:
    """An order for two visits, a few late by up to 20 minutes, with watermarks so that their order is told."""
    return shop.records(n, 4, users=400, step_ms=1000, late_ms=1_200_000, marks_every=300, partitions=PARTITIONS)
