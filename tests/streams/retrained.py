"""A small pipeline that retrains: its file, an archive of it, and functions that train well, badly or not at all."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from models.dataset import Dataset
from models.errors import TrainingFailed
from models.trainer import Trained
from monitors.loop import Range, RetrainEvent
from streams import Event, Labels, Pipeline, Retrain, Rollout, Source
from tests.models.graphs import constant_score, linear

DECLARED = "from tests.streams.retrained import pipeline_named\n\npipeline = pipeline_named({name!r}, {function!r})\n"
DAY_MS = 86_400_000
START = 1_700_000_000_000 // DAY_MS * DAY_MS
HERE = "tests.streams.retrained"


class Order(Event):
    order: str
    user: str
    amount: float
    weight: float
    ts: int


class Paid(Event):
    order: str
    late: int
    ts: int


def pipeline_named(name: str, function: str | None = "train") -> Pipeline:
    """function: of this module; None = the built-in network."""
    orders = Source(f"{name}.orders", Order, key="user", id="order", time="ts", max_skew="1m")
    return Pipeline(
        name,
        score=orders,
        features=[orders.field("amount"), orders.field("weight")],
        model=name,
        labels=Labels(f"{name}.paid", Paid, id="order", value="late", time="ts"),
        retrain=Retrain(function and f"{HERE}:{function}", min_labels=100),
        rollout=Rollout(rows=200, guard_rows=400, latency="5s"),
    )


def declare(folder: Path, name: str, function: str | None = "train") -> Path:
    """The file of a pipeline of that name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(DECLARED.format(name=name, function=function))
    return path


def rows(n: int, seed: int = 0, *, shift: float = 0.0, start: int = START, first: int = 0) -> pl.DataFrame:
    """`n` archived rows, ten minutes apart, each with its label an hour later, which depends on both features."""
    draw = np.random.default_rng(seed)
    x = draw.normal(shift, 1, (n, 2)).astype(np.float32)
    labels = (draw.random(n) < 1 / (1 + np.exp(-(2 * x[:, 0] - x[:, 1])))).astype(float)
    times = start + np.arange(n) * 600_000
    return pl.DataFrame(
        {
            "id": [f"o{first + i}" for i in range(n)], "time": times,
            "partition": np.zeros(n, np.int32), "offset": np.arange(first, first + n),
            "label": labels, "label_time": times + 3_600_000,
            "feature.amount": x[:, 0], "feature.weight": x[:, 1],
        }
    )  # fmt: skip


def archive(folder: Path, table: pl.DataFrame, name: str = "rows") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    table.write_parquet(folder / f"{name}.parquet")
    return folder


def event_of(pipeline: Pipeline, table: pl.DataFrame, id: str = "e1", **changes: Any) -> RetrainEvent:
    """The event that asks for a model from all rows of `table`."""
    to = int(table["label_time"].max()) + 1  # type: ignore[arg-type]
    found: dict[str, Any] = {
        "id": id, "pipeline": pipeline.name, "time": to, "reason": "no_champion",
        "range": Range(start=START, to=to), "labels": len(table), "new_labels": len(table), "coverage": 1.0,
        "spec_hash": pipeline.spec.hash,
    }  # fmt: skip
    return RetrainEvent(**found | changes)


# ---- what trains


def train(data: Dataset, out: Path, seed: int) -> Trained:
    """Logistic regression by Newton's method; the seed is in the last bits, so that each event's model is its own."""
    x = np.column_stack([data.matrix.astype(np.float64), np.ones(len(data))])
    w = np.zeros(3)
    for _ in range(8):
        p = 1 / (1 + np.exp(-(x @ w)))
        w += np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + 1e-3 * np.eye(3), x.T @ (data.labels - p))
    w[2] += seed * 1e-12
    bias = float(np.nextafter(np.float32(w[2]), np.float32(9))) + (seed % 1000) * 1e-6
    out.write_bytes(linear([float(w[0]), float(w[1])], bias).SerializeToString())
    return Trained(out, {"log_loss": 0.5}, seed)


def train_slowly(data: Dataset, out: Path, seed: int) -> Trained:
    """Says that it has begun, and goes on when it is let."""
    with Path(os.environ["TRAINING_BEGAN"]).open("a") as began:
        began.write("x")
    while not Path(os.environ["TRAINING_GOES_ON"]).exists():
        time.sleep(0.02)
    return train(data, out, seed)


def train_wrongly(data: Dataset, out: Path, seed: int) -> Trained:
    """Learns the opposite."""
    data.labels[:] = 1 - data.labels
    return train(data, out, seed)


def train_constant(data: Dataset, out: Path, seed: int) -> Trained:
    out.write_bytes(constant_score(float(data.labels.mean())))
    return Trained(out, {}, seed)


def train_on_other_features(data: Dataset, out: Path, seed: int) -> Trained:
    out.write_bytes(linear([1.0, 2.0, 3.0]).SerializeToString())
    return Trained(out, {}, seed)


def train_garbage(data: Dataset, out: Path, seed: int) -> Trained:
    out.write_bytes(b"not an ONNX file")
    return Trained(out, {}, seed)


def train_nan(data: Dataset, out: Path, seed: int) -> Trained:
    out.write_bytes(linear([float("nan"), 1.0]).SerializeToString())
    return Trained(out, {"log_loss": float("nan")}, seed)


def train_nothing(data: Dataset, out: Path, seed: int) -> Trained:
    return Trained(out, {}, seed)


def train_nonsense(data: Dataset, out: Path, seed: int) -> Any:
    return {"path": out}


def train_odd_metrics(data: Dataset, out: Path, seed: int) -> Trained:
    return Trained(train(data, out, seed).path, {"log_loss": "good"}, seed)  # type: ignore[dict-item]


def train_and_raise(data: Dataset, out: Path, seed: int) -> Trained:
    raise KeyError("no such column")


def train_and_leave(data: Dataset, out: Path, seed: int) -> Trained:
    raise SystemExit(3)


def train_on_a_full_disk(data: Dataset, out: Path, seed: int) -> Trained:
    raise OSError(errno.ENOSPC, "No space left on device")


def train_and_die(data: Dataset, out: Path, seed: int) -> Trained:
    os._exit(9)


def train_printing(data: Dataset, out: Path, seed: int) -> Trained:
    print('{"result": {"reasons": ["a print"]}}', flush=True)
    os.write(1, b"and a raw write\n")
    return train(data, out, seed)


def train_unseeded(data: Dataset, out: Path, seed: int) -> Trained:
    return train(data, out, 0)


def train_diverging(data: Dataset, out: Path, seed: int) -> Trained:
    raise TrainingFailed("the loss is not finite in epoch 3; lower the recipe's learning_rate")
