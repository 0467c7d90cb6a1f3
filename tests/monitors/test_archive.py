"""The archive's files: columns, types, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from monitors.archive import Archive, Place
from monitors.join import Joined
from tests.monitors.records import HOUR, KINDS, label, prediction

COMMIT = ("a0", 1)


def rows(n: int) -> list[Joined]:
    return [Joined(prediction(f"p{i}", i * HOUR, offset=i, amount=i / 3), label(f"p{i}")) for i in range(n)]


def test_a_row_has_the_prediction_its_label_and_one_column_a_feature(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "flights", KINDS)
    archive.add([Joined(prediction("a", 5, partition=1, offset=7, score=0.25), label("a", 9, 1.0))])
    archive.add([Joined(prediction("b", 6, offset=8, score=None, amount=None, city=None), None)])
    archive.flush(*COMMIT)
    frame = pl.read_parquet(tmp_path / "flights" / "*.parquet")
    assert frame.to_dicts() == [
        {
            "id": "a",
            "key": "k",
            "time": 5,
            "partition": 1,
            "offset": 7,
            "model": "m",
            "version": "1",
            "arm": "champion",
            "deployment": "d",
            "score": 0.25,
            "label": 1.0,
            "label_time": 9,
            "feature.amount": 1.5,
            "feature.city": "Rome",
        },
        {
            "id": "b",
            "key": "k",
            "time": 6,
            "partition": 0,
            "offset": 8,
            "model": "m",
            "version": "1",
            "arm": "champion",
            "deployment": "d",
            "score": None,
            "label": None,
            "label_time": None,
            "feature.amount": None,
            "feature.city": None,
        },
    ]
    assert frame.schema["feature.amount"] == pl.Float32
    assert frame.schema["partition"] == pl.Int32


def test_a_file_holds_at_most_so_many_rows(tmp_path: Path) -> None:
    archive = Archive(tmp_path, KINDS, rows=10)
    archive.add(rows(25))
    assert archive.full
    assert [row.prediction.source.offset for row in archive.flush(*COMMIT)] == list(range(25))
    assert (archive.written, len(archive), archive.full) == (25, 0, False)
    assert len(list(tmp_path.iterdir())) == 3
    assert pl.read_parquet(tmp_path / "*.parquet").sort("offset")["offset"].to_list() == list(range(25))


def test_rows_that_come_before_the_same_commit_do_not_replace_its_others(tmp_path: Path) -> None:
    archive = Archive(tmp_path, KINDS)
    for row in rows(2):
        archive.add([row])
        archive.flush(*COMMIT)
    assert pl.read_parquet(tmp_path / "*.parquet").height == 2


def test_files_of_a_commit_that_never_came_are_removed(tmp_path: Path) -> None:
    archive = Archive(tmp_path, KINDS)
    for commit, row in enumerate(rows(4), start=9):
        archive.add([row])
        archive.flush("ab", commit)
    other = Archive(tmp_path, KINDS)
    other.add(rows(1))
    other.flush("cd", 99)
    assert archive.discard_after("ab", 10) == 2
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["ab-0000000009-0000.parquet", "ab-0000000010-0000.parquet", "cd-0000000099-0000.parquet"]


def test_it_knows_the_places_of_what_it_holds(tmp_path: Path) -> None:
    archive = Archive(tmp_path, KINDS)
    archive.add(rows(3))
    archive.flush(*COMMIT)
    (tmp_path / "zz-0000000001-0000.parquet").write_bytes(b"cut short")
    assert archive.places(HOUR) == {Place(0, 1, HOUR): "p1", Place(0, 2, 2 * HOUR): "p2"}
    archive.add(rows(5))
    archive.leave_out(archive.places(0))
    assert [row.prediction.id for row in archive.flush("a0", 2)] == ["p3", "p4"]


def test_a_full_disk_is_an_error_and_costs_no_row(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.write_text("a file is where the folder should be")
    archive = Archive(folder, KINDS)
    archive.add(rows(3))
    with pytest.raises(OSError):
        archive.flush(*COMMIT)
    folder.unlink()
    assert len(archive.flush(*COMMIT)) == 3


def test_what_an_interrupted_write_left_behind_is_not_read_and_goes(tmp_path: Path) -> None:
    left = tmp_path / "a0-0000000001-0000.parquet.new"
    left.write_bytes(b"half a file")
    archive = Archive(tmp_path, KINDS)
    assert archive.places(0) == {}
    assert archive.discard_after("a0", 1) == 0
    assert not left.exists()


def test_nothing_to_write_makes_no_file(tmp_path: Path) -> None:
    Archive(tmp_path / "none", KINDS).flush(*COMMIT)
    assert not (tmp_path / "none").exists()


def test_the_scores_of_several_classes_are_left_out(tmp_path: Path) -> None:
    archive = Archive(tmp_path, KINDS)
    archive.add([Joined(prediction("a", score=[0.1, 0.9]), None)])
    archive.flush(*COMMIT)
    assert pl.read_parquet(tmp_path / "*.parquet")["score"].to_list() == [None]
