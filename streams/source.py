"""Sources: a topic, the type of its events, and the features that can be declared over them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import Any, Literal

from features.spec import (
    DEFAULT_WITHIN_MS,
    Aggregate,
    Category,
    Columns,
    Computed,
    Feature,
    Field,
    Hashed,
    Op,
    Stream,
    Value,
    Vocabulary,
)
from features.windows import Window, WindowError, parse_duration
from monitors.conditions import Condition
from monitors.rules import Rule
from streams.contract import source_conditions
from streams.errors import DeclarationError
from streams.event import Event, event_fields, integer_fields, optional_fields, unknown_field

_TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
CODECS = ("json", "avro", "protobuf", "json-schema")
_DTYPES = ("float32", "float64", "int32", "int64", "bool")


@dataclass(frozen=True)
class Declared:
    """A feature over `source`; the pipeline gives the source its place (`Aggregate.stream`)."""

    source: Source
    feature: Value | Category | Aggregate


@dataclass(frozen=True)
class Source:
    """A topic of typed events.

    key: the field that is the message key's text, and by which the topic is partitioned. Features group by
        it, or by several fields of which it is one: only then are all events of an entity in one partition.
    id: the field that names an event in predictions and labels; None = "topic-partition-offset".
    time: the field with the event time, an int in ms since 1970.
    partitioner: of the topic's producers: "crc32" is librdkafka's default, "murmur2" Java's.
    max_skew: how far an event's time may be ahead of its Kafka timestamp; later ones go to the dead letters.
    codec: of the records' values: plain JSON, or the Schema Registry's wire format with one of its kinds of schema.
    rules: what the values of its fields must be, and what becomes of records that break it.
    """

    topic: str
    event: type[Event]
    _: KW_ONLY
    key: str
    id: str | None = None
    time: str
    partitioner: Literal["crc32", "murmur2"] = "crc32"
    max_skew: str = "1h"
    codec: Literal["json", "avro", "protobuf", "json-schema"] = "json"
    rules: Sequence[Rule] = ()

    def __post_init__(self) -> None:
        check_topic(self.topic, f"source {self.topic}")
        whole = integer_fields(self.event) if self.stream else frozenset()
        key, time = self._required("key", self.key), self._required("time", self.time)
        if key.kind != "string" and key.name not in whole:
            raise DeclarationError(f"source {self.topic}: key={self.key!r} must be a str or an int")
        if self.id is not None:
            found = self._required("id", self.id)
            if found.kind != "string" and found.name not in whole:
                raise DeclarationError(f"source {self.topic}: id={self.id!r} must be a str or an int")
        if time.name not in whole:
            raise DeclarationError(f"source {self.topic}: time={self.time!r} must be an int: milliseconds since 1970")
        if self.partitioner not in ("crc32", "murmur2"):
            raise DeclarationError(f'source {self.topic}: partitioner must be "crc32" or "murmur2"')
        if self.codec not in CODECS:
            known = ", ".join(CODECS)
            raise DeclarationError(f"source {self.topic}: codec={self.codec!r} is none of {known}")
        duration_ms(self.max_skew, f"source {self.topic}: max_skew")
        if isinstance(self.rules, list):
            object.__setattr__(self, "rules", tuple(self.rules))  # a source is a value, and can be a key
        _ = self.conditions

    @cached_property
    def stream(self) -> Stream:
        """The columns that the feature engine sees."""
        return Stream(self.topic, event_fields(self.event))

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        """What `rules` ask for, one by one."""
        return source_conditions(self.rules, self.topic, self.stream.fields, self.time)

    @cached_property
    def optional(self) -> frozenset[str]:
        """The fields that an event may lack: those with a default."""
        return optional_fields(self.event)

    @property
    def max_skew_ms(self) -> int:
        return parse_duration(self.max_skew)

    def field(self, field: str, *, name: str | None = None) -> Declared:
        """A number of the scored event itself."""
        name = feature_name(name or field)
        self._known(name, field)
        return Declared(self, Value(name, field))

    def category(
        self, field: str, encoding: Vocabulary | Hashed | Sequence[str], *, name: str | None = None
    ) -> Declared:
        """A text of the scored event: the model sees its code, the prediction logs the text."""
        name = feature_name(name or field)
        self._known(name, field)
        return Declared(self, Category(name, field, _encoding(name, encoding)))

    def by(self, *fields: str, name: str | None = None) -> Entity:
        """The entity that shares these fields. `name` takes their place in its features' names."""
        entity = feature_name(name or "_".join(fields) or "entity")
        if not fields:
            raise DeclarationError(f"{self.topic}.by(): name the field(s) to group by, for example by({self.key!r})")
        whole = integer_fields(self.event)
        for field in fields:
            found = self.stream.field(field)
            if found is None:
                raise DeclarationError(f"entity {entity}: {unknown_field(field, self.topic, self.stream.fields)}")
            if found.kind != "string" and field not in whole:
                raise DeclarationError(f"entity {entity}: {field} of {self.topic} must be a str or an int to group by")
        if len(set(fields)) < len(fields):
            raise DeclarationError(f"entity {entity}: a field is named twice")
        if self.key not in fields:
            named = ", ".join(fields)
            raise DeclarationError(
                f"entity {entity} is not in the key of {self.topic} ({self.key}): its events lie in other "
                f"partitions; group by {self.key} or by ({self.key}, {named}), or key the topic by {named}"
            )
        return Entity(self, fields, entity)

    def _required(self, what: str, name: str) -> Field:
        found = self.stream.field(name)
        if found is None:
            unknown = unknown_field(name, self.event.__name__, self.stream.fields)
            raise DeclarationError(f"source {self.topic}: {what}={name!r}: {unknown}")
        if found.nullable:
            raise DeclarationError(f"source {self.topic}: {what}={name!r} may not be null: take away its | None")
        return found

    def _known(self, feature: str, field: str) -> None:
        if self.stream.field(field) is None:
            raise DeclarationError(f"feature {feature}: {unknown_field(field, self.topic, self.stream.fields)}")


