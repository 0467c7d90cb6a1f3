"""The archive: predictions with their features and labels, as Parquet files that training reads.

Columns: id, key, time, partition, offset, model, version, arm, deployment, score, label, label_time, and one
column `feature.<name>` for each feature, float32 or, for a category, its text. Missing values are null. The
score of a model of several classes is not archived.

A file is `<incarnation>-<commit>-<part>.parquet`: it is written before its commit, so a file above the last
commit is of one that never came.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Container, Iterable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from msgspec.structs import astuple

from monitors.join import Joined
from monitors.predictions import Kinds

_NAME = re.compile(r"([0-9a-f]+)-(\d{10})-(\d{4})\.parquet")


class Place(NamedTuple):
    """What makes an archived example one: where its event lies, and its time, for another broker counts anew."""

    partition: int
    offset: int
    time: int


class Archive:
    """Collects rows in memory and writes them to `folder`, at most `rows` a file, each file whole or not at all."""

    def __init__(self, folder: Path, kinds: Kinds, rows: int = 10_000) -> None:
        self._folder = folder
        self._rows = rows
        self._waiting: list[Joined] = []
        self._schema = _schema(kinds)
        self._passed: Collection[Place] = ()
        self._commit: tuple[str, int] = ("", 0)
        self._part = 0
        self.written = 0

    def __len__(self) -> int:
        """Rows not yet written."""
        return len(self._waiting)

    @property
    def waiting(self) -> Sequence[Joined]:
        """Rows not yet written."""
        return self._waiting

    @property
    def full(self) -> bool:
        """Whether there is enough for a file."""
        return len(self._waiting) >= self._rows

    def add(self, rows: Iterable[Joined]) -> None:
        """Takes rows in; they are written by the next `flush`."""
        self._waiting += [row for row in rows if place_of(row) not in self._passed] if self._passed else rows

    def pass_over(self, places: Collection[Place]) -> None:
        """From now on, rows that lie at one of `places` are not taken in."""
        self._passed = places
        self.leave_out(places)

    def leave_out(self, places: Container[Place]) -> None:
        """Drops rows that wait and lie at one of `places`: the archive has them already."""
        self._waiting = [row for row in self._waiting if place_of(row) not in places]

    def flush(self, incarnation: str, commit: int) -> list[Joined]:
        """Writes what there is for the commit number `commit`; returns the rows.

        Raises OSError, where what is not yet written stays.
        """
        if self._commit != (incarnation, commit):
            self._commit, self._part = (incarnation, commit), 0
        written: list[Joined] = []
        while self._waiting:
            rows = self._waiting[: self._rows]
            self._write(rows, f"{incarnation}-{commit:010d}-{self._part:04d}.parquet")
            self._part += 1
            self._waiting = self._waiting[self._rows :]
            self.written += len(rows)
            written += rows
        return written

    def discard_after(self, incarnation: str, commit: int) -> int:
        """Removes the files of commits that never came, and what an interrupted write left; returns how many files."""
        gone = 0
        for half in self._folder.glob("*.parquet.new"):
            half.unlink()
        for path in self._folder.glob(f"{incarnation}-*.parquet"):
            found = _NAME.fullmatch(path.name)
            if found and int(found[2]) > commit:
                path.unlink()
                gone += 1
        return gone

    def places(self, from_ms: int) -> dict[Place, str]:
        """The ids of all archived rows of events from `from_ms` on. A file that cannot be read holds none."""
        found: dict[Place, str] = {}
        for path in sorted(self._folder.glob("*.parquet")):
            try:
                frame = (
                    pl.scan_parquet(path, glob=False)
                    .filter(pl.col("time") >= from_ms)
                    .select("partition", "offset", "time", "id")
                    .collect()
                )
            except (pl.exceptions.PolarsError, OSError):
                continue
            columns = (frame[name].to_list() for name in ("partition", "offset", "time", "id"))
            for partition, offset, time, name in zip(*columns, strict=True):
                found[Place(partition, offset, time)] = name
        return found

    def _write(self, rows: Sequence[Joined], name: str) -> None:
        frame = pl.DataFrame(
            dict(zip(self._schema, _columns(rows), strict=True)), schema=self._schema, nan_to_null=False, strict=True
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        fresh = self._folder / f"{name}.new"
        try:
            frame.write_parquet(fresh, compression="zstd")
        except pl.exceptions.ComputeError as error:  # a full disk, said in polars' own way
            raise OSError(str(error)) from error
        fresh.replace(self._folder / name)


def place_of(row: Joined) -> Place:
    prediction = row.prediction
    return Place(prediction.source.partition, prediction.source.offset, prediction.time)


def _schema(kinds: Kinds) -> dict[str, Any]:
    text, whole, real = pl.String(), pl.Int64(), pl.Float64()
    features = {f"feature.{name}": text if kind == "category" else pl.Float32() for name, kind in kinds.items()}
    return {
        "id": text, "key": text, "time": whole, "partition": pl.Int32(), "offset": whole,
        **dict.fromkeys(("model", "version", "arm", "deployment"), text),
        "score": real, "label": real, "label_time": whole, **features,
    }  # fmt: skip


def _columns(rows: Sequence[Joined]) -> list[Sequence[Any]]:
    """The values of `_schema`, column by column."""
    predictions = [row.prediction for row in rows]
    sources = list(map(attrgetter("source"), predictions))
    labels = [row.label for row in rows]
    return [
        *(list(map(attrgetter(name), predictions)) for name in ("id", "key", "time")),
        *(list(map(attrgetter(name), sources)) for name in ("partition", "offset")),
        *(list(map(attrgetter(name), predictions)) for name in ("model", "version", "arm", "deployment")),
        [None if isinstance(score, list) else score for score in map(attrgetter("score"), predictions)],
        [None if label is None else label.value for label in labels],
        [None if label is None else label.time for label in labels],
        *zip(*(astuple(prediction.features) for prediction in predictions), strict=True),
    ]
