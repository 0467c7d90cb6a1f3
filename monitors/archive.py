"""The archive: predictions with their features and labels, as Parquet files that training reads.

Columns: id, key, time, partition, offset, model, version, arm, deployment, score, label, label_time, and one
column `feature.<name>` for each feature, float32 or, for a category, its text. Missing values are null. The
score of a model of several classes is not archived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import polars as pl

from monitors.join import Joined
from monitors.predictions import Kinds


class Archive:
    """Collects rows in memory and writes them to `folder`, `rows` a file, each whole or not at all.

    A file is named after its first row, so that one written twice takes the place of its like.
    """

    def __init__(self, folder: Path, kinds: Kinds, rows: int = 10_000) -> None:
        self._folder = folder
        self._rows = rows
        self._waiting: list[Joined] = []
        self._columns = _columns(kinds)
        self.written = 0

    def __len__(self) -> int:
        """Rows not yet written."""
        return len(self._waiting)

    def add(self, rows: Iterable[Joined]) -> None:
        """Takes rows in, and writes a file whenever there are enough."""
        self._waiting += rows
        while len(self._waiting) >= self._rows:
            self._write(self._waiting[: self._rows])
            self._waiting = self._waiting[self._rows :]

    def flush(self) -> None:
        """Writes what is left."""
        if self._waiting:
            self._write(self._waiting)
            self._waiting = []

    def _write(self, rows: Sequence[Joined]) -> None:
        frame = pl.DataFrame(
            {name: [get(row) for row in rows] for name, (get, _) in self._columns.items()},
            schema={name: dtype for name, (_, dtype) in self._columns.items()},
        )
        first = rows[0].prediction
        path = self._folder / f"{first.time:014d}-{first.source.partition}-{first.source.offset}.parquet"
        self._folder.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        frame.write_parquet(fresh, compression="zstd")
        fresh.replace(path)
        self.written += len(rows)


_Column = tuple[Callable[[Joined], Any], Any]


def _columns(kinds: Kinds) -> dict[str, _Column]:
    text, whole, real = pl.String(), pl.Int64(), pl.Float64()
    columns: dict[str, _Column] = {
        "id": (attrgetter("prediction.id"), text),
        "key": (attrgetter("prediction.key"), text),
        "time": (attrgetter("prediction.time"), whole),
        "partition": (attrgetter("prediction.source.partition"), pl.Int32()),
        "offset": (attrgetter("prediction.source.offset"), whole),
        **{name: (attrgetter(f"prediction.{name}"), text) for name in ("model", "version", "arm", "deployment")},
        "score": (_score, real),
        "label": (lambda row: None if row.label is None else row.label.value, real),
        "label_time": (lambda row: None if row.label is None else row.label.time, whole),
    }
    for name, kind in kinds.items():
        columns[f"feature.{name}"] = (
            attrgetter(f"prediction.features.{name}"),
            text if kind == "category" else pl.Float32(),
        )
    return columns


def _score(row: Joined) -> float | None:
    score = row.prediction.score
    return None if isinstance(score, list) else score
