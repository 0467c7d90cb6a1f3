"""Labels from files, joined by id as the monitor joins them: the first that came, if it came in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl

from streams.errors import UsageError
from streams.offline.columns import TIMESTAMP
from streams.offline.files import Input
from streams.offline.frames import LABELS
from streams.offline.reading import rows_of
from streams.offline.rejects import Reject
from streams.offline.rows import TIME, Reading, Rows
from streams.offline.wanted import wanted_labels
from streams.pipeline import Labels


class LabelTable:
    """All labels of the files, in memory: about 100 bytes each. rows: how many there are, ids that come twice once."""

    def __init__(
        self, labels: Labels, files: Input, reading: Reading, rejected: Callable[[list[Reject]], None]
    ) -> None:
        self._labels = labels
        wanted = wanted_labels(labels)
        frames = []
        for path in files.paths:
            for rows in rows_of(wanted, path, files.format, reading):
                if rows.rejects:
                    rejected(rows.rejects)
                frames.append(self._frame(rows, str(path)))
        self._table = pl.concat(frames).unique("id", keep="first", maintain_order=True) if frames else _empty()

    @property
    def rows(self) -> int:
        return len(self._table)

    def of(self, ids: Sequence[str], times: np.ndarray) -> dict[str, Any]:
        """The columns label and label_time of events; null where there is none, or it came too late."""
        events = pl.DataFrame({"id": ids, "time": times}, schema={"id": pl.String, "time": pl.Int64})
        joined = events.join(self._table, on="id", how="left", maintain_order="left")
        in_time = pl.col("label_time") - pl.col("time") <= self._labels.within_ms
        return joined.select(pl.when(in_time).then(pl.col(name)).alias(name) for name in LABELS).to_dict()

    def _frame(self, rows: Rows, path: str) -> pl.DataFrame:
        columns = rows.columns
        ids = columns[self._labels.id]
        times = columns.get(TIME, columns.get(TIMESTAMP))
        if times is None:
            raise UsageError(
                f"{path}: labels without a time: declare Labels(time=…), or name the column with the records' "
                "timestamps: --timestamp"
            )
        try:
            values = self._labels.values(columns)
        except Exception as error:  # the function is the user's
            raise UsageError(f"labels: value fails on {path}: {type(error).__name__}: {error}") from error
        found = {
            "id": ids if isinstance(ids, list) else list(map(str, ids.tolist())),
            "label": values,
            "label_time": times,
        }
        return pl.DataFrame(found, schema=_SCHEMA).filter(pl.col("label").is_finite())


_SCHEMA: dict[str, Any] = {"id": pl.String, **LABELS}


def _empty() -> pl.DataFrame:
    return pl.DataFrame(schema=_SCHEMA)
