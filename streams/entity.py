"""Entities: events that share fields, and the aggregates that can be declared over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from features.aggregations import OPS
from features.condition import Condition, ConditionError
from features.spec import DEFAULT_WITHIN_MS, Aggregate, Hashed, Op, Vocabulary
from features.windows import AnyWindow, Window, WindowError, check_events, parse_duration, parse_window
from streams.declared import Declared, duration_ms, feature_name
from streams.encodings import encoding_of
from streams.errors import DeclarationError
from streams.event import unknown_field

if TYPE_CHECKING:
    from streams.groups import Group
    from streams.source import Source

_HALF_LIVES = 30
"""After so many without an event nothing is left of a decayed count: 1e-9."""


@dataclass(frozen=True)
class Entity:
    """Events of `source` that share `fields`; `name` begins the names of its features.

    windows: durations ("1h"), a number of latest events ("last 5"), or all of them ("forever"). The last two hold
    while an event is not older than `within`. where: a condition; only events for which it is true are counted, as in
    where="amount > 100 and country in ['DE', 'FR']". name: renames a single feature.
    """

    source: Source
    fields: tuple[str, ...]
    name: str
    group: Group | None = None
    """How it is kept, where it is not in the source's key."""

    def count(
        self, *windows: str, where: str | None = None, within: str | None = None, name: str | None = None
    ) -> list[Declared]:
        """How many events: 0 when there was none."""
        return self._windowed("count", None, windows, where, within, name)

    def rate(self, *windows: str, where: str | None = None, name: str | None = None) -> list[Declared]:
        """Events per second of the window: 0 when there was none."""
        return self._windowed("rate", None, windows, where, None, name)

    def sum(
        self, field: str, *windows: str, where: str | None = None, within: str | None = None, name: str | None = None
    ) -> list[Declared]:
        """Sum of `field`; 0 when there was none."""
        return self._windowed("sum", field, windows, where, within, name)

    def mean(
        self, field: str, *windows: str, where: str | None = None, within: str | None = None, name: str | None = None
    ) -> list[Declared]:
        """Mean of `field`; missing when there was none."""
        return self._windowed("mean", field, windows, where, within, name)

    def variance(
        self, field: str, *windows: str, where: str | None = None, within: str | None = None, name: str | None = None
    ) -> list[Declared]:
        """Variance of `field` (of the population); missing when there was none."""
        return self._windowed("variance", field, windows, where, within, name)

    def std(
        self, field: str, *windows: str, where: str | None = None, within: str | None = None, name: str | None = None
    ) -> list[Declared]:
        """Standard deviation of `field` (of the population); missing when there was none."""
        return self._windowed("std", field, windows, where, within, name)

    def min(
        self, field: str, *windows: str, where: str | None = None, within: str | None = None, name: str | None = None
    ) -> list[Declared]:
        """Smallest `field`; missing when there was none."""
        return self._windowed("min", field, windows, where, within, name)

    def max(
        self, field: str, *windows: str, where: str | None = None, within: str | None = None, name: str | None = None
    ) -> list[Declared]:
        """Largest `field`; missing when there was none."""
        return self._windowed("max", field, windows, where, within, name)

    def first(
        self, field: str, *windows: str, where: str | None = None, within: str | None = None, name: str | None = None
    ) -> list[Declared]:
        """`field` of the earliest event; missing when there was none."""
        return self._windowed("first", field, windows, where, within, name)

    def streak(
        self, field: str, *windows: str, where: str | None = None, within: str | None = None, name: str | None = None
    ) -> list[Declared]:
        """How many events in a row, up to the latest, had the same `field`; 0 when there was none."""
        return self._windowed("streak", field, windows, where, within, name)

    def distinct(
        self, field: str, *windows: str, where: str | None = None, within: str | None = None, name: str | None = None
    ) -> list[Declared]:
        """How many different values of `field`: exact up to 32, then within a standard error of 6.5 %."""
        return self._windowed("distinct", field, windows, where, within, name)

    def quantile(
        self,
        field: str,
        q: float,
        *windows: str,
        where: str | None = None,
        within: str | None = None,
        name: str | None = None,
    ) -> list[Declared]:
        """The q-quantile of `field`, to 0.1 % of itself while values are few or alike; missing when there was none."""
        if not isinstance(q, int | float) or not 0 < q < 1:
            raise DeclarationError(f"feature {self.name}_quantile_{field}: q lies between 0 and 1, not {q!r}")
        spoken = f"p{100 * q:.6g}".replace(".", "_")
        return self._windowed("quantile", field, windows, where, within, name, spoken, param=round(q * 1_000_000))

    def most_frequent(
        self,
        field: str,
        *windows: str,
        values: Vocabulary | Hashed | Sequence[str] | None = None,
        where: str | None = None,
        within: str | None = None,
        name: str | None = None,
    ) -> list[Declared]:
        """The most frequent `field`: a number, or the code of a text in `values`; missing when there was none."""
        stem = f"{self.name}_most_frequent_{field}"
        encoding = None if values is None else encoding_of(stem, values)
        if encoding is not None and not isinstance(encoding, Vocabulary | Hashed):
            raise DeclarationError(f"feature {stem}: values is a list of texts or Hashed(buckets)")
        return self._windowed("most_frequent", field, windows, where, within, name, encoding=encoding)

    def decayed_count(
        self, *half_lives: str, where: str | None = None, within: str | None = None, name: str | None = None
    ) -> list[Declared]:
        """How many events, each weighing half as much with every half-life that has passed since."""
        return self._decayed("decayed_count", None, half_lives, where, within, name)

    def decayed_mean(
        self, field: str, *half_lives: str, where: str | None = None, within: str | None = None, name: str | None = None
    ) -> list[Declared]:
        """Mean of `field` with these weights; missing when there was none."""
        return self._decayed("decayed_mean", field, half_lives, where, within, name)

    def lag(
        self, field: str, n: int, *, where: str | None = None, within: str = "30d", name: str | None = None
    ) -> Declared:
        """`field` of the nth event before, counted from 1; missing when that is older than `within`."""
        name = name or self._named("lag", field, str(n), where)
        try:
            check_events(n if isinstance(n, int) else 0)
        except WindowError as error:
            raise DeclarationError(f"feature {name}: {error}") from error
        return self._aggregate("lag", field, name, None, where, self._within(within, name), param=n)

    def last(self, field: str, *, where: str | None = None, within: str = "30d", name: str | None = None) -> Declared:
        """`field` of the event before; missing when that is older than `within`."""
        name = name or self._named("last", field, None, where)
        return self._aggregate("last", field, name, None, where, self._within(within, name))

    def since_last(self, *, where: str | None = None, within: str = "30d", name: str | None = None) -> Declared:
        """Seconds since the event before; missing when that is older than `within`."""
        name = name or self._named("since_last", None, None, where)
        return self._aggregate("since_last", None, name, None, where, self._within(within, name))

    def _windowed(
        self,
        op: Op,
        field: str | None,
        windows: tuple[str, ...],
        where: str | None,
        within: str | None,
        name: str | None,
        spoken: str | None = None,
        *,
        encoding: Vocabulary | Hashed | None = None,
        param: int = 0,
    ) -> list[Declared]:
        stem = self._named(spoken or op, field, None, None)
        if not windows:
            raise DeclarationError(f'feature {stem}: {op} needs a window, for example "1h"')
        self._single(stem, name, windows)
        made = []
        for text in windows:
            window = self._window(f"{stem}_{text}", text)
            full = name or self._named(spoken or op, field, window.text, where)
            within_ms = None
            if not isinstance(window, Window):
                within_ms = DEFAULT_WITHIN_MS if within is None else self._within(within, full)
            elif within is not None:
                raise DeclarationError(f"feature {full}: a window with a length ends by itself; leave within= out")
            made.append(
                self._aggregate(op, field, full, window, where, within_ms, encoding=encoding, param=param)
            )
        return made

    def _decayed(
        self,
        op: Op,
        field: str | None,
        half_lives: tuple[str, ...],
        where: str | None,
        within: str | None,
        name: str | None,
    ) -> list[Declared]:
        stem = self._named(op, field, None, None)
        if not half_lives:
            raise DeclarationError(f'feature {stem}: {op} needs a half-life, for example "1h"')
        self._single(stem, name, half_lives)
        made = []
        for text in half_lives:
            full = name or self._named(op, field, text, where)
            half_life = duration_ms(text, f"feature {full}: half-life")
            within_ms = _HALF_LIVES * half_life if within is None else self._within(within, full)
            made.append(self._aggregate(op, field, full, None, where, within_ms, param=half_life))
        return made

    def _aggregate(
        self,
        op: Op,
        field: str | None,
        name: str,
        window: AnyWindow | None,
        where: str | None,
        within_ms: int | None,
        *,
        encoding: Vocabulary | Hashed | None = None,
        param: int = 0,
    ) -> Declared:
        name = feature_name(name)
        self._known(op, field, name)
        condition = self._condition(where, name)
        aggregate = Aggregate(
            name, 0, self.fields, op, field, window, within_ms, condition, encoding, param
        )
        return Declared(self.source, aggregate, self.group)

    def _named(self, op: str, field: str | None, window: str | None, where: str | None) -> str:
        """<entity>_<aggregation>_<field>_<window>, and what is counted where not all is."""
        parts = [self.name, op, field, window]
        if where is not None:
            parts += ["where", self._condition(where, "_".join(p for p in parts if p)).slug]  # type: ignore[union-attr]
        return "_".join(part for part in parts if part)

    def _single(self, stem: str, name: str | None, windows: tuple[str, ...]) -> None:
        if name is not None and len(windows) > 1:
            raise DeclarationError(f"feature {stem}: name={name!r} names one feature; declare its windows one by one")

    def _window(self, name: str, text: str) -> AnyWindow:
        try:
            return parse_window(str(text))
        except WindowError as error:
            raise DeclarationError(f"feature {name}: {error}") from error

    def _within(self, within: str, feature: str) -> int:
        try:
            return parse_duration(str(within))
        except WindowError as error:
            raise DeclarationError(f"feature {feature}: within: {error}") from error

    def _condition(self, where: str | None, feature: str) -> Condition | None:
        if where is None:
            return None
        try:
            if not isinstance(where, str):
                raise ConditionError(f"{where!r} is not a text")
            condition = Condition.parse(where)
            stream = self.source.stream
            condition.check({f.name: f.kind for f in stream.fields}, stream.name)
        except ConditionError as error:
            raise DeclarationError(f"feature {feature}: where: {error}") from error
        return condition

    def _known(self, op: Op, field: str | None, feature: str) -> None:
        if field is None:
            return
        stream = self.source.stream
        found = stream.field(field)
        if found is None:
            raise DeclarationError(f"feature {feature}: {unknown_field(field, stream.name, stream.fields)}")
        if found.kind != "number" and OPS[op].takes == "number":
            raise DeclarationError(
                f"feature {feature}: {op} needs a number, {field} of {stream.name} is a string; count it instead"
            )
