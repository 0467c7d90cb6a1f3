"""From a spec to columns of state: what one entity's row holds, and the tables that the kernel walks.

A row is `width` 8-byte slots; each is a float64 or an int64, always the same. Per feeding stream and pane
length there is one *bank*: the newest pane that the entity has seen, then for each accumulator a ring of as
many panes as the longest window of the bank has; pane p lies at p modulo that number. Windows of one pane
length share their bank. What has no panes follows: the latest values; *spans*, which hold all that was seen (the newest
event time, then accumulators of one pane); *trails*, which hold the latest events of one column.

    | newest | count: pane 0 … N-1 | sum of amount: pane 0 … N-1 | next bank … | time, value of last | time |
    | newest, sum of amount (forever) | seen, times of the latest N, their amounts |

A kind is also what evolves by itself: its hash names what its rows hold, and goes by nothing else. Features that read
what is there already, under whatever name, change no state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from features.aggregations import ALGEBRAS, KINDS, OPS
from features.condition import Condition
from features.kernel import COPY, COUNT, LAG, LAST, MAX, MIN, RATE, RATIO, RESULT, SINCE, SUM, UNSEEN
from features.spec import STATE_FORMAT, Aggregate, FeatureSpec, Hashed, Vocabulary, digest, reach_ms
from features.windows import Forever, LastEvents, Window

_EMPTY: dict[int, float] = {COUNT: 0, SUM: 0.0, MIN: np.nan, MAX: np.nan}


@dataclass(frozen=True)
class Column:
    """What the kernel reads of an event: a number, NaN where it is null or `where` does not hold.

    field: None = 1. text: the field is a string, and the number its code in `encoding`, or without one its hash.
    """

    field: str | None
    text: bool = False
    encoding: Vocabulary | Hashed | None = None
    where: Condition | None = None

    def plain(self) -> list[Any]:
        """As JSON, for a kind's hash."""
        return [self.field, self.text, self.encoding and self.encoding.plain(), self.where and self.where.text]


@dataclass(frozen=True)
class Kind:
    """One entity kind: its row and its tables, each int64 [rows, the columns that `features.kernel` names].

    fields: the fields that name the entity. hash: of what its rows hold, 16 hex digits. reach_ms: how far back an event
    can still count.
    template: int64 [width], the row of an entity that has seen nothing (floats by their bits).
    banks, accs, folds, latest, spans, trails: what there is, each stream's together. outs: one an aggregate of this
    kind, with its column in `spec.aggregates`. feeds [S + 1, 8]: what each stream feeds; the last row feeds nothing.
    """

    fields: tuple[str, ...]
    hash: str
    reach_ms: int
    template: np.ndarray
    banks: np.ndarray
    accs: np.ndarray
    folds: np.ndarray
    latest: np.ndarray
    spans: np.ndarray
    trails: np.ndarray
    outs: np.ndarray
    feeds: np.ndarray

    @cached_property
    def number(self) -> int:
        """Of the group that its rows are in a store: as good as the hash, and shorter."""
        return int(self.hash[:10], 16)

    @property
    def width(self) -> int:
        return len(self.template)

    @cached_property
    def fed_by(self) -> frozenset[int]:
        """The streams whose events update this kind."""
        return frozenset(np.flatnonzero((self.feeds[:, ::2] < self.feeds[:, 1::2]).any(axis=1)).tolist())


