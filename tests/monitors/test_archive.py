"""The archive's files: columns, types, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from monitors.archive import Archive
from monitors.join import Joined
from tests.monitors.records import HOUR, KINDS, label, prediction


def rows(n: int) -> list[Joined]:
    return [Joined(prediction(f"p{i}", i * HOUR, offset=i, amount=i / 3), label(f"p{i}")) for i in range(n)]


def test_a_row_has_the_prediction_its_label_and_one_column_a_feature(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "flights", KINDS)
    archive.add([Joined(prediction("a", 5, partition=1, offset=7, score=0.25), label("a", 9, 1.0))])
    archive.add([Joined(prediction("b", 6, offset=8, score=None, amount=None, city=None), None)])
    archive.flush()
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


def test_a_file_is_written_whenever_there_are_enough_rows(tmp_path: Path) -> None:
    archive = Archive(tmp_path, KINDS, rows=10)
    archive.add(rows(25))
    assert (archive.written, len(archive)) == (20, 5)
    archive.flush()
    assert (archive.written, len(archive)) == (25, 0)
    assert len(list(tmp_path.iterdir())) == 3
    assert pl.read_parquet(tmp_path / "*.parquet").sort("offset")["offset"].to_list() == list(range(25))


def test_the_same_rows_written_again_replace_their_file(tmp_path: Path) -> None:
    for _ in range(2):
        archive = Archive(tmp_path, KINDS)
        archive.add(rows(5))
        archive.flush()
    assert pl.read_parquet(tmp_path / "*.parquet").height == 5


def test_what_an_interrupted_write_left_behind_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "00000000000000-0-0.new").write_bytes(b"half a file")
    archive = Archive(tmp_path, KINDS)
    archive.add(rows(3))
    archive.flush()
    assert [path.suffix for path in tmp_path.iterdir()] == [".parquet"]


def test_nothing_to_write_makes_no_file(tmp_path: Path) -> None:
    Archive(tmp_path / "none", KINDS).flush()
    assert not (tmp_path / "none").exists()


def test_the_scores_of_several_classes_are_left_out(tmp_path: Path) -> None:
    archive = Archive(tmp_path, KINDS)
    archive.add([Joined(prediction("a", score=[0.1, 0.9]), None)])
    archive.flush()
    assert pl.read_parquet(tmp_path / "*.parquet")["score"].to_list() == [None]
