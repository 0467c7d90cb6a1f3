"""The codec of one source: which schema each value was written with, and the reader of each schema.

Readers are made once a schema, off the event loop (`learn`), before a batch is decoded. That a schema is unknown is
remembered for a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from monitors.metrics import Metrics
from streams.event import Event
from streams.schemas.json_schema import JsonReader
from streams.schemas.registry import RegistryAway, Schema, SchemaRegistry, UnknownSchema
from streams.schemas.wire import HEADER, Reader, Undecodable, header_of, id_of

UNKNOWN_S = 60.0
"""For how long an unknown schema is taken for unknown."""

_LOOKS = 3
_LOOK_AGAIN_S = 0.3
"""A registry of several nodes may hear of a schema a moment after the producer did."""

_AT_ONCE = 8
_MOST_UNKNOWN = 10_000
_KINDS = {"avro": "AVRO", "protobuf": "PROTOBUF"}


class Codec:
    """Decodes values of the wire format. name: avro, protobuf or json-schema; registry: None for the last."""

    def __init__(
        self,
        name: str,
        event: type[Event],
        registry: SchemaRegistry | None,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._name, self._event, self._registry, self._metrics = name, event, registry, metrics
        self._clock, self._pause = clock, pause
        self._json = JsonReader(event) if registry is None else None
        self._readers: dict[bytes, Reader | Undecodable] = {}
        self._again_s: dict[bytes, float] = {}

    def unseen(self, values: Iterable[bytes | None]) -> list[bytes]:
        """Headers whose schemas must be learned before `values` can be decoded."""
        if self._json is not None:
            return []
        now_s = self._clock()
        found = {v[:HEADER] for v in values if v is not None and len(v) >= HEADER and v[0] == 0}
        return [h for h in found if h not in self._readers or self._again_s.get(h, now_s) < now_s]

    def learn(self, headers: Sequence[bytes]) -> None:
        """Asks the registry. Blocks. RegistryAway where it did not answer about all of them."""
        left = list(headers)
        for look in range(_LOOKS):
            if not left:
                return
            if look:
                self._pause(_LOOK_AGAIN_S)
            with ThreadPoolExecutor(min(_AT_ONCE, len(left))) as pool:
                asked = [pool.submit(self._learned, header) for header in left]
            left = [header for header, found in zip(left, asked, strict=True) if not found.result()]
        if left:
            self._unknown(left)

    def event(self, value: bytes) -> Any:
        """The event of one value. Raises Undecodable, or msgspec's errors."""
        return self._reader(header_of(value)).event(value)

    def events(self, values: Sequence[bytes]) -> list[Any]:
        """The events of all values, in their order; raises if any is none."""
        headers = list(map(header_of, values))
        kinds = set(headers)
        if len(kinds) == 1:
            return self._reader(kinds.pop()).events(values)
        found: list[Any] = [None] * len(values)
        for kind in kinds:
            places = [i for i, header in enumerate(headers) if header == kind]
            events = self._reader(kind).events([values[i] for i in places])
            for i, event in zip(places, events, strict=True):
                found[i] = event
        return found

    def _reader(self, header: bytes) -> Reader:
        if self._json is not None:
            return self._json
        found = self._readers.get(header)
        if found is None:
            raise Undecodable("unknown_schema", f"schema {id_of(header)} has not been asked for")
        if isinstance(found, Undecodable):
            raise Undecodable(found.code, str(found), found.field)
        return found

    def _learned(self, header: bytes) -> bool:
        """Whether the registry has the schema, be it one that can be used or not."""
        assert self._registry is not None
        try:
            self._readers[header] = self._made(self._registry.schema(id_of(header)))
            result = "ok"
        except UnknownSchema:
            return False
        except Undecodable as error:
            self._readers[header] = error
            result = "unusable"
        except RegistryAway:
            self._metrics.inc("weir_schema_fetches_total", result="failed")
            raise
        self._again_s.pop(header, None)
        self._metrics.inc("weir_schema_fetches_total", result=result)
        return True

    def _unknown(self, headers: Sequence[bytes]) -> None:
        if len(self._again_s) > _MOST_UNKNOWN:  # garbage that looks like a header: it need not be remembered
            for header in self._again_s:
                self._readers.pop(header, None)
            self._again_s.clear()
        for header in headers:
            reason = f"the registry has no schema {id_of(header)}"
            self._readers[header] = Undecodable("unknown_schema", reason)
            self._again_s[header] = self._clock() + UNKNOWN_S
        self._metrics.inc("weir_schema_fetches_total", len(headers), result="unknown")

    def _made(self, schema: Schema) -> Reader:
        if schema.kind != _KINDS[self._name]:
            said = f"schema {schema.id} is {schema.kind}, the source is declared codec={self._name!r}"
            raise Undecodable("other_codec", said)
        try:
            return self._reader_of(schema)
        except (Undecodable, RegistryAway):
            raise
        except Exception as error:  # of many kinds: what somebody has registered
            raise Undecodable("bad_schema", f"schema {schema.id} cannot be read: {error!r}") from error

    def _reader_of(self, schema: Schema) -> Reader:
        if self._name == "avro":
            from streams.schemas.avro import AvroReader

            return AvroReader(schema, self._event)
        from streams.schemas.protobuf import ProtobufReader

        return ProtobufReader(schema, self._event)
