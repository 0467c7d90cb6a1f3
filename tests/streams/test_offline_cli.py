"""`weir features backfill` and `diff`, and `weir train --dataset`, as a user calls them."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import structlog
from typer.testing import CliRunner, Result

from models import tables
from streams.cli import app

FILE = """
from pathlib import Path

from models.trainer import Trained
from streams import Event, Labels, Pipeline, Retrain, Source
from tests.models.graphs import linear


class Payment(Event):
    payment: str
    user: str
    amount: float
    ts: int


class Paid(Event):
    payment: str
    paid: bool
    ts: int


def train(dataset, out, seed):
    out.write_bytes(linear([0.5] * len(dataset.names)).SerializeToString())
    return Trained(out, {"rows": len(dataset), "positives": float(dataset.labels.sum())}, seed)


payments = Source("payments", Payment, key="user", id="payment", time="ts")
pipeline = Pipeline(
    "pay",
    score=payments,
    features=[payments.field("amount"), payments.by("user").count(WINDOW)],
    model="pay",
    labels=Labels("paid", Paid, id="payment", value="paid", within="1h", time="ts"),
    retrain=Retrain("NAME:train"),
)
"""
N = 50


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    for name, window in (("pay", '"1h"'), ("other", '"3h"')):
        (tmp_path / f"{name}_file.py").write_text(FILE.replace("WINDOW", window).replace("NAME", f"{name}_file"))
    ids = [f"p{i}" for i in range(N)]
    times = [1_700_000_000_000 + 60_000 * i for i in range(N)]
    users, amounts = [f"u{i % 3}" for i in range(N)], [float(i) for i in range(N)]
    pl.DataFrame({"payment": ids, "user": users, "amount": amounts, "ts": times}).write_parquet("payments.parquet")
    paid = [i % 2 == 0 for i in range(N)]
    pl.DataFrame({"payment": ids, "paid": paid, "ts": [t + 9 for t in times]}).write_csv("paid.csv")
    yield tmp_path
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)
    structlog.reset_defaults()
    for name in ("pay_file", "other_file"):
        sys.modules.pop(name, None)


def weir(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def report(*arguments: str) -> Any:
    found = weir(*arguments, "--json")
    assert found.exit_code == 0, found.stderr
    return json.loads(found.stdout)


def test_a_backfill_says_what_it_made_and_where_it_is_from() -> None:
    found = report("features", "backfill", "pay_file.py", "--input", "payments.parquet", "--output", "set")
    assert (found["rows"], found["events"], found["rejected"], found["labels"]) == (N, N, [], None)
    stored = tables.open_dataset(Path("set"))
    assert stored.version == found["version"]
    assert {"pipeline", "spec_hash", "code", "made", "inputs", "rows", "late"} <= stored.lineage.keys()
    assert stored.lineage["inputs"][0]["sha256"] == found["inputs"][0]["sha256"]
    given = ("features", "backfill", "pay_file.py", "--input", "payments=payments.parquet")
    again = report(*given, "--output", "set.parquet")
    assert again["inputs"][0]["sha256"] == found["inputs"][0]["sha256"]
    said = weir(*given, "--output", "set")
    assert f"set, version {found['version'] + 1}: {N} rows from {N} events" in said.stdout


def test_rows_that_cannot_be_used_lie_beside_the_dataset(folder: Path) -> None:
    table = pl.read_parquet("payments.parquet")
    table.with_columns(ts=pl.when(payment="p7").then(-1).otherwise("ts")).write_parquet("payments.parquet")
    given = ("features", "backfill", "pay_file.py", "--input", "payments.parquet", "--output", "set.parquet")
    found = report(*given)
    assert (found["rows"], found["rejected"]) == (
        N - 1, [{"source": "payments", "stage": "time", "reason": "negative", "rows": 1}],
    )  # fmt: skip
    (line,) = Path(found["rejects"]).read_text().splitlines()
    assert json.loads(line)["row"] == 8
    assert "1 rows could not be used; see set.parquet.rejects.jsonl" in weir(*given).stdout
    table.write_parquet("payments.parquet")
    assert report(*given)["rejects"] is None
    assert not (folder / "set.parquet.rejects.jsonl").exists()  # of an earlier run


def test_training_takes_a_dataset_with_labels_of_its_own_features() -> None:
    inputs = ("--input", "payments.parquet", "--input", "paid=paid.csv")
    made = report("features", "backfill", "pay_file.py", *inputs, "--output", "set")
    assert made["labels"] == N
    trained = report("train", "pay_file.py", "--dataset", "set")
    assert (trained["rows"], trained["metrics"]["positives"]) == (N, N / 2)
    refused = weir("train", "other_file.py", "--dataset", "set")
    assert refused.exit_code == 1
    assert "they differ in user_count_1h, user_count_3h; run weir features backfill again" in refused.stderr


def test_training_refuses_a_dataset_without_labels_or_without_events() -> None:
    report("features", "backfill", "pay_file.py", "--input", "payments.parquet", "--output", "bare.parquet")
    refused = weir("train", "pay_file.py", "--dataset", "bare.parquet")
    assert (refused.exit_code, "give weir features backfill --input paid=FILES" in refused.stderr) == (1, True)
    pl.DataFrame({"user": ["u1"], "ts": [1_700_000_000_000]}).write_parquet("at.parquet")
    given = ("features", "backfill", "pay_file.py", "--input", "payments.parquet", "--at", "at.parquet")
    at = report(*given, "--output", "at")
    assert (at["rows"], at["left_out"]) == (1, ["amount"])
    assert "made without --at" in weir("train", "pay_file.py", "--dataset", "at").stderr
    both = weir("train", "pay_file.py", "--dataset", "at", "--archive", "at")
    assert (both.exit_code, "train on one of them" in both.stderr) == (2, True)


def test_a_diff_ends_with_one_where_an_exact_feature_differs() -> None:
    report("features", "backfill", "pay_file.py", "--input", "payments.parquet", "--output", "set.parquet")
    given = ("features", "diff", "pay_file.py", "--recomputed", "set.parquet", "--logged")
    assert report(*given, "set.parquet")["exact"]
    Path("archive").mkdir()
    table = pl.read_parquet("set.parquet")
    column = "feature.user_count_1h"
    changed = pl.when(offset=3).then(9.0).otherwise(column).alias(column)
    table.with_columns(changed).write_parquet("archive/a.parquet")
    found = weir(*given, "archive", "--json")
    assert found.exit_code == 1
    (wrong,) = [f for f in json.loads(found.stdout)["features"] if f["mismatches"]]
    assert (wrong["feature"], wrong["mismatches"], wrong["mismatch_ppm"]) == ("user_count_1h", 1, 1e6 / N)
    assert "9 logged, 1 recomputed (partition 0, offset 3" in weir(*given, "archive").stdout
    other = weir("features", "diff", "other_file.py", "--recomputed", "set.parquet", "--logged", "archive")
    assert (other.exit_code, "there is no column 'feature.user_count_3h'" in other.stderr) == (2, True)
