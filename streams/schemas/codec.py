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
        if len(headers) == 1:
            self._learn(headers[0])
            return
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for asked in [pool.submit(self._learn, header) for header in headers]:
                asked.result()

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

    def _learn(self, header: bytes) -> None:
        try:
            schema = self._ask(id_of(header))
            self._readers[header] = self._made(schema)
            result = "ok"
        except UnknownSchema:
            reason = f"the registry has no schema {id_of(header)}"
            self._readers[header] = Undecodable("unknown_schema", reason)
            self._again_s[header] = self._clock() + UNKNOWN_S
            result = "unknown"
        except Undecodable as error:
            self._readers[header] = error
            result = "unusable"
        except RegistryAway:
            self._metrics.inc("weir_schema_fetches_total", result="failed")
            raise
        self._metrics.inc("weir_schema_fetches_total", result=result)

    def _ask(self, id: int) -> Schema:
        assert self._registry is not None
        for look in range(_LOOKS):
            try:
                return self._registry.schema(id)
            except UnknownSchema:
                if look == _LOOKS - 1:
                    raise
            self._pause(_LOOK_AGAIN_S)
        raise AssertionError

    def _made(self, schema: Schema) -> Reader:
        if schema.kind != _KINDS[self._name]:
            said = f"schema {schema.id} is {schema.kind}, the source is declared codec={self._name!r}"
            raise Undecodable("other_codec", said)
        if self._name == "avro":
            from streams.schemas.avro import AvroReader

            return AvroReader(schema, self._event)
        from streams.schemas.protobuf import ProtobufReader

        return ProtobufReader(schema, self._event)
