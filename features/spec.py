"""What a model sees: an ordered list of features over the fields of a few streams.

A spec is an immutable value. It knows fields and windows, and nothing of Kafka, Redis or state;
`features.layout` turns it into the columns of state, `features.engine` runs it.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import textwrap
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from features.windows import Window, parse_duration

Op = Literal["count", "sum", "mean", "min", "max", "last", "since_last"]
WINDOWED: frozenset[str] = frozenset({"count", "sum", "mean", "min", "max"})
FIELDLESS: frozenset[str] = frozenset({"count", "since_last"})
DEFAULT_WITHIN_MS = parse_duration("30d")

STATE_FORMAT = 1
"""Raised when `features.layout` lays the same spec out in another way."""

Columns = Mapping[str, Any]
"""Fields of a batch by name: float64 [n] with NaN for null, or a list of str | None."""


class SpecError(ValueError):
    """A declaration that cannot be: the message names the feature and the mend."""


@dataclass(frozen=True)
class Field:
    """One field of a stream's events."""

    name: str
    kind: Literal["number", "string"]
    nullable: bool = False


@dataclass(frozen=True)
class Stream:
    """A stream of events by its name (its topic) and its fields. Integers and booleans count as numbers."""

    name: str
    fields: tuple[Field, ...]

    def field(self, name: str) -> Field | None:
        return next((f for f in self.fields if f.name == name), None)


@dataclass(frozen=True)
class Vocabulary:
    """Category → its position in `values`; null and values not listed → len(values)."""

    values: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.values) + 1

    def encode(self, raw: Sequence[str | None]) -> np.ndarray:
        """Codes float32 [n] of `raw`."""
        codes = self._codes
        unknown = len(self.values)
        return np.array([codes.get(value, unknown) for value in raw], dtype=np.float32)

    @cached_property
    def _codes(self) -> dict[str | None, int]:
        return {value: code for code, value in enumerate(self.values)}


@dataclass(frozen=True)
class Hashed:
    """Category → CRC32 of its UTF-8 bytes modulo `buckets`; null → `buckets`."""

    buckets: int

    @property
    def size(self) -> int:
        return self.buckets + 1

    def encode(self, raw: Sequence[str | None]) -> np.ndarray:
        """Codes float32 [n] of `raw`."""
        n = self.buckets
        return np.array([n if v is None else zlib.crc32(v.encode()) % n for v in raw], dtype=np.float32)


@dataclass(frozen=True)
class Value:
    """A numeric field of the scored event itself."""

    name: str
    field: str


@dataclass(frozen=True)
class Category:
    """A string field of the scored event: the model sees its code, the prediction logs it raw."""

    name: str
    field: str
    encoding: Vocabulary | Hashed


@dataclass(frozen=True)
class Aggregate:
    """`op` of `field` over the events of stream `stream` that share the scored event's `entity` fields.

    `window` belongs to count, sum, mean, min and max; `within_ms` to last and since_last (seconds).
    """

    name: str
    stream: int
    entity: tuple[str, ...]
    op: Op
    field: str | None = None
    window: Window | None = None
    within_ms: int | None = None


@dataclass(frozen=True)
class Computed:
    """`function` of the scored events' fields, vectorised: Columns → array [n], cast to float32."""

    name: str
    function: Callable[[Columns], Any] = field(compare=False)
    dtype: str = "float32"


Feature = Value | Category | Aggregate | Computed


