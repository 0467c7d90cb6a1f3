"""Datasets on disk: whole or not there, with their origin, each version readable."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from models import tables
from models.errors import DatasetError

SCHEMA: dict[str, Any] = {"id": pl.String, "x": pl.Float32, "n": pl.Int64}


def frame(*ids: str) -> pl.DataFrame:
    return pl.DataFrame({"id": ids, "x": [0.5] * len(ids), "n": range(len(ids))}, schema=SCHEMA)


def read(stored: tables.Stored) -> pl.DataFrame:
    return pl.scan_parquet(list(stored.files), glob=False).collect()


@pytest.mark.parametrize("name", ["set.parquet", "set"])
def test_what_was_written_is_read_with_its_lineage(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "PART_ROWS", 3)
    lineage: dict[str, Any] = {"spec_hash": "abc", "inputs": [{"sha256": "00"}]}

    def frames() -> Iterator[pl.DataFrame]:
        yield frame("a", "b")
        yield frame("c", "d")
        yield frame("e")
        lineage["rows"] = 5  # known only at the end

    tables.write(tmp_path / name, frames(), SCHEMA, lineage)
    stored = tables.open_dataset(tmp_path / name)
    assert read(stored)["id"].to_list() == ["a", "b", "c", "d", "e"]
    assert read(stored).schema == pl.Schema(SCHEMA)
    assert stored.lineage == {"spec_hash": "abc", "inputs": [{"sha256": "00"}], "rows": 5}
    if name == "set":
        assert len(stored.files) == 2  # of three rows or more each


@pytest.mark.parametrize("name", ["set.parquet", "set"])
def test_a_dataset_without_rows_is_a_dataset(tmp_path: Path, name: str) -> None:
    tables.write(tmp_path / name, [], SCHEMA, {})
    assert read(tables.open_dataset(tmp_path / name)).shape == (0, 3)


def test_each_version_of_a_table_stays_readable(tmp_path: Path) -> None:
    first = tables.write(tmp_path / "set", [frame("a")], SCHEMA, {"spec_hash": "1"})
    second = tables.write(tmp_path / "set", [frame("b")], SCHEMA, {"spec_hash": "2"})
    assert first.version is not None
    assert second.version is not None
    assert first.version < second.version
    for version, ids, spec in ((first.version, ["a"], "1"), (second.version, ["b"], "2"), (None, ["b"], "2")):
        stored = tables.open_dataset(tmp_path / "set", version)
        assert (read(stored)["id"].to_list(), stored.lineage["spec_hash"]) == (ids, spec)
    with pytest.raises(DatasetError, match=rf"has no version 99; the newest is {second.version}"):
        tables.open_dataset(tmp_path / "set", 99)


def test_polars_and_deltalake_read_it_as_any_table(tmp_path: Path) -> None:
    tables.write(tmp_path / "set", [frame("a", "b")], SCHEMA, {})
    assert pl.read_delta(str(tmp_path / "set")).sort("id").equals(frame("a", "b"))


@pytest.mark.parametrize("name", ["set.parquet", "set"])
def test_what_fails_on_the_way_leaves_the_dataset_as_it_was(tmp_path: Path, name: str) -> None:
    def breaks() -> Iterator[pl.DataFrame]:
        yield frame("b")
        raise RuntimeError("on the way")

    with pytest.raises(RuntimeError):
        tables.write(tmp_path / name, breaks(), SCHEMA, {})
    assert list(tmp_path.iterdir()) == []
    tables.write(tmp_path / name, [frame("a")], SCHEMA, {})
    before = sorted(tmp_path.rglob("*.parquet"))
    with pytest.raises(RuntimeError):
        tables.write(tmp_path / name, breaks(), SCHEMA, {})
    assert read(tables.open_dataset(tmp_path / name))["id"].to_list() == ["a"]
    assert sorted(tmp_path.rglob("*.parquet")) == before


def test_a_place_that_holds_something_else_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("")
    (tmp_path / "file").write_text("")
    (tmp_path / "d.parquet").mkdir()
    for name, message in (("folder", "holds something else"), ("file", "is a file"), ("d.parquet", "is a folder")):
        with pytest.raises(DatasetError, match=message):
            tables.check_target(tmp_path / name)


def test_what_is_no_dataset_is_said(tmp_path: Path) -> None:
    (tmp_path / "no.parquet").write_bytes(b"PAR1")
    (tmp_path / "folder").mkdir()
    for name, message in (
        ("gone", "there is no dataset"),
        ("no.parquet", "cannot be read"),
        ("folder", "cannot be read as a Delta table"),
    ):
        with pytest.raises(DatasetError, match=message):
            tables.open_dataset(tmp_path / name)
    tables.write(tmp_path / "a.parquet", [frame("a")], SCHEMA, {})
    with pytest.raises(DatasetError, match="has no versions"):
        tables.open_dataset(tmp_path / "a.parquet", 1)


def test_without_deltalake_the_extra_is_named_and_parquet_still_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.write(tmp_path / "set", [frame("a")], SCHEMA, {})
    monkeypatch.setitem(sys.modules, "deltalake", None)
    for call in (lambda: tables.check_target(tmp_path / "new"), lambda: tables.open_dataset(tmp_path / "set")):
        with pytest.raises(DatasetError, match="install weir with the extra datasets"):
            call()
    tables.write(tmp_path / "set.parquet", [frame("a")], SCHEMA, {})
    assert read(tables.open_dataset(tmp_path / "set.parquet"))["id"].to_list() == ["a"]
