"""`weir features check`: the types and rules of a pipeline over files find what the stream would find."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner, Result

from streams.cli import app
from streams.decode import decoder_of
from streams.loading import load_pipeline
from tests.streams.records import NOW, Record, batch

DECLARED = """
from streams import Event, Pipeline, Rule, Source


class Payment(Event):
    payment_id: str
    user: str
    ts: int
    amount: float | None = None
    country: str | None = None


payments = Source("payments", Payment, key="user", id="payment_id", time="ts", rules=[
    Rule("amount", ge=0, on_violation="dead_letter"),
    Rule("amount", le=100, nulls=0.25),
    Rule("country", among=["at", "de"]),
    Rule("ts", behind="10m", silence="1h"),
])
pipeline = Pipeline(
    "shop",
    score=payments,
    features=[payments.field("amount"), payments.by("user").count("1h")],
    model="m",
    rules=[Rule("user_count_1h", lt=3), Rule("amount", le=50)],
)
"""


@pytest.fixture
def declared(tmp_path: Path) -> Path:
    path = tmp_path / "shop.py"
    path.write_text(DECLARED)
    return path


def events() -> list[dict[str, Any]]:
    draw = np.random.default_rng(7)
    return [
        {
            "payment_id": f"p{i}",
            "user": f"u{i % 5}",
            "ts": NOW + 1000 * i,
            "amount": None if i % 10 == 0 else round(float(draw.normal(60, 40)), 2),
            "country": [None, "at", "de", "fr"][i % 4],
        }
        for i in range(200)
    ]


def written(folder: Path, rows: list[dict[str, Any]], suffix: str) -> Path:
    path, frame = folder / f"events{suffix}", pl.DataFrame(rows)
    {".parquet": frame.write_parquet, ".csv": frame.write_csv, ".jsonl": frame.write_ndjson}[suffix](path)
    return path


def check(pipeline: Path, *files: Path, options: tuple[str, ...] = ("--json",)) -> Result:
    inputs = [argument for file in files for argument in ("--input", str(file))]
    return CliRunner().invoke(app, ["features", "check", str(pipeline), *inputs, *options])


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_files_are_found_to_break_what_the_stream_finds_broken(declared: Path, tmp_path: Path, suffix: str) -> None:
    rows = events()
    result = check(declared, written(tmp_path, rows, suffix))
    assert result.exit_code == 1, result.stderr
    report = json.loads(result.stdout)
    found = {(f["of"], f["rule"]): f["rows"] for f in report["findings"]}
    loaded = load_pipeline(str(declared))
    decoded = decoder_of(loaded.lead, 0, loaded.spec).decode(batch([Record(row) for row in rows]))
    on_stream = Counter((d.field, d.code) for d in decoded.dead)
    assert decoded.bits is not None
    for place, condition in enumerate(loaded.lead.conditions):
        if condition.name in ("le", "among"):
            on_stream[condition.of, condition.name] += int((decoded.bits >> place & 1).sum())
    # Over files nothing is taken out: what goes to the dead letters may break another rule as well.
    dead = [rows[letter.offset] for letter in decoded.dead]
    on_stream["country", "among"] += sum(row["country"] == "fr" for row in dead)
    assert found == dict(on_stream)
    assert min(found.values()) > 0
    assert len(found) == 3
    assert (report["rows"], report["ok"]) == (200, False)
    assert report["unchecked"] == {"ts:behind": "files have no record timestamps"}
    (negative,) = [f for f in report["findings"] if f["rule"] == "ge"]
    row, value = negative["examples"][0]
    assert rows[row]["amount"] == value
    assert value < 0


def test_types_nulls_gaps_and_missing_columns_are_found_too(declared: Path, tmp_path: Path) -> None:
    rows = [
        {"payment_id": "a", "user": "u", "ts": NOW, "amount": None, "country": 7},
        {"payment_id": None, "user": "u", "ts": NOW + 3_600_002, "amount": None, "country": 8},
        {"payment_id": "c", "user": "u", "ts": NOW + 1, "amount": None, "country": None},
    ]
    report = json.loads(check(declared, written(tmp_path, rows, ".parquet")).stdout)
    found = {(f["of"], f["rule"]): (f["rows"], f["examples"][:1]) for f in report["findings"]}
    assert found == {
        ("payment_id", "not_null"): (1, [[1, None]]),
        ("country", "type"): (2, [[0, 7]]),
        ("amount", "nulls"): (3, [[0, None]]),
        ("ts", "silence"): (1, [[1, 3600.001]]),
    }
    lacking = written(tmp_path, [{"user": "u", "ts": NOW}], ".jsonl")
    report = json.loads(check(declared, lacking).stdout)
    assert ("payment_id", "missing") in [(f["of"], f["rule"]) for f in report["findings"]]


def test_several_files_are_one_data_set_and_clean_ones_end_well(declared: Path, tmp_path: Path) -> None:
    rows = [{"payment_id": f"p{i}", "user": "u", "ts": NOW + i, "amount": 1.0, "country": "at"} for i in range(8)]
    first, second = written(tmp_path, rows[:4], ".csv"), written(tmp_path, rows[4:], ".parquet")
    result = check(declared, first, second)
    assert result.exit_code == 0, result.stdout
    assert json.loads(result.stdout)["rows"] == 8
    text = check(declared, first, second, options=())
    assert "8 rows, events of payments: 5 conditions checked, 0 broken" in text.stdout
    assert "not checked: ts:behind: files have no record timestamps" in text.stdout


def test_the_archives_features_are_checked_by_the_pipelines_rules(declared: Path, tmp_path: Path) -> None:
    path = tmp_path / "archive.parquet"
    pl.DataFrame({"feature.user_count_1h": [1.0, 3.0, None], "feature.amount": [50.0, None, 51.0]}).write_parquet(path)
    report = json.loads(check(declared, path).stdout)
    assert report["kind"] == "features of shop"
    found = [(f["of"], f["rule"], f["examples"]) for f in report["findings"]]
    assert found == [("user_count_1h", "lt", [[1, 3.0]]), ("amount", "le", [[2, 51.0]])]


@pytest.mark.parametrize("dtype", [pl.Float32, pl.Float64])
def test_features_are_compared_as_the_float32_that_a_worker_has(declared: Path, tmp_path: Path, dtype: Any) -> None:
    declared.write_text(DECLARED.replace('Rule("amount", le=50)', 'Rule("amount", le=0.1)'))
    path = tmp_path / "archive.parquet"
    amounts = pl.Series([0.1, 0.1001, 1e300 if dtype == pl.Float64 else 0.0], dtype=dtype)
    pl.DataFrame({"feature.amount": amounts}).write_parquet(path)
    report = json.loads(check(declared, path).stdout)
    found = {f["rule"]: [row for row, _ in f["examples"]] for f in report["findings"]}
    assert found == ({"type": [2], "le": [1]} if dtype == pl.Float64 else {"le": [1]})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none.parquet", "No such file"),
        (lambda folder: folder / "x.txt", "a file ends in .parquet, .csv, .jsonl, .ndjson"),
        (lambda folder: _bytes(folder / "x.parquet", b"no parquet"), "x.parquet:"),
        (lambda folder: _bytes(folder / "x.csv", b"a,b\n1,2\n"), "no events of payments (columns user and ts"),
    ],
    ids=["no file", "another kind", "broken", "something else"],
)
def test_a_file_that_cannot_be_checked_is_wrong_use(declared: Path, tmp_path: Path, make: Any, message: str) -> None:
    result = check(declared, make(tmp_path))
    assert result.exit_code == 2, result.stdout
    assert message in result.stderr


def test_a_source_that_there_is_not_is_wrong_use(declared: Path, tmp_path: Path) -> None:
    result = check(declared, tmp_path / "x.csv", options=("--source", "payment"))
    assert result.exit_code == 2
    assert "'payment' is not among the sources of shop; did you mean 'payments'?" in result.stderr


def _bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
