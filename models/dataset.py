"""Training data: the archive of scored events with their logged features, joined with labels."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from models.errors import DatasetError, one_line

Encode = Mapping[str, Callable[[list[Any]], np.ndarray]]
"""By feature: raw categories as logged (str | None) → codes float32 [n], as in serving."""


@dataclass(frozen=True)
class Dataset:
    """n labelled events in the order of (time, partition, offset).

    matrix: float32 [n, d], columns as `names`, NaN = missing; what the model saw when the events were scored.
    labels: float64 [n]; times: int64 [n], event time in ms; ids: the events' ids.
    sizes: number of codes of the categorical features (codes run from 0; the last means unknown or missing).
    digest: SHA-256 of all of this; skipped: files left out, each with its reason.
    """

    matrix: np.ndarray
    labels: np.ndarray
    times: np.ndarray
    ids: tuple[str, ...]
    names: tuple[str, ...]
    sizes: Mapping[str, int]
    digest: str
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)


HOLDOUT_SHARE, HOLDOUT_ROWS = 0.2, 8_000
"""Of the newest rows: enough to tell two models apart by, and no more than training can do without."""


def split_newest(dataset: Dataset, share: float = HOLDOUT_SHARE, most: int = HOLDOUT_ROWS) -> tuple[Dataset, Dataset]:
    """The earlier rows, to train on, and the newest `share` of them, `most` at most, to judge what comes of it.

    Both in the order of time, with digests of their own.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share that is held out must lie between 0 and 1, not {share}")
    cut = len(dataset) - min(round(len(dataset) * share), most)
    return _part(dataset, 0, cut), _part(dataset, cut, len(dataset))


def _part(dataset: Dataset, start: int, stop: int) -> Dataset:
    rows = slice(start, stop)
    return dataclasses.replace(
        dataset,
        matrix=dataset.matrix[rows],
        labels=dataset.labels[rows],
        times=dataset.times[rows],
        ids=dataset.ids[rows],
        digest=hashlib.sha256(f"{dataset.digest} {start} {stop}".encode()).hexdigest(),
    )


def read(
    path: Path,
    names: Sequence[str],
    *,
    encode: Encode,
    sizes: Mapping[str, int],
    files: Sequence[Path] | None = None,
    from_ms: int | None = None,
    to_ms: int | None = None,
    known_before_ms: int | None = None,
) -> Dataset:
    """The labelled events of the archive at `path` (a folder of Parquet files) with from_ms <= time < to_ms.

    files: those of a dataset at `path`, in place of all that lie in the folder.
    known_before_ms: and only those whose label was known by then: label_time < known_before_ms. Of an archive that has
    grown since, it gives what there was.

    names: the features, in the model's order; encode, sizes: of those that are categories.
    Of two records of one event one is kept; it is known by id, time, partition and offset, for another broker
    begins its offsets anew. A file that is cut short, damaged or of another feature list is skipped and
    reported. Raises DatasetError when nothing is left.
    """
    files = sorted(path.glob("*.parquet")) if files is None else files
    if not files:
        raise DatasetError(f"no archive at {path}; run the pipeline with labels first")
    frames, skipped = [], []
    for file in files:
        try:
            frames.append(_read_file(file, names, encode, from_ms, to_ms, known_before_ms))
        except (pl.exceptions.PolarsError, OSError, pl.exceptions.PanicException) as error:
            skipped.append(f"{file.name}: {one_line(error, 160)}")
    if not frames:
        raise DatasetError(f"no file of the archive at {path} can be read; {skipped[0]}")
    table = pl.concat(frames)
    order = ["time", "partition", "offset"]
    table = table.sort([*order, "label", "id"]).unique([*order, "id"], keep="first", maintain_order=True)
    if table.is_empty():
        raise DatasetError(f"no labelled events in the archive at {path} in this range of time")
    columns = [_column(table[f"feature.{name}"], name, encode) for name in names]
    matrix = np.stack(columns, axis=1) if columns else np.empty((len(table), 0), dtype=np.float32)
    labels = table["label"].to_numpy().astype(np.float64)
    times = table["time"].to_numpy().astype(np.int64)
    digest = hashlib.sha256("\0".join(names).encode())
    for part in (matrix, labels, times, table["partition"].to_numpy(), table["offset"].to_numpy()):
        digest.update(np.ascontiguousarray(part).tobytes())
    return Dataset(
        matrix=matrix,
        labels=labels,
        times=times,
        ids=tuple(table["id"].to_list()),
        names=tuple(names),
        sizes=dict(sizes),
        digest=digest.hexdigest(),
        skipped=tuple(skipped),
    )


def _read_file(
    file: Path,
    names: Sequence[str],
    encode: Encode,
    from_ms: int | None,
    to_ms: int | None,
    known_before_ms: int | None,
) -> pl.DataFrame:
    """The labelled rows of one file, in the types of the archive."""
    types: dict[str, Any] = {
        "id": pl.String, "time": pl.Int64, "partition": pl.Int32, "offset": pl.Int64, "label": pl.Float64,
    }  # fmt: skip
    types |= {f"feature.{name}": pl.String if name in encode else pl.Float32 for name in names}
    columns = list(types) if known_before_ms is None else [*types, "label_time"]
    table = pl.read_parquet(file, columns=columns, glob=False, hive_partitioning=False)
    table = table.filter(pl.col("label").is_not_null() & pl.col("label").cast(pl.Float64).is_finite())
    if from_ms is not None:
        table = table.filter(pl.col("time") >= from_ms)
    if to_ms is not None:
        table = table.filter(pl.col("time") < to_ms)
    if known_before_ms is not None:
        table = table.filter(pl.col("label_time") < known_before_ms)
    return table.select(pl.col(name).cast(dtype) for name, dtype in types.items())


def _column(series: pl.Series, name: str, encode: Encode) -> np.ndarray:
    if name in encode:
        return encode[name](series.to_list()).astype(np.float32)
    return series.fill_null(float("nan")).to_numpy().astype(np.float32)
