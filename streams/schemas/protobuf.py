"""Protobuf values, read with the descriptor that they were written with, and fitted to the event type by name.

A field that was added upstream is passed over; one that was taken away has the event's default. A field that the
schema declares `optional`, or a wrapper, is null where it is absent; others then have the zero of their type, as
Protobuf says.
"""

from __future__ import annotations

import base64
import binascii
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError

from features.spec import Field
from streams.event import Event, event_fields, optional_fields, wire_names
from streams.schemas.registry import RegistryAway, Schema
from streams.schemas.wire import HEADER, Undecodable

_WRAPPERS = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
_GOOGLES = "google/protobuf/"
_DEEPEST = 16
_ABSENT = object()
_Get = Callable[[Any], Any]


class ProtobufReader:
    """Reads the values of one schema into `event`.

    RegistryAway: the registry gave the schema's text, not its descriptor; protobuf's own errors.
    """

    def __init__(self, schema: Schema, event: type[Event]) -> None:
        self._event = event
        self._convert_all = list[event]  # type: ignore[valid-type]
        pool = descriptor_pool.DescriptorPool()
        self._id = schema.id
        added: set[str] = set()
        _add_references(schema, pool, added)
        file = _file_of(schema, f"schema-{schema.id}.proto")
        _add_imports(file, pool, added)
        pool.Add(file)
        self._file = pool.FindFileByName(file.name)
        self._messages: dict[tuple[int, ...], tuple[Any, list[tuple[str, _Get]]]] = {}

    def event(self, value: bytes) -> Any:
        return msgspec.convert(self._fields(value), self._event)

    def events(self, values: Sequence[bytes]) -> list[Any]:
        found: list[Any] = msgspec.convert([self._fields(value) for value in values], self._convert_all)
        return found

    def _fields(self, value: bytes) -> dict[str, Any]:
        path, start = ((0,), HEADER + 1) if value[HEADER : HEADER + 1] == b"\0" else message_path(value)
        known = self._messages.get(path)
        if known is None:
            known = self._messages[path] = self._message(path)
        made, getters = known
        message = made()
        try:
            message.ParseFromString(value[start:])
        except DecodeError as error:
            raise Undecodable("malformed", f"no value of its schema: {error}") from None
        return {name: found for name, get in getters if (found := get(message)) is not _ABSENT}

    def _message(self, path: tuple[int, ...]) -> tuple[Any, list[tuple[str, _Get]]]:
        try:
            descriptor = list(self._file.message_types_by_name.values())[path[0]]
            for place in path[1:]:
                descriptor = descriptor.nested_types[place]
        except IndexError:
            raise Undecodable("malformed", f"schema {self._id} has no message {list(path)}") from None
        return message_factory.GetMessageClass(descriptor), _getters(descriptor, self._event)


def message_path(value: bytes) -> tuple[tuple[int, ...], int]:
    """Which message of the file it is, from outside in, and where it begins. Zigzag varints, counted; none = [0]."""
    count, at = _varint(value, HEADER)
    if not 0 <= count <= _DEEPEST:
        raise Undecodable("malformed", f"a message {count} deep")
    path = []
    for _ in range(count):
        place, at = _varint(value, at)
        if place < 0:
            raise Undecodable("malformed", f"a message with the index {place}")
        path.append(place)
    return tuple(path) or (0,), at


def _varint(value: bytes, at: int) -> tuple[int, int]:
    found = 0
    for shift in range(0, 35, 7):
        if at >= len(value):
            break
        byte, at = value[at], at + 1
        found |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (found >> 1) ^ -(found & 1), at
    raise Undecodable("malformed", "it ends within its message's index")


def _file_of(schema: Schema, name: str) -> FileDescriptorProto:
    try:
        file = FileDescriptorProto.FromString(base64.b64decode(schema.text, validate=True))
    except (binascii.Error, ValueError, DecodeError):
        said = "the registry gives Protobuf schemas as text; it must know ?format=serialized"
        raise RegistryAway(f"schema {schema.id}: {said}") from None
    file.name = name
    return file


def _add_references(schema: Schema, pool: Any, added: set[str]) -> None:
    for name, other in schema.references:
        if name in added or name.startswith(_GOOGLES):
            continue
        added.add(name)
        _add_references(other, pool, added)
        file = _file_of(other, name)
        _add_imports(file, pool, added)
        pool.Add(file)


def _add_imports(file: FileDescriptorProto, pool: Any, added: set[str]) -> None:
    """Google's own files, which are the same everywhere."""
    for name in file.dependency:
        if name.startswith(_GOOGLES) and name not in added:
            added.add(name)
            module = importlib.import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2")
            known = FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
            _add_imports(known, pool, added)
            pool.Add(known)


def _getters(descriptor: Descriptor, event: type[Event]) -> list[tuple[str, _Get]]:
    names, optional = wire_names(event), optional_fields(event)
    by_name = {**{f.camelcase_name: f for f in descriptor.fields}, **{f.name: f for f in descriptor.fields}}
    return [
        (names[f.name], _getter(by_name[names[f.name]], f, _ABSENT if f.name in optional else None))
        for f in event_fields(event)
        if names[f.name] in by_name
    ]


def _getter(found: FieldDescriptor, field: Field, absent: Any) -> _Get:
    name, has = found.name, found.has_presence
    read: _Get = lambda message: getattr(message, name)  # noqa: E731
    if found.message_type is not None and not found.is_repeated:
        kind = found.message_type.full_name
        if kind == "google.protobuf.Timestamp":
            read = lambda message: getattr(message, name).ToMilliseconds()  # noqa: E731
        elif kind in _WRAPPERS:
            read = lambda message: getattr(message, name).value  # noqa: E731
    elif found.enum_type is not None and field.kind == "string" and not found.is_repeated:
        labels = {value.number: value.name for value in found.enum_type.values}
        read = lambda message: labels.get(getattr(message, name), str(getattr(message, name)))  # noqa: E731
    if not has:
        return read
    return lambda message: read(message) if message.HasField(name) else absent
