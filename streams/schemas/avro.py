"""Avro values, read with the schema that they were written with, and fitted to the event type by name.

A field that was added upstream is passed over, one that was taken away has the event's default, the order does not
matter, numbers widen, and one that was renamed is found by the aliases that its schema gives. What no longer fits the
event type is named by msgspec.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import fastavro
import msgspec

from features.spec import Field
from streams.event import Event, event_fields, wire_names
from streams.schemas.registry import Schema
from streams.schemas.wire import HEADER, Undecodable

_Change = Callable[[Any], Any] | None
_SHORTER = {"timestamp-micros": 1000, "local-timestamp-micros": 1000}
_SHORTER |= {"timestamp-nanos": 1_000_000, "local-timestamp-nanos": 1_000_000}
"""Of a millisecond: event time is in ms, whatever the schema counts in."""


class AvroReader:
    """Reads the values of one schema into `event`. Undecodable: a schema that is no record; fastavro's own errors."""

    def __init__(self, schema: Schema, event: type[Event]) -> None:
        self._event = event
        self._convert_all = list[event]  # type: ignore[valid-type]
        named: dict[str, Any] = {}
        _parse_references(schema, named)
        raw = json.loads(schema.text)
        self._schema = fastavro.parse_schema(_plain(raw), named_schemas=named)
        if not isinstance(raw, dict) or raw.get("type") != "record":
            raise Undecodable("bad_schema", f"schema {schema.id} is no record")
        self._changes = _changes(raw["fields"], event)

    def event(self, value: bytes) -> Any:
        return msgspec.convert(self._record(value), self._event)

    def events(self, values: Sequence[bytes]) -> list[Any]:
        found: list[Any] = msgspec.convert([self._record(value) for value in values], self._convert_all)
        return found

    def _record(self, value: bytes) -> Any:
        body = BytesIO(value)
        body.seek(HEADER)
        try:
            record: Any = fastavro.schemaless_reader(body, self._schema, None)
        except Exception as error:  # of many kinds: bytes that are no such record
            raise Undecodable("malformed", f"no value of its schema: {type(error).__name__}: {error}") from None
        if body.tell() != len(value):
            raise Undecodable("malformed", f"{len(value) - body.tell()} bytes after the record")
        for old, new, change in self._changes:
            found = record.pop(old)
            record[new] = found if found is None or change is None else change(found)
        return record


def _parse_references(schema: Schema, named: dict[str, Any]) -> None:
    for _, other in schema.references:
        _parse_references(other, named)
        raw = json.loads(other.text)
        if isinstance(raw, dict) and _full_name(raw) in named:
            continue
        fastavro.parse_schema(_plain(raw), named_schemas=named)


def _full_name(raw: dict[str, Any]) -> str:
    name, namespace = str(raw.get("name", "")), raw.get("namespace")
    return name if "." in name or not namespace else f"{namespace}.{name}"


def _plain(raw: Any) -> Any:
    """The schema without logical types: fastavro would make datetimes and decimals of them."""
    if isinstance(raw, dict):
        return {key: _plain(value) for key, value in raw.items() if key != "logicalType"}
    return [_plain(item) for item in raw] if isinstance(raw, list) else raw


def _changes(fields: Sequence[dict[str, Any]], event: type[Event]) -> list[tuple[str, str, _Change]]:
    """Of fields that are not taken as they are: name in the schema, name in the event, what becomes of the value."""
    names = wire_names(event)
    wanted = {names[f.name]: f for f in event_fields(event)}
    written = {field["name"] for field in fields}
    found: list[tuple[str, str, _Change]] = []
    for field in fields:
        name = field["name"]
        new = name
        if name not in wanted:
            new = next((a for a in field.get("aliases", ()) if a in wanted and a not in written), name)
        change = _change(field["type"], wanted[new]) if new in wanted else None
        if new != name or change is not None:
            found.append((name, new, change))
    return found


def _change(kind: Any, field: Field) -> _Change:
    if isinstance(kind, list):
        kinds = [k for k in kind if k != "null"]
        return _change(kinds[0], field) if len(kinds) == 1 else None
    if isinstance(kind, str):
        return bytes.decode if kind == "bytes" and field.kind == "string" else None
    if not isinstance(kind, dict):
        return None
    logical = kind.get("logicalType")
    if logical in _SHORTER and kind.get("type") == "long":
        units = _SHORTER[logical]
        return lambda value: value // units
    if logical == "decimal" and field.kind == "number":
        tenths = 10 ** int(kind.get("scale", 0))
        return lambda value: int.from_bytes(value, "big", signed=True) / tenths
    return _change(kind["type"], field) if isinstance(kind.get("type"), str | list) else None