@dataclass(frozen=True)
class FeatureSpec:
    """The features of a pipeline in the order of the model's inputs; `streams[0]` is the scored one."""

    streams: tuple[Stream, ...]
    features: tuple[Feature, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for feature in self.features:
            if feature.name in seen:
                raise SpecError(f"feature {feature.name}: declared twice; remove one or rename it with name=")
            seen.add(feature.name)
            _check(self, feature)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.features)

    @cached_property
    def aggregates(self) -> tuple[Aggregate, ...]:
        return tuple(f for f in self.features if isinstance(f, Aggregate))

    @cached_property
    def entities(self) -> tuple[tuple[str, ...], ...]:
        """The entity kinds (tuples of field names) in the order of their first use."""
        return tuple(dict.fromkeys(a.entity for a in self.aggregates))

    @cached_property
    def longest_ms(self) -> int:
        """How far back an event can still count: what a rebuild must read."""
        reach = (
            a.window.length_ms + a.window.pane_ms if a.window else a.within_ms or 0 for a in self.aggregates
        )
        return max(reach, default=0)

    @cached_property
    def hash(self) -> str:
        """Names what a model was trained on: any change of a feature changes it. 16 hex digits."""
        return _digest([_plain(f) for f in self.features])

    @cached_property
    def state_hash(self) -> str:
        """Names the state that the aggregates keep; no other can be read into this spec. 16 hex digits."""
        nullable = [[f.name for f in s.fields if f.nullable] for s in self.streams]
        streams = [s.name for s in self.streams]
        return _digest([STATE_FORMAT, streams, nullable, [_plain(a) for a in self.aggregates]])


def _check(spec: FeatureSpec, feature: Feature) -> None:
    scored = spec.streams[0]
    if isinstance(feature, Value):
        found = scored.field(feature.field)
        if found is None:
            raise SpecError(_unknown(feature.name, feature.field, scored))
        if found.kind != "number":
            raise SpecError(
                f"feature {feature.name}: field {feature.field} of {scored.name} is a string; "
                "declare it as a category"
            )
    elif isinstance(feature, Category):
        found = scored.field(feature.field)
        if found is None:
            raise SpecError(_unknown(feature.name, feature.field, scored))
        if found.kind != "string":
            raise SpecError(
                f"feature {feature.name}: field {feature.field} of {scored.name} is a number, not a category"
            )
        if feature.encoding.size < 2:
            raise SpecError(
                f"feature {feature.name}: the encoding is empty; name at least one value or bucket"
            )
    elif isinstance(feature, Aggregate):
        _check_aggregate(spec, feature)


def _check_aggregate(spec: FeatureSpec, feature: Aggregate) -> None:
    source, scored = spec.streams[feature.stream], spec.streams[0]
    for name in feature.entity:
        for stream in (source, scored):
            if stream.field(name) is None:
                raise SpecError(_unknown(feature.name, name, stream))
    if not feature.entity:
        raise SpecError(f"feature {feature.name}: no entity; name the field(s) to group by")
    if feature.op in FIELDLESS:
        if feature.field is not None:
            raise SpecError(f"feature {feature.name}: {feature.op} takes no field")
    else:
        found = source.field(feature.field or "")
        if found is None:
            raise SpecError(_unknown(feature.name, feature.field or "", source))
        if found.kind != "number":
            raise SpecError(
                f"feature {feature.name}: {feature.op} needs a number, "
                f"{found.name} of {source.name} is a string"
            )
    if feature.op in WINDOWED and feature.window is None:
        raise SpecError(f'feature {feature.name}: {feature.op} needs a window, for example "1h"')
    if feature.op not in WINDOWED and (feature.window is not None or not feature.within_ms):
        raise SpecError(f"feature {feature.name}: {feature.op} takes within=, not a window")


def _unknown(feature: str, name: str, stream: Stream) -> str:
    known = ", ".join(f.name for f in stream.fields)
    return f"feature {feature}: {stream.name} has no field {name!r}; it has {known}"


def _plain(feature: Feature) -> list[Any]:
    if isinstance(feature, Aggregate):
        window = feature.window.length_ms if feature.window else feature.within_ms
        return ["aggregate", feature.name, feature.stream, feature.entity, feature.op, feature.field, window]
    if isinstance(feature, Category):
        encoding = feature.encoding
        detail = list(encoding.values) if isinstance(encoding, Vocabulary) else encoding.buckets
        return ["category", feature.name, feature.field, detail]
    if isinstance(feature, Computed):
        return ["computed", feature.name, feature.dtype, _source_of(feature.function)]
    return ["value", feature.name, feature.field]


def _source_of(function: Callable[[Columns], Any]) -> str:
    try:
        return textwrap.dedent(inspect.getsource(function)).strip()
    except (OSError, TypeError):
        return getattr(function, "__qualname__", repr(type(function)))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
