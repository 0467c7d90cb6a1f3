"""Sources: a topic, the type of its events, and the features that can be declared over them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Literal, get_args

from features.spec import Calendar, Category, Field, Stream, Value
from features.windows import parse_duration
from monitors.conditions import Condition
from monitors.rules import Rule
from streams.contract import source_conditions
from streams.declared import Declared, duration_ms, feature_name
from streams.encodings import AnyEncoding, encoding_of
from streams.entity import Entity
from streams.errors import DeclarationError
from streams.event import Event, event_fields, integer_fields, optional_fields, unknown_field
from streams.groups import check_local, group_of

_TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
CodecName = Literal["json", "avro", "protobuf", "json-schema"]


@dataclass(frozen=True)
class Source:
    """A topic of typed events.

    key: the field that is the message key's text, and by which the topic is partitioned. The entities of features that
        it names are kept where the events are read; others elsewhere (`by`).
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
    codec: CodecName = "json"
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
        check_codec(self.codec, f"source {self.topic}")
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

    @cached_property
    def max_skew_ms(self) -> int:
        return parse_duration(self.max_skew)

    def field(self, field: str, *, name: str | None = None) -> Declared:
        """A number of the scored event itself."""
        name = feature_name(name or field)
        self._known(name, field)
        return Declared(self, Value(name, field))

    def category(self, field: str, encoding: AnyEncoding, *, name: str | None = None) -> Declared:
        """A text of the scored event: the model sees its code, the prediction logs the text.

        encoding: a list of texts, Hashed(buckets), or texts with their frequencies.
        """
        name = feature_name(name or field)
        self._known(name, field)
        return Declared(self, Category(name, field, encoding_of(name, encoding)))

    def calendar(self, part: str, zone: str = "UTC", *, name: str | None = None) -> Declared:
        """A part of the calendar at the scored event's time, in a time zone such as "Europe/Berlin".

        part: minute, hour, minute_of_day, weekday (0 = Monday), weekend, day (of the month), month.
        """
        return Declared(self, Calendar(feature_name(name or part), part, zone))

    def by(
        self,
        *fields: str,
        name: str | None = None,
        exact: bool = False,
        fresh: str | None = None,
        on_stale: Literal["mark", "withhold"] | None = None,
    ) -> Entity:
        """The entity that shares these fields. `name` takes their place in its features' names.

        Where the source's key is not among them, another worker keeps it (`weir worker PIPELINE --group …`). exact: the
        event goes there to be scored; else its state is read as it stands. fresh: how old that may be; on_stale: what
        becomes of an event for which it is older: "mark" names the group in the prediction, "withhold" leaves out the
        score as well.
        """
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
            return Entity(self, fields, entity, group_of(entity, fields, exact, fresh, on_stale))
        check_local(entity, self.key, self.topic, exact, fresh, on_stale)
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


def check_topic(name: str, what: str) -> None:
    if not isinstance(name, str) or not _TOPIC.fullmatch(name):
        raise DeclarationError(f"{what}: {name!r} is not a topic's name; use letters, digits, '.', '_' and '-'")


def check_codec(name: str, what: str) -> None:
    if name not in get_args(CodecName):
        raise DeclarationError(f"{what}: codec={name!r} is none of {', '.join(get_args(CodecName))}")
