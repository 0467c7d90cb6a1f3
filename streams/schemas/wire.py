"""The Schema Registry's wire format: a zero byte, the id of the schema in four bytes, then the value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

HEADER = 5


class Undecodable(Exception):
    """A record, or all records of a schema, that cannot become events: a dead letter.

    code: one of a few words, for counting; the message is for a person; field: the one to blame, if one is.
    """

    def __init__(self, code: str, reason: str, field: str = "") -> None:
        super().__init__(reason)
        self.code, self.reason, self.field = code, reason, field


class Reader(Protocol):
    """Reads the values that were written with one schema, header included, into events.

    Raises Undecodable, or msgspec's errors, which name the field.
    """

    def event(self, value: bytes) -> Any:
        """The event of one value."""

    def events(self, values: Sequence[bytes]) -> list[Any]:
        """The events of all values; raises if any is none."""


def header_of(value: bytes) -> bytes:
    """The header; Undecodable where there is none."""
    if len(value) < HEADER or value[0] != 0:
        said = f"it begins with {value[:HEADER].hex(' ')}, not with 00 and the four bytes of a schema's id"
        raise Undecodable("no_schema", f"not in the Schema Registry's wire format: {said}")
    return value[:HEADER]


def id_of(header: bytes) -> int:
    return int.from_bytes(header[1:HEADER], "big")