class Layout:
    """The kinds of a spec, in the order of `spec.entities`.

    `columns[s]` are what aggregates take of the events of stream s: its columns in the matrix of values that the
    kernel reads.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        self.streams = len(spec.streams)
        self.columns: tuple[tuple[Column, ...], ...] = tuple(
            tuple(
                dict.fromkeys(
                    column
                    for a in spec.kept
                    if a.stream == stream and (column := _column_of(spec, a)) is not None
                )
            )
            for stream in range(self.streams)
        )
        self.kinds: tuple[Kind, ...] = tuple(
            _Builder(spec, entity, self.columns).build() for entity in spec.entities
        )


def _column_of(spec: FeatureSpec, aggregate: Aggregate) -> Column | None:
    """What it takes of an event; None where that is only that there is one."""
    if aggregate.field is None:
        return None if aggregate.where is None else Column(None, where=aggregate.where)
    found = spec.streams[aggregate.stream].field(aggregate.field)
    text = found is not None and found.kind == "string"
    return Column(aggregate.field, text, aggregate.encoding if text else None, aggregate.where)


def _plain(column: Column | None) -> list[Any] | None:
    return None if column is None else column.plain()


def _longest_within(sharing: list[Aggregate]) -> int:
    """For how long a value is kept: no rebuild reads further back, and no store keeps it longer."""
    return max(a.within_ms or 0 for a in sharing)


Part = tuple[int, Column | None, int]
"""An accumulator: its kind, what it takes, its parameter."""


@dataclass
class _Builder:
    """Gives out the slots and table rows of one kind, each thing once however many aggregates share it."""

    spec: FeatureSpec
    entity: tuple[str, ...]
    columns: tuple[tuple[Column, ...], ...]
    template: list[int] = field(default_factory=list)
    banks: list[list[int]] = field(default_factory=list)
    accs: list[list[int]] = field(default_factory=list)
    folds: list[list[int]] = field(default_factory=list)
    latest: list[list[int]] = field(default_factory=list)
    spans: list[list[int]] = field(default_factory=list)
    trails: list[list[int]] = field(default_factory=list)
    fold_of: dict[tuple[Aggregate, int], int] = field(default_factory=dict)
    kept: list[Any] = field(default_factory=list)
    latest_of: dict[Aggregate, list[int]] = field(default_factory=dict)
    trail_of: dict[Aggregate, int] = field(default_factory=dict)

    def build(self) -> Kind:
        mine = [a for a in self.spec.kept if a.entity == self.entity]
        feeds = []
        for stream in range(len(self.columns)):
            of_stream = [a for a in mine if a.stream == stream]
            before = self._sizes()
            windowed = [(a, a.window) for a in of_stream if isinstance(a.window, Window)]
            for pane_ms in dict.fromkeys(window.pane_ms for _, window in windowed):
                self._bank(
                    pane_ms, [(a, window.panes) for a, window in windowed if window.pane_ms == pane_ms]
                )
            self._latest([a for a in of_stream if OPS[a.op].shape == "latest"])
            seen = [a for a in of_stream if isinstance(a.window, Forever) or "decayed" in OPS[a.op].parts]
            for within in dict.fromkeys(a.within_ms or 0 for a in seen):
                self._span(within, [a for a in seen if a.within_ms == within])
            trailing = [a for a in of_stream if isinstance(a.window, LastEvents) or OPS[a.op].shape == "lag"]
            for column in dict.fromkeys(_column_of(self.spec, a) for a in trailing):
                self._trail(stream, column, [a for a in trailing if _column_of(self.spec, a) == column])
            feeds.append([n for pair in zip(before, self._sizes(), strict=True) for n in pair])
        feeds.append([0] * 8)
        outs = [self._out(a) for a in mine]
        tables = (
            (self.banks, 8),
            (self.accs, 5),
            (self.folds, 7),
            (self.latest, 3),
            (self.spans, 6),
            (self.trails, 7),
            (outs, 5),
            (feeds, 8),
        )
        template = np.array(self.template, dtype=np.int64)
        streams = [stream.name for stream in self.spec.streams]
        return Kind(
            self.entity,
            digest([STATE_FORMAT, streams, self.entity, self.kept, len(template)]),
            max(map(reach_ms, mine)),
            template,
            *(np.array(t, dtype=np.int64).reshape(len(t), n) for t, n in tables),
        )

    def _sizes(self) -> list[int]:
        return [len(self.banks), len(self.latest), len(self.spans), len(self.trails)]

    def _take(self, value: float, count: int = 1) -> int:
        """The place of `count` new slots that begin as `value`: an int or a float, by its type."""
        at = len(self.template)
        self.template += [value if isinstance(value, int) else int(np.float64(value).view(np.int64))] * count
        return at

    def _accumulator(self, stream: int, part: Part, panes: int) -> int:
        """The place of a new accumulator of `panes` panes."""
        kind, column, param = part
        size = ALGEBRAS[kind].size
        if kind in _EMPTY:
            at = self._take(_EMPTY[kind], panes)
        else:
            at = len(self.template)
            empty = np.empty(size)
            ALGEBRAS[kind].init.py_func(empty, empty.view(np.int64))
            self.template += empty.view(np.int64).tolist() * panes
        self.accs.append([kind, self._place(stream, column), at, size, param])
        self.kept.append([stream, ALGEBRAS[kind].name, ALGEBRAS[kind].version, _plain(column), at, panes, param])
        return at

    def _fold(self, part: Part, at: int, panes: int, within: int = 0) -> int:
        """A new fold, with its place in the scratch."""
        kind, _, param = part
        to = self.folds[-1][5] + self.folds[-1][3] if self.folds else 0
        self.folds.append([kind, at, panes, ALGEBRAS[kind].size, param, to, within])
        return len(self.folds) - 1

    def _bank(self, pane_ms: int, sharing: list[tuple[Aggregate, int]]) -> None:
        """A bank of one stream, and of the aggregates that share it, each with its number of panes."""
        lengths = [panes for _, panes in sharing]
        newest, acc, fold = self._take(UNSEEN), len(self.accs), len(self.folds)
        self.kept.append([sharing[0][0].stream, "bank", pane_ms, max(lengths), newest])
        ring_of: dict[Part, int] = {}
        known: dict[tuple[int, int], int] = {}
        for aggregate, panes in sharing:
            for place, part in enumerate(self._parts(aggregate)):
                if part not in ring_of:
                    ring_of[part] = self._accumulator(aggregate.stream, part, max(lengths))
                at = ring_of[part]
                if (at, panes) not in known:
                    known[at, panes] = self._fold(part, at, panes)
                self.fold_of[aggregate, place] = known[at, panes]
        self.banks.append(
            [pane_ms, max(lengths), min(lengths), newest, acc, len(self.accs), fold, len(self.folds)]
        )

    def _latest(self, mine: list[Aggregate]) -> None:
        """The latest non-null value of each column, and of none the latest event, with its time."""
        for column in dict.fromkeys(_column_of(self.spec, a) for a in mine):
            sharing = [a for a in mine if _column_of(self.spec, a) == column]
            time = self._take(UNSEEN)
            value = -1 if column is None or column.field is None else self._take(np.nan)
            row = [self._place(sharing[0].stream, column), time, value]
            self.latest.append(row)
            self.kept.append([sharing[0].stream, "latest", _plain(column), time, value, _longest_within(sharing)])
            self.latest_of.update((a, row) for a in sharing)

    def _span(self, within: int, sharing: list[Aggregate]) -> None:
        """All that was seen, for the aggregates that let it end after the same silence."""
        newest, acc, fold = self._take(UNSEEN), len(self.accs), len(self.folds)
        self.kept.append([sharing[0].stream, "span", within, newest])
        fold_of: dict[Part, int] = {}
        for aggregate in sharing:
            for place, part in enumerate(self._parts(aggregate)):
                if part not in fold_of:
                    fold_of[part] = self._fold(part, self._accumulator(aggregate.stream, part, 1), 1)
                self.fold_of[aggregate, place] = fold_of[part]
        self.spans.append([newest, within, acc, len(self.accs), fold, len(self.folds)])

    def _trail(self, stream: int, column: Column | None, sharing: list[Aggregate]) -> None:
        """The latest events of one column, as many as the longest of its windows and lags asks."""
        longest = max(a.window.events if isinstance(a.window, LastEvents) else a.param for a in sharing)
        seen = self._take(0)
        times, values, fold = self._take(UNSEEN, longest), self._take(np.nan, longest), len(self.folds)
        self.kept.append([stream, "trail", _plain(column), longest, seen, times, values, _longest_within(sharing)])
        fold_of: dict[tuple[Part, int, int], int] = {}
        for aggregate in sharing:
            self.trail_of[aggregate] = len(self.trails)
            if not isinstance(aggregate.window, LastEvents):
                continue
            for place, part in enumerate(self._parts(aggregate)):
                asked = part, aggregate.window.events, aggregate.within_ms or 0
                if asked not in fold_of:
                    fold_of[asked] = self._fold(part, -1, *asked[1:])
                self.fold_of[aggregate, place] = fold_of[asked]
        self.trails.append(
            [self._place(stream, column), seen, longest, times, values, fold, len(self.folds)]
        )

    def _out(self, aggregate: Aggregate) -> list[int]:
        column, op = self.spec.aggregates.index(aggregate), OPS[aggregate.op]
        within = aggregate.within_ms or 0
        if op.shape == "latest":
            _, time, value = self.latest_of[aggregate]
            return [SINCE if aggregate.field is None else LAST, time, value, column, within]
        if op.shape == "lag":
            return [LAG, self.trail_of[aggregate], aggregate.param, column, within]
        first = self.fold_of[aggregate, 0]
        if op.shape == "ratio":
            return [RATIO, first, self.fold_of[aggregate, 1], column, 0]
        if op.shape == "rate":
            assert isinstance(aggregate.window, Window)
            return [RATE, first, aggregate.window.length_ms, column, 0]
        if op.shape == "result":
            return [RESULT, first, aggregate.param if aggregate.op == "quantile" else op.q, column, 0]
        return [COPY, first, -1, column, 0]

    def _parts(self, aggregate: Aggregate) -> list[Part]:
        """The accumulators that it folds. A field that is never null counts as events do."""
        op, column = OPS[aggregate.op], _column_of(self.spec, aggregate)
        param = aggregate.param if "decayed" in op.parts else 0
        parts: list[Part] = [(KINDS[name], column, param) for name in op.parts]
        if op.shape == "ratio" and column is not None and not isinstance(aggregate.window, LastEvents):
            found = self.spec.streams[aggregate.stream].field(column.field or "")
            if found is not None and not found.nullable and column.where is None:
                parts[1] = (COUNT, None, 0)
        return parts

    def _place(self, stream: int, column: Column | None) -> int:
        return -1 if column is None else self.columns[stream].index(column)
