from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from models.dataset import Dataset, read, split_newest
from models.errors import DatasetError

NAMES = ["amount", "carrier"]
CODES = {"AA": 0, "UA": 1}
ENCODE = {"carrier": lambda raw: np.array([CODES.get(value, 2) for value in raw], dtype=np.float32)}


def archive(path: Path, rows: list[tuple], name: str = "0.parquet") -> Path:
    """rows: (time, partition, offset, label, amount, carrier)."""
    time, partition, offset, label, amount, carrier = zip(*rows, strict=True)
    pl.DataFrame(
        {
            "id": [f"id-{p}-{o}" for p, o in zip(partition, offset, strict=True)],
            "key": ["k"] * len(rows),
            "time": pl.Series(time, dtype=pl.Int64),
            "partition": pl.Series(partition, dtype=pl.Int32),
            "offset": pl.Series(offset, dtype=pl.Int64),
            "model": pl.Series([None] * len(rows), dtype=pl.String),
            "score": pl.Series([None] * len(rows), dtype=pl.Float64),
            "label": pl.Series(label, dtype=pl.Float64),
            "feature.amount": pl.Series(amount, dtype=pl.Float32),
            "feature.carrier": pl.Series(carrier, dtype=pl.String),
        }
    ).write_parquet(path / name)
    return path


def load(path: Path, names: list[str] = NAMES, **options) -> Dataset:
    return read(path, names, encode=ENCODE, sizes={"carrier": 3}, **options)


def test_rows_come_in_the_order_of_time_partition_and_offset_whatever_the_files(tmp_path: Path) -> None:
    archive(tmp_path, [(30, 0, 5, 1.0, 3.0, "AA"), (10, 1, 7, 0.0, 1.0, "UA")], "a.parquet")
    archive(tmp_path, [(10, 0, 4, 1.0, 2.0, "??"), (10, 0, 3, 0.0, None, None)], "b.parquet")
    data = load(tmp_path)
    assert data.ids == ("id-0-3", "id-0-4", "id-1-7", "id-0-5")
    assert data.times.tolist() == [10, 10, 10, 30]
    assert data.labels.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(data.matrix, np.array([[np.nan, 2], [2, 2], [1, 1], [3, 0]], dtype=np.float32))
    assert (data.matrix.dtype, data.labels.dtype, data.times.dtype) == (np.float32, np.float64, np.int64)


def test_the_columns_follow_the_names_asked_for(tmp_path: Path) -> None:
    archive(tmp_path, [(1, 0, 0, 1.0, 3.0, "UA")])
    assert load(tmp_path, ["carrier", "amount"]).matrix.tolist() == [[1, 3]]
    assert load(tmp_path, ["amount"]).matrix.tolist() == [[3]]


def test_one_event_written_twice_counts_once_and_with_its_label(tmp_path: Path) -> None:
    row = (1, 0, 0, 1.0, 3.0, "UA")
    archive(tmp_path, [row, (2, 0, 1, 0.0, 4.0, "AA")], "a.parquet")
    archive(tmp_path, [(1, 0, 0, None, 3.0, "UA"), row], "b.parquet")
    assert load(tmp_path).ids == ("id-0-0", "id-0-1")


def test_events_of_two_brokers_at_one_offset_are_two_events(tmp_path: Path) -> None:
    archive(tmp_path, [(1, 0, 0, 1.0, 3.0, "UA")], "a.parquet")
    archive(tmp_path, [(9, 0, 0, 0.0, 4.0, "AA")], "b.parquet")
    assert load(tmp_path).labels.tolist() == [1, 0]


def test_events_without_a_label_are_left_out(tmp_path: Path) -> None:
    archive(tmp_path, [(1, 0, 0, None, 3.0, "UA"), (2, 0, 1, float("nan"), 1.0, "UA"), (3, 0, 2, 0.5, 1.0, "UA")])
    assert load(tmp_path).labels.tolist() == [0.5]


def test_a_range_of_time_takes_its_start_and_not_its_end(tmp_path: Path) -> None:
    archive(tmp_path, [(t, 0, t, 1.0, 3.0, "UA") for t in range(10)])
    assert load(tmp_path, from_ms=3, to_ms=6).times.tolist() == [3, 4, 5]


def test_the_digest_names_the_data_and_not_the_files(tmp_path: Path) -> None:
    rows = [(t, 0, t, float(t % 2), 3.0, "UA") for t in range(4)]
    one, two, other = (tmp_path / name for name in ("one", "two", "other"))
    for folder in (one, two, other):
        folder.mkdir()
    archive(one, rows)
    archive(two, rows[2:], "a.parquet")
    archive(two, rows[:2], "b.parquet")
    archive(other, [*rows[:3], (3, 0, 3, 1.0, 3.5, "UA")])
    assert load(one).digest == load(two).digest
    assert load(one).digest != load(other).digest