@dataclass(frozen=True)
class Entity:
    """Events of `source` that share `fields`; `name` begins the names of its features."""

    source: Source
    fields: tuple[str, ...]
    name: str

    def count(self, *windows: str) -> list[Declared]:
        """How many events: 0 when there was none."""
        return self._windowed("count", None, windows)

    def sum(self, field: str, *windows: str) -> list[Declared]:
        """Sum of `field`; 0 when there was none."""
        return self._windowed("sum", field, windows)

    def mean(self, field: str, *windows: str) -> list[Declared]:
        """Mean of `field`; missing when there was none."""
        return self._windowed("mean", field, windows)

    def min(self, field: str, *windows: str) -> list[Declared]:
        """Smallest `field`; missing when there was none."""
        return self._windowed("min", field, windows)

    def max(self, field: str, *windows: str) -> list[Declared]:
        """Largest `field`; missing when there was none."""
        return self._windowed("max", field, windows)

    def last(self, field: str, *, within: str = "30d", name: str | None = None) -> Declared:
        """`field` of the event before; missing when that is older than `within`."""
        return self._latest("last", field, within, name or f"{self.name}_last_{field}")

    def since_last(self, *, within: str = "30d", name: str | None = None) -> Declared:
        """Seconds since the event before; missing when that is older than `within`."""
        return self._latest("since_last", None, within, name or f"{self.name}_since_last")

    def _windowed(self, op: Op, field: str | None, windows: tuple[str, ...]) -> list[Declared]:
        stem = "_".join(part for part in (self.name, op, field) if part)
        if not windows:
            raise DeclarationError(f'feature {stem}: {op} needs a window, for example "1h"')
        return [self._aggregate(op, field, f"{stem}_{text}", text) for text in windows]

    def _aggregate(self, op: Op, field: str | None, name: str, text: str) -> Declared:
        try:
            window = Window.parse(str(text))
        except WindowError as error:
            raise DeclarationError(f"feature {name}: {error}") from error
        self._number(op, field, name)
        return Declared(self.source, Aggregate(name, 0, self.fields, op, field, window))

    def _latest(self, op: Op, field: str | None, within: str, name: str) -> Declared:
        name = feature_name(name)
        within_ms = duration_ms(within, f"feature {name}: within") if within != "30d" else DEFAULT_WITHIN_MS
        self._number(op, field, name)
        return Declared(self.source, Aggregate(name, 0, self.fields, op, field, within_ms=within_ms))

    def _number(self, op: Op, field: str | None, feature: str) -> None:
        if field is None:
            return
        found = self.source.stream.field(field)
        if found is None:
            raise DeclarationError(
                f"feature {feature}: {unknown_field(field, self.source.topic, self.source.stream.fields)}"
            )
        if found.kind != "number":
            raise DeclarationError(
                f"feature {feature}: {op} needs a number, {field} of {self.source.topic} is a string; count it instead"
            )


def compute(name: str, function: Callable[[Columns], Any], dtype: str = "float32") -> Computed:
    """A feature made of the scored events' fields by a vectorised function: columns → array [n].

    Columns: float64 [n] with NaN for null, or a list of str | None.
    """
    name = feature_name(name)
    if dtype not in _DTYPES:
        raise DeclarationError(f"feature {name}: dtype must be one of {', '.join(_DTYPES)}, not {dtype!r}")
    if not callable(function):
        raise DeclarationError(f"feature {name}: {function!r} is not a function of the event's columns")
    return Computed(name, function, dtype)


def placed(declared: Declared | Computed, index: int) -> Feature:
    """The engine's form of a declared feature whose source has place `index` in the pipeline."""
    if isinstance(declared, Computed):
        return declared
    feature = declared.feature
    return replace(feature, stream=index) if isinstance(feature, Aggregate) else feature


def feature_name(name: str) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w{0,199}", name):
        raise DeclarationError(f"feature {name!r}: a name is made of letters, digits and _, and begins with a letter")
    return name


def check_topic(name: str, what: str) -> None:
    if not isinstance(name, str) or not _TOPIC.fullmatch(name):
        raise DeclarationError(f"{what}: {name!r} is not a topic's name; use letters, digits, '.', '_' and '-'")


def duration_ms(text: str, what: str) -> int:
    try:
        return parse_duration(str(text))
    except WindowError as error:
        raise DeclarationError(f"{what}: {error}") from error


def _encoding(feature: str, encoding: Vocabulary | Hashed | Sequence[str]) -> Vocabulary | Hashed:
    if isinstance(encoding, Hashed):
        if not isinstance(encoding.buckets, int) or encoding.buckets < 1:
            raise DeclarationError(f"feature {feature}: Hashed({encoding.buckets!r}) needs at least one bucket")
        return encoding
    values = encoding.values if isinstance(encoding, Vocabulary) else encoding
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise DeclarationError(f"feature {feature}: give its values as a list of texts, or Hashed(buckets)")
    if len(set(values)) < len(values):
        twice = next(value for value in values if list(values).count(value) > 1)
        raise DeclarationError(f"feature {feature}: the value {twice!r} is listed twice")
    if not values:
        raise DeclarationError(f"feature {feature}: the vocabulary is empty; list its values, or use Hashed(buckets)")
    return Vocabulary(tuple(values))
