"""From a spec to columns of state: what one entity's row holds, and the tables that the kernel walks.

A row is `width` 8-byte slots; each is a float64 or an int64, always the same. Per feeding stream and pane
length there is one *bank*: the newest pane that the entity has seen, then for each accumulator a ring of as
many panes as the longest window of the bank has; pane p lies at p modulo that number. Windows of one pane
length share their bank.

    | newest | count: pane 0 … N-1 | sum of amount: pane 0 … N-1 | next bank … | time, value of last | time |
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from features.kernel import COPY, COUNT, LAST, MAX, MIN, RATIO, SINCE, SUM, UNSEEN
from features.spec import Aggregate, FeatureSpec

_EMPTY: dict[int, float] = {COUNT: 0, SUM: 0.0, MIN: np.nan, MAX: np.nan}


@dataclass(frozen=True)
class Kind:
    """One entity kind: its row and its tables, each int64 [rows, the columns that `features.kernel` names].

    fields: the fields that name the entity.
    template: int64 [width], the row of an entity that has seen nothing (floats by their bits).
    banks, accs, folds, latest: what there is, each stream's together. outs: one an aggregate of this kind,
    with its column in `spec.aggregates`. feeds [S + 1, 4]: what each stream feeds; the last row feeds
    nothing.
    """

    fields: tuple[str, ...]
    template: np.ndarray
    banks: np.ndarray
    accs: np.ndarray
    folds: np.ndarray
    latest: np.ndarray
    outs: np.ndarray
    feeds: np.ndarray

    @property
    def width(self) -> int:
        return len(self.template)

    @cached_property
    def fed_by(self) -> frozenset[int]:
        """The streams whose events update this kind."""
        return frozenset(
            s for s, (bank, bank_end, at, end) in enumerate(self.feeds) if bank < bank_end or at < end
        )


class Layout:
    """The kinds of a spec, in the order of `spec.entities`.

    `fields[s]` are the fields of stream s that aggregates take: its columns in the matrix of values that the
    kernel reads.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        self.streams = len(spec.streams)
        self.fields: tuple[tuple[str, ...], ...] = tuple(
            tuple(
                dict.fromkeys(a.field for a in spec.aggregates if a.stream == stream and a.field is not None)
            )
            for stream in range(self.streams)
        )
        self.kinds: tuple[Kind, ...] = tuple(
            _Builder(spec, entity, self.fields).build() for entity in spec.entities
        )


@dataclass
class _Builder:
    """Gives out the slots and table rows of one kind, each thing once however many aggregates share it."""

    spec: FeatureSpec
    entity: tuple[str, ...]
    fields: tuple[tuple[str, ...], ...]
    template: list[int] = field(default_factory=list)
    banks: list[list[int]] = field(default_factory=list)
    accs: list[list[int]] = field(default_factory=list)
    folds: list[list[int]] = field(default_factory=list)
    latest: list[list[int]] = field(default_factory=list)
    fold_of: dict[tuple[Aggregate, int], int] = field(default_factory=dict)
    latest_of: dict[Aggregate, list[int]] = field(default_factory=dict)

    def build(self) -> Kind:
        mine = [a for a in self.spec.aggregates if a.entity == self.entity]
        feeds = []
        for stream in range(len(self.fields)):
            before = len(self.banks), len(self.latest)
            windowed = [(a, a.window) for a in mine if a.stream == stream and a.window is not None]
            for pane_ms in dict.fromkeys(window.pane_ms for _, window in windowed):
                self._bank(
                    pane_ms, [(a, window.panes) for a, window in windowed if window.pane_ms == pane_ms]
                )
            self._latest(stream, [a for a in mine if a.stream == stream and a.window is None])
            feeds.append([before[0], len(self.banks), before[1], len(self.latest)])
        feeds.append([0, 0, 0, 0])
        outs = [self._out(a) for a in mine]
        tables = (self.banks, 8), (self.accs, 3), (self.folds, 3), (self.latest, 3), (outs, 5), (feeds, 4)
        template = np.array(self.template, dtype=np.int64)
        return Kind(
            self.entity, template, *(np.array(t, dtype=np.int64).reshape(len(t), n) for t, n in tables)
        )

    def _take(self, value: float, count: int = 1) -> int:
        """The place of `count` new slots that begin as `value`: an int or a float, by its type."""
        at = len(self.template)
        self.template += [value if isinstance(value, int) else int(np.float64(value).view(np.int64))] * count
        return at

    def _bank(self, pane_ms: int, sharing: list[tuple[Aggregate, int]]) -> None:
        """A bank of one stream, and of the aggregates that share it, each with its number of panes."""
        lengths = [panes for _, panes in sharing]
        newest, acc, fold = self._take(UNSEEN), len(self.accs), len(self.folds)
        ring_of: dict[tuple[int, str | None], int] = {}
        known: dict[tuple[int, int], int] = {}
        for aggregate, panes in sharing:
            for part, (kind, name) in enumerate(self._parts(aggregate)):
                if (kind, name) not in ring_of:
                    ring_of[kind, name] = self._take(_EMPTY[kind], max(lengths))
                    self.accs.append([kind, self._column(aggregate.stream, name), ring_of[kind, name]])
                at = ring_of[kind, name]
                if (at, panes) not in known:
                    known[at, panes] = len(self.folds)
                    self.folds.append([kind, at, panes])
                self.fold_of[aggregate, part] = known[at, panes]
        self.banks.append(
            [pane_ms, max(lengths), min(lengths), newest, acc, len(self.accs), fold, len(self.folds)]
        )

    def _latest(self, stream: int, mine: list[Aggregate]) -> None:
        """The latest non-null value of each field, and of no field the latest event, with its time."""
        for name in dict.fromkeys(a.field for a in mine):
            row = [self._column(stream, name), self._take(UNSEEN), -1 if name is None else self._take(np.nan)]
            self.latest.append(row)
            self.latest_of.update((a, row) for a in mine if a.field == name)

    def _out(self, aggregate: Aggregate) -> list[int]:
        column = self.spec.aggregates.index(aggregate)
        if aggregate in self.latest_of:
            _, time, value = self.latest_of[aggregate]
            return [SINCE if value < 0 else LAST, time, value, column, aggregate.within_ms or 0]
        first = self.fold_of[aggregate, 0]
        second = self.fold_of.get((aggregate, 1))
        return [COPY, first, -1, column, 0] if second is None else [RATIO, first, second, column, 0]

    def _parts(self, aggregate: Aggregate) -> list[tuple[int, str | None]]:
        """The accumulators (kind, field) that it folds. A field that is never null counts as events do."""
        name = aggregate.field
        if aggregate.op == "mean":
            found = self.spec.streams[aggregate.stream].field(name or "")
            return [(SUM, name), (COUNT, name if found is None or found.nullable else None)]
        return [({"count": COUNT, "sum": SUM, "min": MIN, "max": MAX}[aggregate.op], name)]

    def _column(self, stream: int, name: str | None) -> int:
        return -1 if name is None else self.fields[stream].index(name)
