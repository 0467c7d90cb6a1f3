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


DEAD = 'Rule("amount", ge=0, on_violation="dead_letter")'


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
        (lambda folder: _bytes(folder / "x.parquet", b"no parquet"), "x.parquet cannot be read"),
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


def backfilled(pipeline: Path, rows: list[dict[str, Any]], output: Path, *options: str) -> Path:
    given = written(pipeline.parent, rows, ".parquet")
    inputs = ["--input", f"payments={given}", *options]
    result = CliRunner().invoke(app, ["features", "backfill", str(pipeline), *inputs, "--output", str(output)])
    assert result.exit_code == 0, result.stderr
    return output


def in_the_stream(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that no rule sends to the dead letters."""
    return [row for row in rows if row["amount"] is None or row["amount"] >= 0]


@pytest.mark.parametrize("name", ["set", "set.parquet"])
def test_a_dataset_breaks_the_rules_that_its_events_break_and_those_of_its_features(
    declared: Path, tmp_path: Path, name: str
) -> None:
    rows = events()
    path = backfilled(declared, rows, tmp_path / name)
    result = check(declared, path)
    assert result.exit_code == 1, result.stderr
    report = json.loads(result.stdout)
    found = {(f["of"], f["rule"], f["asks"]): f["rows"] for f in report["findings"]}
    kept = in_the_stream(rows)
    amounts = [row["amount"] for row in kept if row["amount"] is not None]
    assert found == {
        ("amount", "le", "must be at most 100"): sum(a > 100 for a in amounts),
        ("amount", "le", "must be at most 50"): sum(a > 50 for a in amounts),
        # The fourth event of a user is the first that has three before it.
        ("user_count_1h", "lt", "must be below 3"): len(kept) - 3 * 5,
    }
    assert min(found.values()) > 0
    (count,) = [f for f in report["findings"] if f["rule"] == "lt"]
    users = [row["user"] for row in kept]
    fourth = [place for place, user in enumerate(users) if users[:place].count(user) == 3]
    assert fourth[0] in [place for place, _ in count["examples"]]  # rows in the order of the stream
    assert report["rows"] == len(kept) < len(rows)
    assert {"amount:ge", "amount:nulls", "ts:silence"} <= set(report["checked"])
    assert report["unchecked"] == {
        "country:among": "the files have no such column", "ts:behind": "files have no record timestamps",
    }  # fmt: skip
    assert report["files"] == [f"{path}@1" if name == "set" else str(path)]


def test_the_newest_version_of_a_dataset_is_checked_or_the_one_that_is_named(declared: Path, tmp_path: Path) -> None:
    few = [{"payment_id": f"p{i}", "user": "u", "ts": NOW + i, "amount": 1.0, "country": "at"} for i in range(3)]
    path = backfilled(declared, events(), tmp_path / "set")
    assert backfilled(declared, few, path) == path
    newest, named, first = check(declared, path), check(declared, Path(f"{path}@2")), check(declared, Path(f"{path}@1"))
    assert json.loads(newest.stdout) == json.loads(named.stdout)
    assert (newest.exit_code, json.loads(newest.stdout)["rows"]) == (0, 3)
    assert (first.exit_code, json.loads(first.stdout)["rows"]) == (1, len(in_the_stream(events())))
    text = check(declared, path, options=()).stdout
    assert f"3 rows, features of shop, {path}@2: 6 conditions checked, 0 broken" in text
    other = path.rename(tmp_path / "set@1")  # a folder's own name goes before a version
    assert json.loads(check(declared, other).stdout)["files"] == [f"{other}@2"]


def test_datasets_are_one_and_silences_are_found_in_them(declared: Path, tmp_path: Path) -> None:
    row = {"payment_id": "p", "user": "u", "ts": NOW, "amount": 1.0, "country": "at"}
    first = backfilled(declared, [row], tmp_path / "first")
    second = backfilled(declared, [{**row, "ts": NOW + 3_600_001}], tmp_path / "second")
    report = json.loads(check(declared, first, second).stdout)
    found = [(f["of"], f["rule"], f["rows"], f["examples"]) for f in report["findings"]]
    assert found == [("ts", "silence", 1, [[1, 3600.001]])]
    assert report["files"] == [f"{first}@1", f"{second}@1"]
    at = tmp_path / "at.csv"
    at.write_text(f"user,time\nu,{NOW + 1}\n")
    bare = backfilled(declared, [row], tmp_path / "bare", "--at", str(at))
    report = json.loads(check(declared, first, bare).stdout)  # bare has no amounts
    assert (report["rows"], report["checked"]) == (2, ["user_count_1h:lt"])


@pytest.mark.parametrize("name", ["set", "set.parquet"])
def test_rows_at_given_times_are_no_events(declared: Path, tmp_path: Path, name: str) -> None:
    """Their columns are called as an event's, their times are none's."""
    declared.write_text(DECLARED.replace("    ts: int", "    time: int").replace('"ts"', '"time"'))
    rows = [{"time" if k == "ts" else k: v for k, v in row.items()} for row in events()]
    at = tmp_path / "at.parquet"
    table = {"user": ["u0", "u1"], "time": [NOW + 1, NOW + 7_200_000], "country": ["at", "fr"]}
    pl.DataFrame(table).write_parquet(at)
    report = json.loads(check(declared, backfilled(declared, rows, tmp_path / name, "--at", str(at))).stdout)
    found = [(f["of"], f["rule"], f["examples"]) for f in report["findings"]]
    assert found == [("country", "among", [[1, "fr"]])]
    assert report["checked"] == ["country:among", "user_count_1h:lt"]
    assert {"time:silence", "amount:le"} <= report["unchecked"].keys()


def test_a_null_that_stands_as_a_number_is_not_checked_as_one(declared: Path, tmp_path: Path) -> None:
    declared.write_text(DECLARED.replace('model="m",', 'model="m", missing=-1.0,'))
    report = json.loads(check(declared, backfilled(declared, events(), tmp_path / "set")).stdout)
    assert {"amount:ge", "amount:nulls"} <= report["unchecked"].keys()
    assert ("amount", "ge") not in [(f["of"], f["rule"]) for f in report["findings"]]


def test_keys_that_are_numbers_are_checked_as_numbers(declared: Path, tmp_path: Path) -> None:
    declared.write_text(DECLARED.replace("user: str", "user: int").replace(DEAD, 'Rule("user", ge=1)'))
    rows = [{**row, "user": i % 5} for i, row in enumerate(events())]
    report = json.loads(check(declared, backfilled(declared, rows, tmp_path / "set")).stdout)
    assert ("user", "ge", 40) in [(f["of"], f["rule"], f["rows"]) for f in report["findings"]]


def test_a_folder_without_a_dataset_is_wrong_use(declared: Path, tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    for name, message in (
        ("archive", "archive: the folder holds no dataset; name one of weir features backfill, or single files"),
        ("gone", "gone: a file ends in .parquet, .csv, .jsonl, .ndjson; a dataset is a folder, and there is none"),
        ("gone@1", "gone@1: a file ends in .parquet, .csv, .jsonl, .ndjson; a dataset is a folder, and there is none"),
    ):
        result = check(declared, tmp_path / name)
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


def test_a_version_that_is_not_there_is_wrong_use(declared: Path, tmp_path: Path) -> None:
    path, file = (backfilled(declared, events(), tmp_path / name) for name in ("set", "set.parquet"))
    for name, message in (
        (f"{path}@7", "set has no version 7; the newest is 1"),
        (f"{path}@0", f"set@0 holds nothing yet; weir features backfill wrote {path}@1 first"),
        (f"{file}@1", "set.parquet is a Parquet file, which has no versions"),
    ):
        result = check(declared, Path(name))
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


@pytest.mark.parametrize("name", ["set", "set.parquet"])
def test_a_dataset_of_other_features_is_wrong_use(declared: Path, tmp_path: Path, name: str) -> None:
    path = backfilled(declared, events(), tmp_path / name)
    declared.write_text(DECLARED.replace('count("1h")', 'count("1h", "3h")'))
    result = check(declared, path)
    assert result.exit_code == 2, result.stdout
    assert "they differ in user_count_3h; run weir features backfill again" in result.stderr


def test_a_dataset_is_checked_neither_beside_other_files_nor_as_another_source(declared: Path, tmp_path: Path) -> None:
    refunds = 'refunds = Source("refunds", Payment, key="user", time="ts")\npipeline'
    also = 'count("1h"), refunds.by("user").since_last()], learn=[refunds]'
    declared.write_text(DECLARED.replace("pipeline", refunds).replace('count("1h")]', also))
    file = written(tmp_path, events(), ".csv")
    path = backfilled(declared, events(), tmp_path / "set", "--input", f"refunds={file}")
    for result, message in (
        (check(declared, path, file), "events.csv is no dataset of weir features backfill; check it by itself"),
        (check(declared, path, options=("--source", "refunds")), "a dataset's rows are of payments; leave it out"),
    ):
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


def test_a_dataset_whose_data_has_gone_is_said(declared: Path, tmp_path: Path) -> None:
    path = backfilled(declared, events(), tmp_path / "set")
    for part in path.glob("*.parquet"):
        part.unlink()
    result = check(declared, path)
    assert result.exit_code == 2, result.stdout
    assert "set@1 cannot be read" in result.stderr


def _bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
