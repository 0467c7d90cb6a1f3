"""Is a drift event evidence? The same settings on an archive as it happened, and with its weeks in another order.

Shuffled weeks keep weather, rhythm and everything else that makes neighbouring days alike, but no season and no trend.
A detector that fires as often there has found nothing but neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from monitors.block import Block, Column, Labelled, VersionLoss
from monitors.histogram import bins
from monitors.predictions import Kinds

DAY_MS = 86_400_000
_EPS = 1e-7


@dataclass(frozen=True)
class Examples:
    """An archive's rows by event time, in blocks of a day.

    day, label_day: int64 [n], days since the first one, of the event and of when its label was known (the later of
    both; −1: never). label, score: float64 [n], NaN where there is none. features: float32 or text columns [n].
    """

    first_ms: int
    day: np.ndarray
    label_day: np.ndarray
    label: np.ndarray
    score: np.ndarray
    features: pl.DataFrame

    @classmethod
    def of(cls, folder: Path) -> Examples:
        """Reads an archive's folder; a prediction that stands there twice counts once."""
        frame = pl.read_parquet(sorted(folder.glob("*.parquet")), glob=False)
        frame = frame.unique(["partition", "offset", "time"]).sort("time", "partition", "offset")
        time = frame["time"].to_numpy()
        first = int(time[0]) // DAY_MS
        known = frame.select(
            pl.when(pl.col("label_time").is_null()).then(-1).otherwise(pl.max_horizontal("time", "label_time"))
        )
        label_time = known.to_series().to_numpy()
        names = [name for name in frame.columns if name.startswith("feature.")]
        return cls(
            first_ms=first * DAY_MS,
            day=time // DAY_MS - first,
            label_day=np.where(label_time < 0, -1, label_time // DAY_MS - first),
            label=frame["label"].cast(pl.Float64).fill_null(np.nan).to_numpy(),
            score=frame["score"].cast(pl.Float64).fill_null(np.nan).to_numpy(),
            features=frame.select(pl.col(name).alias(name.removeprefix("feature.")) for name in names),
        )

    @property
    def kinds(self) -> Kinds:
        return {name: "category" if dtype == pl.String else "number" for name, dtype in self.features.schema.items()}

    def since(self, day: int) -> Examples:
        """The examples of events from a day on, which becomes day 0."""
        kept = self.day >= day
        found = Examples(
            self.first_ms + day * DAY_MS,
            self.day[kept] - day,
            np.where(self.label_day[kept] < 0, -1, self.label_day[kept] - day),
            self.label[kept],
            self.score[kept],
            self.features.filter(kept),
        )
        found.__dict__["columns"] = self.columns[day:]  # the same days, counted once
        return found

    @cached_property
    def columns(self) -> list[dict[str, Column]]:
        """Of each day, the features' columns, and the score's under the empty name."""
        days = int(self.day.max()) + 1
        found: list[dict[str, Column]] = [{} for _ in range(days)]
        for name in self.features.columns:
            values = self.features[name]
            if values.dtype == pl.String:
                _fill(found, name, self.day, values)
            else:
                _numbers(found, name, self.day, values.cast(pl.Float64).fill_null(np.nan).to_numpy())
        _numbers(found, "", self.day, self.score)
        return found

    def blocks(self, order: np.ndarray | None = None) -> Iterator[Block]:
        """Daily blocks. order: int64 [whole weeks]: week order[i] takes the i-th place; days of no whole week stay."""
        days = int(self.day.max()) + 1
        weeks = days // 7
        moved = np.arange(days) // 7
        if order is not None:
            moved[: weeks * 7] = np.argsort(order)[moved[: weeks * 7]]
        by = (moved - np.arange(days) // 7) * 7
        place = np.arange(days) + by
        known = (self.label_day >= 0) & np.isfinite(self.label)
        at = np.where(known, self.label_day + by[self.day], 0)
        p = np.clip(self.score, _EPS, 1 - _EPS)
        loss = -np.where(self.label >= 0.5, np.log(p), np.log1p(-p))
        wrong = (self.score >= 0.5) != (self.label >= 0.5)
        judged = known & np.isfinite(self.score)
        length = days + 40

        def sums(rows: np.ndarray, what: np.ndarray | None = None) -> np.ndarray:
            found: np.ndarray = np.bincount(at[rows], None if what is None else what[rows], length)
            return found

        n, values, m, losses, errors = (
            sums(known),
            sums(known, self.label),
            sums(judged),
            sums(judged, loss),
            sums(judged, wrong),
        )
        source = np.argsort(place)
        for day in range(days):
            columns = dict(self.columns[source[day]])
            score = columns.pop("")
            rows = score.n + score.nulls
            versions, labels, k, j = {}, Labelled(), int(n[day]), int(m[day])
            if j:
                versions["1"] = VersionLoss(n=j, served=j, loss=float(losses[day] / j), errors=float(errors[day] / j))
            if k:
                labels = Labelled(n=k, value=float(values[day] / k))
            yield Block(
                f"study-{day}",
                "study",
                day,
                self.first_ms + day * DAY_MS,
                self.first_ms + (day + 1) * DAY_MS,
                predictions=rows,
                unscored=score.nulls,
                served={"1": score.n} if score.n else {},
                features=columns,
                score=score,
                labels=labels,
                versions=versions,
            )

    def orders(self, shuffles: int, seed: int = 0) -> list[np.ndarray]:
        """Random orders of the whole weeks."""
        draw = np.random.default_rng(seed)
        return [draw.permutation((int(self.day.max()) + 1) // 7) for _ in range(shuffles)]


def _numbers(found: list[dict[str, Column]], name: str, day: np.ndarray, values: np.ndarray) -> None:
    there = np.isfinite(values)
    days = len(found)
    n = np.bincount(day[there], minlength=days)
    nulls = np.bincount(day[~there], minlength=days)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(day[there], values[there], days) / n
        square = np.bincount(day[there], (values[there] - mean[day[there]]) ** 2, days) / n
    number = bins(values[there]).astype(np.int64)
    key, counts = np.unique(day[there] * 8192 + number + 4096, return_counts=True)
    histograms: list[dict[str, int]] = [{} for _ in range(days)]
    for one, count in zip(key.tolist(), counts.tolist(), strict=True):
        histograms[one // 8192][str(one % 8192 - 4096)] = count
    for at in range(days):
        if n[at]:
            found[at][name] = Column(
                int(n[at]), int(nulls[at]), float(mean[at]), float(np.sqrt(square[at])), bins=histograms[at]
            )
        else:
            found[at][name] = Column(0, int(nulls[at]))


def _fill(found: list[dict[str, Column]], name: str, day: np.ndarray, values: pl.Series) -> None:
    frame = pl.DataFrame({"day": day, "value": values}).group_by("day", "value").len().sort("day", "value")
    counts: list[dict[str, int]] = [{} for _ in found]
    nulls = [0] * len(found)
    for at, value, count in frame.iter_rows():
        if value is None:
            nulls[at] = count
        else:
            counts[at][value] = count
    for at, one in enumerate(counts):
        found[at][name] = Column(sum(one.values()), nulls[at], bins=one)
