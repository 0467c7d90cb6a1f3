"""Plain spans on the wire are what OpenTelemetry's own encoder makes of them; all others go through it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from streams.otlp import PlainSpans

RESOURCES = [Resource({"service.name": "weir"}, "https://example.org/schema"), Resource({"n": 1})]
SCOPES = [InstrumentationScope("weir"), InstrumentationScope("other", "1.2", "https://example.org/scope")]
contexts = st.builds(
    SpanContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.booleans(),
    st.just(TraceFlags(TraceFlags.SAMPLED)),
)
values = st.text(max_size=200) | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
spans = st.builds(
    ReadableSpan,
    st.text(max_size=150),
    contexts,
    st.none() | contexts,
    st.sampled_from(RESOURCES),
    st.none() | st.dictionaries(st.text(min_size=1, max_size=10), values, max_size=4),
    kind=st.sampled_from(SpanKind),
    start_time=st.integers(0, 2**63),
    end_time=st.integers(0, 2**63),
    instrumentation_scope=st.sampled_from(SCOPES),
)
CONTEXT = SpanContext(1, 2, False, TraceFlags(TraceFlags.SAMPLED))


class Client:
    """Takes what would be sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def export(self, body: bytes) -> Any:
        self.sent.append(body)
        return type("Result", (), {"success": len(self.sent) == 1, "error": None, "status_code": 503})


def plain(**fields: Any) -> ReadableSpan:
    given = {"start_time": 5, "end_time": 6, "resource": RESOURCES[0], "instrumentation_scope": SCOPES[0]} | fields
    return ReadableSpan("score", CONTEXT, **given)


def exporter() -> tuple[PlainSpans, Client]:
    library = OTLPSpanExporter("http://127.0.0.1:9/v1/traces")
    library._client = client = Client()  # type: ignore[assignment]
    return PlainSpans(library), client


@given(st.lists(spans, max_size=6))
def test_plain_spans_are_encoded_as_the_library_does(made: Sequence[ReadableSpan]) -> None:
    found = ExportTraceServiceRequest.FromString(exporter()[0].encoded(made))
    assert found == encode_spans(made)


@pytest.mark.parametrize(
    "span",
    [
        plain(),
        plain(attributes={"n": 1, "who": "weir"}),
        plain(links=[Link(CONTEXT)]),
        plain(events=[Event("e", timestamp=5)]),
        plain(status=Status(StatusCode.ERROR, "why")),
        plain(attributes={"several": ["a", "b"]}),
        plain(attributes={"half a character": "\ud800", "n": 1}),
        ReadableSpan(
            "state",
            SpanContext(1, 2, False, trace_state=TraceState([("k", "v")])),
            resource=RESOURCES[0],
            instrumentation_scope=SCOPES[0],
            start_time=5,
            end_time=6,
        ),
    ],
    ids=["plain", "attributes", "links", "events", "status", "a list", "half a character", "trace state"],
)
def test_whatever_a_span_holds_the_collector_gets_it(span: ReadableSpan) -> None:
    sender, client = exporter()
    assert sender.export([span]) is SpanExportResult.SUCCESS
    assert [ExportTraceServiceRequest.FromString(body) for body in client.sent] == [encode_spans([span])]


def test_what_was_not_taken_is_said() -> None:
    sender, _ = exporter()
    assert sender.export([plain()]) is SpanExportResult.SUCCESS
    assert sender.export([plain()]) is SpanExportResult.FAILURE


def test_an_exporter_without_the_part_that_is_used_exports_by_itself() -> None:
    class Other:
        def __init__(self) -> None:
            self.got: list[Any] = []

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            self.got += spans
            return SpanExportResult.SUCCESS

    other, span = Other(), plain()
    assert PlainSpans(other).export([span]) is SpanExportResult.SUCCESS  # type: ignore[arg-type]
    assert other.got == [span]
