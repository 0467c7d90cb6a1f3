"""Logged values beside recomputed ones: what differs, by how much, and what that means for the exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from monitors.archive import Archive
from monitors.join import Joined
from monitors.predictions import prediction_decoder
from streams.errors import UsageError
from streams.offline.diff import diff
from streams.offline.logged import logged
from tests.streams.test_offline_backfill import ROWS, backfilled, pipeline, written


def recomputed(folder: Path) -> pl.DataFrame:
    return backfilled(written(ROWS, folder / "rows.parquet"))[0]


def predictions(table: pl.DataFrame, path: Path, **changed: Any) -> Path:
    """A row's prediction a line; `changed`: values of features of the first one."""
    lines = []
    for i, row in enumerate(table.iter_rows(named=True)):
        features = {name: row[f"feature.{name}"] for name in pipeline.spec.names} | (changed if i == 0 else {})
        source = {"topic": "payments", "partition": row["partition"], "offset": row["offset"]}
        said = {"id": row["id"], "key": row["key"], "time": row["time"], "source": source, "model": None}
        said |= {"version": None, "arm": None, "deployment": None, "score": None, "shadows": {}, "features": features}
        lines.append(json.dumps(said))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_equal_values_are_no_mismatch_and_missing_equals_missing(tmp_path: Path) -> None:
    table = recomputed(tmp_path)
    found = diff(pipeline, logged(pipeline, predictions(table, tmp_path / "p.jsonl")), table.lazy(), "place")
    assert (found.rows, found.only_logged, found.only_recomputed, found.copies) == (4, 0, 0, 0)
    assert found.exact
    assert all(f.mismatches == 0 for f in found.features)
    assert table["feature.user_since_last"].null_count() == 2  # or nothing was missing


def test_a_value_that_differs_is_named_with_its_event(tmp_path: Path) -> None:
    table = recomputed(tmp_path)
    path = predictions(table, tmp_path / "p.jsonl", user_count_1h=2.0, country="XX", user_since_last=1.0)
    found = diff(pipeline, logged(pipeline, path), table.lazy(), "place")
    assert not found.exact
    wrong = {f.feature: f for f in found.features if f.mismatches}
    assert wrong.keys() == {"user_count_1h", "country", "user_since_last"}
    count = wrong["user_count_1h"]
    assert (count.mismatches, count.ppm, count.worst) == (1, 250_000.0, 2.0)
    assert count.example is not None
    assert (count.example["logged"], count.example["recomputed"], count.example["offset"]) == (2.0, 0.0, 0)
    assert wrong["country"].worst is None


def test_rows_that_one_side_has_alone_and_copies_are_counted(tmp_path: Path) -> None:
    table = recomputed(tmp_path)
    twice = pl.concat([table.head(3), table.head(1)])
    found = diff(pipeline, twice.lazy(), table.slice(1).lazy(), "place")
    assert (found.rows, found.only_logged, found.only_recomputed, found.copies) == (2, 1, 1, 1)
    moved = table.with_columns(offset=pl.col("offset") + 100)
    nothing = diff(pipeline, moved.lazy(), table.lazy(), "place")
    assert (nothing.rows, nothing.exact) == (0, False)  # nothing compared is nothing shown
    assert diff(pipeline, moved.lazy(), table.lazy(), "id").exact


def test_the_monitors_archive_is_read_as_it_lies(tmp_path: Path) -> None:
    table = recomputed(tmp_path)
    kinds = {name: "category" if name == "country" else "number" for name in pipeline.spec.names}
    decode = prediction_decoder(kinds)  # type: ignore[arg-type]
    archive = Archive(tmp_path / "archive", kinds, rows=3)  # type: ignore[arg-type]
    lines = predictions(table, tmp_path / "p.jsonl").read_bytes().splitlines()
    archive.add([Joined(decode(line), None) for line in lines])
    archive.flush("1", 1)
    assert diff(pipeline, logged(pipeline, tmp_path / "archive"), table.lazy(), "place").exact


def test_what_is_not_there_or_of_other_features_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no Parquet files"):
        logged(pipeline, tmp_path / "empty")
    table = recomputed(tmp_path).drop("feature.double")
    folder = tmp_path / "archive"
    folder.mkdir()
    table.write_parquet(folder / "a.parquet")
    with pytest.raises(UsageError, match=r"there is no column 'feature.double'"):
        logged(pipeline, folder)
