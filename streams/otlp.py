"""Spans on the wire as OTLP says, without a protobuf message for each of their attributes.

OpenTelemetry's exporter makes such messages: 20 µs a span, and once in 10,000 of them that are freed protobuf gives the
whole heap back to the kernel (malloc_trim), from where a worker gets it again page by page. Plain spans, which are
nearly all, are written here and sent by the exporter's own client; all others, and those that cannot be written, are
left to the exporter. Of what it does around a request, its metrics of itself and its limit of 64 MB are left out.
Loaded where traces are exported, and only there.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import StatusCode

# Tags of opentelemetry/proto/trace/v1/trace.proto and common.proto: field number << 3 | wire type.
_TRACE_ID, _SPAN_ID, _PARENT_ID = b"\x0a\x10", b"\x12\x08", b"\x22\x08"
_NAME, _KIND, _START, _END, _ATTRIBUTE, _FLAGS = b"\x2a", b"\x30", b"\x39", b"\x41", b"\x4a", b"\x85\x01"
_KEY, _VALUE = b"\x0a", b"\x12"
_STRING, _BOOL, _INT, _DOUBLE = b"\x0a", b"\x10", b"\x18", b"\x21"
_RESOURCE_SPANS, _RESOURCE, _SCOPE_SPANS, _SCOPE, _SPANS, _SCHEMA = b"\x0a", b"\x0a", b"\x12", b"\x0a", b"\x12", b"\x1a"
_STATUS_UNSET = b"\x7a\x00"

_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200
"""Of a span's flags: whether its parent is of another process is known, and it is."""
_FIXED32, _FIXED64, _FLOAT64 = struct.Struct("<I").pack, struct.Struct("<Q").pack, struct.Struct("<d").pack


class PlainSpans(SpanExporter):
    """Exports by OTLP over HTTP, as OTEL_* describe."""

    def __init__(self, exporter: OTLPSpanExporter) -> None:
        self._exporter = exporter
        self._around: dict[tuple[Any, Any], tuple[bytes, bytes]] = {}

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        client = getattr(self._exporter, "_client", None)  # another version may have none
        if client is None or not all(map(_is_plain, spans)):
            return self._exporter.export(spans)
        try:
            body = self.encoded(spans)
        except (UnicodeError, struct.error):  # half a character, a time before 1970: the exporter leaves that out
            return self._exporter.export(spans)
        sent = client.export(body)
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def encoded(self, spans: Sequence[ReadableSpan]) -> bytes:
        """An ExportTraceServiceRequest of plain spans."""
        found: dict[Any, dict[Any, list[ReadableSpan]]] = {}
        for span in spans:
            found.setdefault(span.resource, {}).setdefault(span.instrumentation_scope, []).append(span)
        return b"".join(_sized(_RESOURCE_SPANS, self._of_resource(resource, of)) for resource, of in found.items())

    def _of_resource(self, resource: Any, by_scope: dict[Any, list[ReadableSpan]]) -> bytes:
        parts = list[bytes]()
        for scope, spans in by_scope.items():
            if (resource, scope) not in self._around:
                self._around[resource, scope] = _around(spans[0])
            of_resource, of_scope = self._around[resource, scope]
            parts = parts or [of_resource]
            encoded = [_sized(_SPANS, _span(span)) for span in spans]
            parts.append(_sized(_SCOPE_SPANS, b"".join((of_scope, *encoded))))
        return b"".join(parts)


def _is_plain(span: ReadableSpan) -> bool:
    context = span.get_span_context()
    unset = span.status.status_code is StatusCode.UNSET and not span.status.description
    values = (span.attributes or {}).values()
    return (
        context is not None
        and not (context.trace_state or span.events or span.links)
        and unset
        and not (span.dropped_attributes or span.dropped_events or span.dropped_links)
        and span.start_time is not None
        and span.end_time is not None
        and all(map(_is_simple, values))
    )


def _is_simple(value: Any) -> bool:
    return isinstance(value, str | float) or (isinstance(value, int) and -(2**63) <= value < 2**63)


def _span(span: ReadableSpan) -> bytes:
    own, parent = span.get_span_context(), span.parent
    assert own is not None  # a plain span has all three
    assert span.start_time is not None
    assert span.end_time is not None
    flags = _HAS_IS_REMOTE | (_IS_REMOTE if parent is not None and parent.is_remote else 0)
    return b"".join(
        (
            _TRACE_ID + own.trace_id.to_bytes(16, "big"),
            _SPAN_ID + own.span_id.to_bytes(8, "big"),
            b"" if parent is None else _PARENT_ID + parent.span_id.to_bytes(8, "big"),
            _sized(_NAME, span.name.encode()),
            _KIND + _varint(span.kind.value + 1),  # 0 is "unspecified" there
            _START + _FIXED64(span.start_time),
            _END + _FIXED64(span.end_time),
            *(_attribute(key, value) for key, value in (span.attributes or {}).items()),
            _STATUS_UNSET,
            _FLAGS + _FIXED32(flags),
        )
    )


def _attribute(key: str, value: Any) -> bytes:
    if isinstance(value, str):
        encoded = _sized(_STRING, value.encode())
    elif isinstance(value, bool):
        encoded = _BOOL + _varint(value)
    elif isinstance(value, int):
        encoded = _INT + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    else:
        encoded = _DOUBLE + _FLOAT64(value)
    return _sized(_ATTRIBUTE, _sized(_KEY, key.encode()) + _sized(_VALUE, encoded))


def _around(span: ReadableSpan) -> tuple[bytes, bytes]:
    """What stands around the spans of the resource and the scope of `span`, as the library encodes it."""
    (of_resource,) = encode_spans([span]).resource_spans
    (of_scope,) = of_resource.scope_spans
    return (
        _sized(_RESOURCE, of_resource.resource.SerializeToString()) + _schema(of_resource.schema_url),
        _sized(_SCOPE, of_scope.scope.SerializeToString()) + _schema(of_scope.schema_url),
    )


def _schema(url: str) -> bytes:
    return _sized(_SCHEMA, url.encode()) if url else b""


def _sized(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    if number < 0x80:
        return number.to_bytes()
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
