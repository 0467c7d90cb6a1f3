"""What a model sees: an ordered list of features over the fields of a few streams.

A spec is an immutable value. It knows fields and windows, and nothing of Kafka, Redis or state;
`features.layout` turns it into the columns of state, `features.engine` runs it.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from features.aggregations import ALGEBRAS, OPS
from features.checks import check_feature
from features.encodings import Encoding as Encoding
from features.encodings import Frequency as Frequency
from features.encodings import Hashed as Hashed
from features.encodings import Vocabulary as Vocabulary
from features.feature import DEFAULT_WITHIN_MS as DEFAULT_WITHIN_MS
from features.feature import Aggregate as Aggregate
from features.feature import Calendar as Calendar
from features.feature import Category as Category
from features.feature import Columns as Columns
from features.feature import Computed as Computed
from features.feature import Feature as Feature
from features.feature import Field as Field
from features.feature import Op as Op
from features.feature import Ratio as Ratio
from features.feature import SpecError as SpecError
from features.feature import Stream as Stream
from features.feature import Value as Value
from features.windows import Forever, Window

STATE_FORMAT = 3
"""Raised when `features.layout` lays the same spec out in another way, or `features.codec` packs it in another.
Algebras have versions of their own.
"""

FOR_EVER_MS = 2**62
"""How far back all events reach."""

DECAYED_AFTER = 40
"""Half-lives after which an event no longer counts: it weighs less than 1e-12 of a new one."""


@dataclass(frozen=True)
class FeatureSpec:
    """The features of a pipeline in the order of the model's inputs; `streams[0]` is the scored one.

    missing: what a model gets, and a prediction logs, where a number is missing; NaN is logged as null.
    given: names of aggregates whose values come from elsewhere: another worker keeps their state. What a model was
        trained on (`hash`) is the same wherever that is.
    """

    streams: tuple[Stream, ...]
    features: tuple[Feature, ...]
    missing: float = math.nan
    given: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for feature in self.features:
            if feature.name in seen:
                raise SpecError(f"feature {feature.name}: declared twice; remove one or rename it with name=")
            seen.add(feature.name)
            check_feature(self.streams, feature, self.given)
        by_name: dict[str, Aggregate] = {}
        for aggregate in self.aggregates:
            if by_name.setdefault(aggregate.name, aggregate) != aggregate:
                raise SpecError(f"feature {aggregate.name}: declared twice, in two ways; rename one with name=")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.features)

    @cached_property
    def aggregates(self) -> tuple[Aggregate, ...]:
        """Those that are features, then those that features are only computed of."""
        inputs = [f for f in self.features if isinstance(f, Aggregate)]
        used = [a for f in self.features if isinstance(f, Computed | Ratio) for a in f.uses]
        return tuple(dict.fromkeys([*inputs, *used]))

    @cached_property
    def kept(self) -> tuple[Aggregate, ...]:
        """The aggregates whose state is kept here."""
        return tuple(a for a in self.aggregates if a.name not in self.given)

    @cached_property
    def entities(self) -> tuple[tuple[str, ...], ...]:
        """The entity kinds (tuples of field names) whose state is kept here, in the order of their first use."""
        return tuple(dict.fromkeys(a.entity for a in self.kept))

    @cached_property
    def longest_ms(self) -> int:
        """How far back an event can still count: what a rebuild must read."""
        return max(map(reach_ms, self.kept), default=0)

    @cached_property
    def kept_ms(self) -> int:
        """For how long an entity's state counts without a new event: how long a store must keep it."""
        return max((a.within_ms or reach_ms(a) for a in self.kept), default=0)

    @cached_property
    def hash(self) -> str:
        """Names what a model was trained on: any change of a feature changes it. 16 hex digits."""
        plain = [_plain(f) for f in self.features]
        return digest(plain if math.isnan(self.missing) else [*plain, ["missing", self.missing]])

    @cached_property
    def digests(self) -> dict[str, str]:
        """By feature, 8 hex digits that name its declaration."""
        return {feature.name: digest(_plain(feature))[:8] for feature in self.features}

    @cached_property
    def state_hash(self) -> str:
        """Names the state that is kept here: where it is equal, so is that of every group. 16 hex digits."""
        nullable = [[f.name for f in s.fields if f.nullable] for s in self.streams]
        streams = [s.name for s in self.streams]
        parts = {part for a in self.kept for part in OPS[a.op].parts}
        algebras = [(a.name, a.version) for a in ALGEBRAS if a.name in parts and a.version > 1]
        plain = [STATE_FORMAT, streams, nullable, [_plain(a) for a in self.kept]]
        return digest([*plain, algebras] if algebras else plain)


def reach_ms(aggregate: Aggregate) -> int:
    """How far back an event can still count for it."""
    if isinstance(aggregate.window, Window):
        return aggregate.window.length_ms + aggregate.window.pane_ms
    if isinstance(aggregate.window, Forever):
        return FOR_EVER_MS
    if "decayed" in OPS[aggregate.op].parts:
        return (aggregate.within_ms or 0) + DECAYED_AFTER * aggregate.param
    return aggregate.within_ms or 0


def forgets(aggregate: Aggregate) -> bool:
    """Whether events older than `reach_ms` leave no trace in its value, not in the last bit."""
    return not isinstance(aggregate.window, Forever) and "decayed" not in OPS[aggregate.op].parts


def fields_read(spec: FeatureSpec, stream: int) -> set[str]:
    """The fields of a stream's events that aggregates take, or look at to decide whether they count."""
    mine = [a for a in spec.kept if a.stream == stream]
    looked_at = {name for a in mine if a.where is not None for name in a.where.fields}
    return {a.field for a in mine if a.field is not None} | looked_at


def _plain(feature: Feature) -> list[Any]:
    """As JSON. What a declaration leaves out adds nothing, so that older ones keep their hash."""
    if isinstance(feature, Aggregate):
        window: Any = feature.within_ms
        if feature.window is not None:
            window = feature.window.length_ms if isinstance(feature.window, Window) else feature.window.text
        extra = {
            "within": feature.within_ms if isinstance(window, str) else None,
            "where": feature.where and feature.where.text,
            "encoding": feature.encoding and feature.encoding.plain(),
            "param": feature.param,
        }
        told = {name: value for name, value in extra.items() if value}
        plain = ["aggregate", feature.name, feature.stream, feature.entity, feature.op, feature.field, window]
        return [*plain, told] if told else plain
    if isinstance(feature, Category):
        return ["category", feature.name, feature.field, feature.encoding.plain()]
    if isinstance(feature, Calendar):
        return ["calendar", feature.name, feature.part, feature.zone]
    if isinstance(feature, Ratio):
        return ["ratio", feature.name, *map(_plain, feature.uses)]
    if isinstance(feature, Computed):
        computed = ["computed", feature.name, feature.dtype, _source_of(feature.function)]
        return [*computed, *map(_plain, feature.uses)]
    return ["value", feature.name, feature.field]


def _source_of(function: Callable[[Columns], Any]) -> str:
    try:
        return textwrap.dedent(inspect.getsource(function)).strip()
    except (OSError, TypeError):
        return getattr(function, "__qualname__", repr(type(function)))


def digest(value: Any) -> str:
    """16 hex digits that name a value of plain JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
