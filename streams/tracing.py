"""Traces: the events' `traceparent` continued into the predictions, with a span per sampled event.

Spans go out by OTLP over HTTP when OTEL_EXPORTER_OTLP_ENDPOINT (or …_TRACES_ENDPOINT) is set; without it, and
for events that are not sampled, the header passes through unchanged. OTEL_* mean what OpenTelemetry says.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from streams.settings import traces_wanted

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, SpanContext

    from streams.event_spans import Begun

SHUTDOWN_S = 2.0
TRACEPARENT = "traceparent"
"""The Kafka header with an event's place in its trace."""
_HEADER = re.compile(rb"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)

Attributes = Mapping[str, str | int | float | bool]
Stage = tuple[str, int, int]
"""Name, start and end, in ns since 1970."""


class TraceParent(NamedTuple):
    trace_id: int
    span_id: int
    sampled: bool


def parse_traceparent(header: bytes) -> TraceParent | None:
    """W3C trace context; None where the header is not one."""
    found = _HEADER.fullmatch(header)
    if found is None or (header[:2] == b"00" and found[4] is not None):
        return None
    trace_id, span_id = int(found[1], 16), int(found[2], 16)
    if not trace_id or not span_id:
        return None
    return TraceParent(trace_id, span_id, bool(int(found[3], 16) & 1))


DETAILED = 2
"""Sampled events of one round that get a span for each stage: the stages are the round's, and the same for all."""


@dataclass(frozen=True)
class Spans:
    """The spans of a round that have begun; those never ended are not sent."""

    begun: list[Begun] = field(default_factory=list)


class Step:
    """One step of the loop, and its span if there is one; ended by `end`, or by leaving its `with`.

    traceparent: what the next step continues: this span, or what this step was given.
    """

    def __init__(self, span: Span | None, traceparent: bytes | None) -> None:
        self._span, self.traceparent = span, traceparent

    @property
    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """Kafka headers for the record that tells of this step."""
        return ((TRACEPARENT, self.traceparent),) if self.traceparent else ()

    def end(self, error: str | None = None, **attributes: str | int | float | bool) -> None:
        """Ends it, once. error: what went wrong, if something did."""
        span, self._span = self._span, None
        if span is None:
            return
        from opentelemetry.trace import Status, StatusCode

        span.set_attributes({f"weir.{name}": value for name, value in attributes.items()})
        if error is not None:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end(None if error is None else f"{type(error).__name__}: {error}")


class Tracer:
    """Records the rounds of one pipeline. Without an exporter it only passes headers through."""

    def __init__(self, pipeline: str, exporter: SpanExporter | None = None) -> None:
        self._pipeline = pipeline
        self._provider: TracerProvider | None = None
        if exporter is None:
            return
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from streams.event_spans import EventSpans

        named = Resource.create().merge(Resource({"service.name": "weir"})).merge(OTELResourceDetector().detect())
        # shutdown_on_exit would wait without bound for a collector that is gone.
        self._provider = TracerProvider(resource=_hashed_once(named), shutdown_on_exit=False)
        processor = BatchSpanProcessor(exporter)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("weir")
        self._events = EventSpans(self._provider, processor)

    @classmethod
    def from_environment(cls, pipeline: str) -> Tracer:
        """A tracer with the OTLP exporter that OTEL_* describe, if they do."""
        if not traces_wanted():
            return cls(pipeline)
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        from streams.otlp import PlainSpans

        return cls(pipeline, PlainSpans(OTLPSpanExporter()))

    @property
    def exports(self) -> bool:
        return self._provider is not None

    def begin(
        self, traceparents: Sequence[bytes | None], start_ns: int, attributes: Callable[[int], Attributes]
    ) -> tuple[list[bytes | None], Spans]:
        """The `traceparent` of each prediction of a round, and the spans to `end` when it has been sent.

        A sampled event gets a span `weir.score` from `start_ns` on, and its prediction carries it; every other header
        is returned as it came. `attributes` gives the span's by the event's place in the round (topic, partition,
        offset, model …).
        """
        headers, spans = list(traceparents), Spans()
        if self._provider is None:
            return headers, spans
        named: Attributes = {"weir.pipeline": self._pipeline}
        for row in [row for row, header in enumerate(headers) if header]:
            parent = parse_traceparent(headers[row] or b"")
            if parent is not None and parent.sampled:
                trace_id, span_id, _ = parent
                span = self._events.begin(trace_id, span_id, start_ns, {**named, **attributes(row)})
                if span is not None:
                    spans.begun.append(span)
                    headers[row] = _header(span.own)
        return headers, spans

    def end(self, spans: Spans, stages: Sequence[Stage]) -> None:
        """Ends a round's spans with its last stage, and gives each of them a child for every stage.

        The stages are the round's: where many events of one are sampled, the first `DETAILED` have them.
        """
        if not spans.begun:
            return
        last_ns = max((end_ns for _, _, end_ns in stages), default=0)
        for span in spans.begun[:DETAILED]:
            for stage in stages:
                self._events.stage(span, *stage)
        for span in spans.begun:
            self._events.end(span, max(span.start_ns, last_ns))

    def step(
        self,
        name: str,
        *,
        parent: bytes | None = None,
        links: Iterable[bytes] = (),
        **attributes: str | int | float | bool,
    ) -> Step:
        """Begins the span `weir.<name>` of a step of the loop.

        parent: `traceparent` of the step before; None, or one that is none = this step begins a trace, as OTEL_*
        samplers allow. links: of what else it came of. attributes: `weir.<name>` of the span.
        """
        if self._provider is None:
            return Step(None, parent)
        from opentelemetry import trace

        before = _context(parent)
        # an empty context, for one that happens to be current is of something else
        context = trace.set_span_in_context(trace.NonRecordingSpan(before or trace.INVALID_SPAN_CONTEXT))
        span = self._tracer.start_span(
            f"weir.{name}",
            context,
            attributes={"weir.pipeline": self._pipeline, **{f"weir.{key}": value for key, value in attributes.items()}},
            links=[trace.Link(found) for found in map(_context, links) if found is not None],
        )
        if not span.is_recording():
            return Step(None, parent)
        return Step(span, _header(span.get_span_context()))

    def shutdown(self, timeout_s: float = SHUTDOWN_S) -> bool:
        """Sends what is left; False if the collector did not take it in `timeout_s`."""
        if self._provider is None:
            return True
        # OpenTelemetry's own shutdown can hang on a collector that does not answer.
        sending = threading.Thread(target=self._provider.shutdown, name="weir-traces", daemon=True)
        sending.start()
        sending.join(timeout_s)
        return not sending.is_alive()


def _hashed_once(resource: Resource) -> Resource:
    """The same, for an exporter that groups spans by it: its own hash is that of its JSON, made anew for each span."""
    from opentelemetry.sdk.resources import Resource

    class Hashed(Resource):
        _hash = hash(resource)

        def __hash__(self) -> int:
            return self._hash

    return Hashed(resource.attributes, resource.schema_url)


def traceparent_of(headers: Iterable[tuple[str, bytes | None]] | None) -> bytes | None:
    """The `traceparent` among a Kafka record's headers."""
    return next((value for name, value in headers or () if name == TRACEPARENT), None)


def _header(own: SpanContext) -> bytes:
    return b"00-%032x-%016x-01" % (own.trace_id, own.span_id)


def _context(header: bytes | None) -> SpanContext | None:
    from opentelemetry import trace

    parent = parse_traceparent(header) if header else None
    if parent is None:
        return None
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if parent.sampled else trace.TraceFlags.DEFAULT)
    return trace.SpanContext(parent.trace_id, parent.span_id, True, flags)
