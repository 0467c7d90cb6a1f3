"""JSON values behind the Schema Registry's header, decoded into the event type itself.

The registry is not asked: the event type and the source's rules say what is usable, as for plain JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from streams.event import Event
from streams.schemas.wire import HEADER


class JsonReader:
    """Reads values of any JSON schema into `event`."""

    def __init__(self, event: type[Event]) -> None:
        self._decode = msgspec.json.Decoder(event).decode

    def event(self, value: bytes) -> Any:
        return self._decode(value[HEADER:])

    def events(self, values: Sequence[bytes]) -> list[Any]:
        decode = self._decode
        return [decode(value[HEADER:]) for value in values]