def test_a_file_cut_short_or_damaged_is_skipped_and_reported(tmp_path: Path) -> None:
    rows = [(t, 0, t, 1.0, float(t), "UA") for t in range(1000)]
    archive(tmp_path, rows, "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "damaged.parquet").write_bytes(whole[:4] + b"\xff" * (len(whole) // 2) + whole[4 + len(whole) // 2 :])
    (tmp_path / "empty.parquet").write_bytes(b"")
    data = load(tmp_path)
    assert len(data) == 1000
    assert [reason.split(":")[0] for reason in data.skipped] == [
        "cut.parquet",
        "damaged.parquet",
        "empty.parquet",
    ]
    assert all("\n" not in reason for reason in data.skipped)


def test_a_file_of_another_feature_list_is_skipped_with_the_feature(tmp_path: Path) -> None:
    archive(tmp_path, [(1, 0, 0, 1.0, 3.0, "UA")], "old.parquet")
    archive(tmp_path, [(2, 0, 1, 1.0, 3.0, "UA")], "new.parquet")
    new = pl.read_parquet(tmp_path / "new.parquet").with_columns(pl.lit(7.0).alias("feature.hour"))
    new.write_parquet(tmp_path / "new.parquet")
    data = load(tmp_path, [*NAMES, "hour"])
    assert data.matrix.tolist() == [[3, 1, 7]]
    (reason,) = data.skipped
    assert reason.startswith("old.parquet")
    assert "feature.hour" in reason


def test_an_archive_with_nothing_to_read_is_an_error_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no archive at"):
        load(tmp_path / "nowhere")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match=r"can be read; cut.parquet: "):
        load(tmp_path)
    archive(tmp_path, [(1, 0, 0, None, 3.0, "UA")])
    with pytest.raises(DatasetError, match="no labelled events"):
        load(tmp_path)


def with_label_times(path: Path, known: list[int | None]) -> None:
    table = pl.read_parquet(path).with_columns(pl.Series("label_time", known, dtype=pl.Int64))
    table.write_parquet(path)


def test_what_was_known_by_then_is_the_same_however_much_the_archive_has_grown(tmp_path: Path) -> None:
    archive(tmp_path, [(t, 0, t, float(t % 2), 3.0, "UA") for t in range(6)], "a.parquet")
    with_label_times(tmp_path / "a.parquet", [10, 30, 20, 19, None, 25])
    then = load(tmp_path, known_before_ms=20)
    assert then.times.tolist() == [0, 3], "a label of that very moment, and one of no moment, are not known before it"
    archive(tmp_path, [(9, 0, 9, 1.0, 3.0, "UA"), (2, 1, 9, 1.0, 3.0, "UA")], "b.parquet")
    with_label_times(tmp_path / "b.parquet", [40, 20])
    assert load(tmp_path, known_before_ms=20).digest == then.digest
    assert load(tmp_path, known_before_ms=21).times.tolist() == [0, 2, 2, 3]
    assert load(tmp_path, known_before_ms=21, from_ms=2, to_ms=3).times.tolist() == [2, 2]


def test_a_file_without_label_times_cannot_say_what_was_known_and_is_skipped(tmp_path: Path) -> None:
    archive(tmp_path, [(1, 0, 0, 1.0, 3.0, "UA")], "old.parquet")
    archive(tmp_path, [(2, 0, 1, 1.0, 3.0, "UA")], "new.parquet")
    with_label_times(tmp_path / "new.parquet", [5])
    data = load(tmp_path, known_before_ms=9)
    assert data.times.tolist() == [2]
    (reason,) = data.skipped
    assert reason.startswith("old.parquet")
    assert "label_time" in reason


def test_a_cut_short_file_costs_only_its_own_rows_when_asking_what_was_known(tmp_path: Path) -> None:
    for name, at in (("a", 0), ("b", 1000)):
        archive(tmp_path, [(at + t, 0, at + t, 1.0, float(t), "UA") for t in range(1000)], f"{name}.parquet")
        with_label_times(tmp_path / f"{name}.parquet", list(range(at, at + 1000)))
    whole = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    data = load(tmp_path, known_before_ms=500)
    assert data.times.tolist() == list(range(500))
    assert [reason.split(":")[0] for reason in data.skipped] == ["b.parquet"]


def test_the_newest_rows_are_split_off_and_both_parts_keep_their_order(tmp_path: Path) -> None:
    archive(tmp_path, [(t, 0, t, float(t % 2), float(t), "UA") for t in range(100)])
    data = load(tmp_path)
    train, holdout = split_newest(data, 0.1)
    assert (train.times.tolist(), holdout.times.tolist()) == (list(range(90)), list(range(90, 100)))
    for part, rows in ((train, slice(0, 90)), (holdout, slice(90, 100))):
        np.testing.assert_array_equal(part.matrix, data.matrix[rows])
        np.testing.assert_array_equal(part.labels, data.labels[rows])
        assert part.ids == data.ids[rows]
        assert (part.names, part.sizes) == (data.names, data.sizes)
    assert len({data.digest, train.digest, holdout.digest}) == 3
    assert len(split_newest(data, 0.5, most=7)[1]) == 7, "a large archive need not give up a share of itself"


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_that_leaves_one_side_empty_is_refused(tmp_path: Path, share: float) -> None:
    archive(tmp_path, [(1, 0, 0, 1.0, 3.0, "UA")])
    with pytest.raises(ValueError, match="between 0 and 1"):
        split_newest(load(tmp_path), share)
