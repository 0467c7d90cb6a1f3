"""A block while it is open: sums to which predictions and labels are added, in any order, batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from operator import attrgetter, itemgetter, methodcaller
from typing import Any
from zlib import crc32

import msgspec
import numpy as np

from monitors.block import Column, Labelled, Paired, VersionLoss
from monitors.join import Joined
from monitors.performance import EPS
from monitors.predictions import Kinds, Prediction
from monitors.statistics import LOSS_SUMS, ONE, PAIR_SUMS, column, compare, fold, judge

MOST_FREQUENT = 200
"""Categories of a feature that a block tells apart."""
REST = "…"
"""All others."""
_DISTINCT = 4096
_LENGTH = 64

_time, _score, _version, _shadows = map(attrgetter, ("time", "score", "version", "shadows"))
_label_time, _label_value = attrgetter("time"), attrgetter("value")
_nothing: dict[str, Any] = {}


class Categories(msgspec.Struct):
    """How often each category came. Above 4,096 distinct ones those with the least CRC-32 are counted, whole.

    Which these are does not depend on the order: one that is dropped once is never among the least again.
    """

    n: int = 0
    nulls: int = 0
    counts: dict[str, int] = {}

    def add(self, values: Sequence[str | None]) -> None:
        found = Counter(values)
        nulls = found.pop(None, 0)
        self.nulls += nulls
        self.n += len(values) - nulls
        for value, times in found.items():
            assert value is not None
            name = value if len(value) <= _LENGTH else value[:_LENGTH] + REST
            self.counts[name] = self.counts.get(name, 0) + times
        if len(self.counts) > _DISTINCT:
            kept = sorted(self.counts, key=lambda name: (crc32(name.encode("utf-8", "replace")), name))[:_DISTINCT]
            self.counts = {name: self.counts[name] for name in kept}

    def column(self) -> Column:
        frequent = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:MOST_FREQUENT]
        bins = dict(frequent)
        rest = self.n - sum(bins.values())
        if rest:
            bins[REST] = bins.get(REST, 0) + rest
        return Column(self.n, self.nulls, bins=bins)


class OpenBlock(msgspec.Struct):
    """The sums of one block; its columns of numbers lie beside it, in `statistics.Columns`: features, score, label.

    first, last: least and greatest event time, ms, where blocks are made of events. versions, paired: LOSS_SUMS and
    PAIR_SUMS. judged: rows with a loss that a version was served on.
    """

    first: int | None = None
    last: int | None = None
    predictions: int = 0
    unscored: int = 0
    late: int = 0
    served: dict[str, int] = {}
    categories: dict[str, Categories] = {}
    labelled: int = 0
    delay_ms: int = 0
    counts: dict[str, int] = {}
    versions: dict[str, list[int]] = {}
    judged: dict[str, int] = {}
    paired: dict[str, dict[str, list[int]]] = {}

    def cover(self, first: int, last: int) -> None:
        self.first = first if self.first is None else min(self.first, first)
        self.last = last if self.last is None else max(self.last, last)

    def add_predictions(self, found: Sequence[Prediction], kinds: Kinds, cells: np.ndarray) -> None:
        """cells: int64 [columns, WIDTH], of this block."""
        self.predictions += len(found)
        scores = list(map(_score, found))
        unscored = scores.count(None)
        self.unscored += unscored
        versions = Counter(map(_version, found))
        if versions[None] != unscored:  # never by our worker
            versions = Counter(v for v, score in zip(map(_version, found), scores, strict=True) if score is not None)
        _count(self.served, {version: n for version, n in versions.items() if version is not None})
        features = list(map(attrgetter("features"), found))
        at = 0
        for name, kind in kinds.items():
            values = list(map(attrgetter(name), features))
            if kind == "category":
                self.categories.setdefault(name, Categories()).add(values)
            else:
                fold(_floats(values), cells[at])
                at += 1
        fold(_floats(scores), cells[-2])

    def add_labelled(self, found: Sequence[Joined], cells: np.ndarray) -> None:
        """Pairs that have a label."""
        predictions, labels = list(map(itemgetter(0), found)), list(map(itemgetter(1), found))
        self.labelled += len(found)
        self.delay_ms += sum(map(_label_time, labels)) - sum(map(_time, predictions))
        values = _floats(list(map(_label_value, labels)))
        fold(values, cells[-1])
        names, codes = _codes(list(map(_version, predictions)))
        losses = self._judge(names, _floats(list(map(_score, predictions))), values, codes, served=True)
        shadows = [found or _nothing for found in map(_shadows, predictions)]
        for name in sorted(set().union(*shadows)):
            scores = _floats(list(map(methodcaller("get", name), shadows)))
            theirs = self._judge([name], scores, values, np.zeros(len(values), dtype=np.int32))
            sums = np.zeros((len(names), PAIR_SUMS), dtype=np.int64)
            compare(theirs, losses, codes, sums)
            for version, row in zip(names, sums.tolist(), strict=True):
                if row[0]:
                    _add(self.paired.setdefault(name, {}), version, row)

    def _judge(
        self, names: list[str], scores: np.ndarray, labels: np.ndarray, codes: np.ndarray, *, served: bool = False
    ) -> np.ndarray:
        losses = np.empty(len(scores), dtype=np.int64)
        sums = np.zeros((len(names), LOSS_SUMS), dtype=np.int64)
        judge(scores, labels, codes, EPS, sums, losses)
        for version, row in zip(names, sums.tolist(), strict=True):
            if row[0]:
                _add(self.versions, version, row)
                if served:
                    _count(self.judged, {version: row[0]})
        return losses

    def columns(self, kinds: Kinds, cells: np.ndarray) -> tuple[dict[str, Column], Column]:
        """The features' by name, and the score's."""
        numbers = iter(cells)
        nothing = Categories()
        features = {
            name: self.categories.get(name, nothing).column() if kind == "category" else column(next(numbers))
            for name, kind in kinds.items()
        }
        return features, column(cells[-2])

    def labels(self, cells: np.ndarray) -> Labelled:
        n = self.labelled
        return Labelled(
            n, column(cells[-1]).mean, self.delay_ms / (1000 * n) if n else 0.0, **dict(sorted(self.counts.items()))
        )

    def losses(self) -> dict[str, VersionLoss]:
        found = {}
        for version, (n, loss, brier, errors, score, label) in sorted(self.versions.items()):
            means = (total / (n * ONE) for total in (loss, brier, errors * ONE, score, label))
            found[version] = VersionLoss(n, self.judged.get(version, 0), *means)
        return found

    def pairs(self) -> tuple[Paired, ...]:
        return tuple(
            Paired(shadow, served, n, difference / ONE, squares / ONE)
            for shadow, against in sorted(self.paired.items())
            for served, (n, difference, squares) in sorted(against.items())
        )


def _floats(values: list[Any]) -> np.ndarray:
    """float64 [n]; NaN for what is no number: None, or the scores of several classes."""
    try:
        found = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):  # some are lists
        found = np.empty((0, 0))
    if found.ndim == 1:
        return found
    return np.array([value if isinstance(value, (int, float)) else np.nan for value in values], dtype=np.float64)


def _codes(names: list[str | None]) -> tuple[list[str], np.ndarray]:
    """The distinct names, and the place of each row's among them, int32 [n]; −1 for None."""
    distinct = sorted(name for name in set(names) if name is not None)
    places: dict[str | None, int] = {None: -1, **{name: at for at, name in enumerate(distinct)}}
    return distinct, np.array(list(map(places.__getitem__, names)), dtype=np.int32)


def _count(counts: dict[str, int], more: dict[str, int]) -> None:
    for name, n in more.items():
        counts[name] = counts.get(name, 0) + n


def _add(sums: dict[str, list[int]], name: str, more: Iterable[int]) -> None:
    sums[name] = [a + b for a, b in zip(sums[name], more, strict=True)] if name in sums else list(more)
