"""A pipeline with the whole loop in minutes: labels, short blocks, one watch, a policy, a roll-out; and its feed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from monitors.watch import Watch
from streams import Blocks, Event, Labels, Pipeline, Retrain, Rollout, Source
from tests.integration.tape import Record, partition_of

PARTITIONS = 4
STEP_MS = 500
BLOCK_MS = 600_000
"""1,200 payments."""
DELAY_MS = 30_000
START_MS = 1_735_689_600_000
DRIFT_BLOCK = 22
BLOCKS = 44


class Payment(Event):
    payment_id: str
    user: str
    amount: float
    ts: int


class Outcome(Event):
    payment_id: str
    fraud: bool
    ts: int


def loop(name: str) -> Pipeline:
    source = Source(name, Payment, key="user", id="payment_id", time="ts")
    user = source.by("user")
    return Pipeline(
        name,
        score=source,
        features=[source.field("amount"), user.count("1h"), user.sum("amount", "1h")],
        model=name,
        labels=Labels(f"{name}.outcomes", Outcome, id="payment_id", value="fraud", time="ts", within="1h"),
        blocks=Blocks(every="10m"),
        drift=[
            Watch(
                "feature.amount",
                detector="psi",
                window=2,
                reference_blocks=6,
                reference="sliding",
                step=1,
                threshold=0.3,
                confirm=2,
                cooldown=100,
            )
        ],
        retrain=Retrain(on=["feature.amount"], min_labels=3000, cooldown="3h", budget=9),
        rollout=Rollout(rows=600, guard_rows=1200, margin=0.05, calibration=0.3),
    )


def write(name: str, folder: Path) -> Path:
    path = folder / f"{name}.py"
    path.write_text(f"from tests.faults.loop_pipeline import loop\n\npipeline = loop({name!r})\n")
    return path


def records() -> list[Record]:
    """Payments (stream 0) and their outcomes (stream 1), in the order of sending; amounts triple at DRIFT_BLOCK.

    Record timestamps are event times. A large amount is often a fraud, a payment after many rarely one.
    """
    n = BLOCKS * BLOCK_MS // STEP_MS
    draw = np.random.default_rng(5)
    times = START_MS + np.arange(n) * STEP_MS
    users = draw.integers(0, 300, n)
    amounts = np.round(draw.lognormal(3.0, 0.8, n), 2)
    amounts[times >= START_MS + DRIFT_BLOCK * BLOCK_MS] *= 3
    frauds = draw.random(n) < 1 / (1 + np.exp(-3 * (np.log(amounts) - 3.5)))
    made: list[tuple[int, int, Record]] = []
    for i in range(n):
        key, ts = f"u{users[i]:03d}", int(times[i])
        payment = {"payment_id": f"p{i:06d}", "user": key, "amount": float(amounts[i]), "ts": ts}
        outcome = {"payment_id": f"p{i:06d}", "fraud": bool(frauds[i]), "ts": ts + DELAY_MS}
        for stream, value, at in ((0, payment, ts), (1, outcome, ts + DELAY_MS)):
            raw = json.dumps(value).encode()
            made.append((at, stream, Record(stream, partition_of(key.encode(), PARTITIONS), key.encode(), raw, at)))
    return [record for _, _, record in sorted(made, key=lambda found: found[:2])]
