"""The spans of sampled events, put together by Weir and exported by OpenTelemetry.

A Tracer's spans may be added to from several threads until they end, which makes one cost as much as scoring thirty
events. These are finished when they are made. Loaded where traces are exported, and only there.
"""

from __future__ import annotations

from typing import NamedTuple

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, set_span_in_context
from opentelemetry.util.types import Attributes

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SCOPE = InstrumentationScope("weir")
_SCORE = "weir.score"


class Begun(NamedTuple):
    """The span of an event that is being scored."""

    own: SpanContext
    parent: SpanContext
    start_ns: int
    attributes: Attributes


class EventSpans:
    """Spans `weir.score`, and under them one for each stage of a round."""

    def __init__(self, provider: TracerProvider, processor: SpanProcessor) -> None:
        self._resource, self._send = provider.resource, processor.on_end
        self._new_id = provider.id_generator.generate_span_id
        self._sampler = None if _takes_all_sampled(provider.sampler) else provider.sampler

    def begin(self, trace_id: int, span_id: int, start_ns: int, attributes: Attributes) -> Begun | None:
        """Of an event whose sender has sampled it; None where OTEL_*'s sampler does not take it all the same."""
        parent = SpanContext(trace_id, span_id, True, _SAMPLED)
        if self._sampler is not None:
            context = set_span_in_context(NonRecordingSpan(parent))
            found = self._sampler.should_sample(context, trace_id, _SCORE, SpanKind.CONSUMER, attributes)
            if found.decision is not Decision.RECORD_AND_SAMPLE:
                return None
            attributes = found.attributes
        return Begun(self._under(parent), parent, start_ns, attributes)

    def end(self, span: Begun, end_ns: int) -> None:
        """Sends it."""
        self._finished(_SCORE, SpanKind.CONSUMER, span, end_ns)

    def stage(self, event: Begun, name: str, start_ns: int, end_ns: int) -> None:
        """Sends a span of a stage that an event went through."""
        span = Begun(self._under(event.own), event.own, start_ns, None)
        self._finished(f"weir.{name}", SpanKind.INTERNAL, span, end_ns)

    def _under(self, parent: SpanContext) -> SpanContext:
        return SpanContext(parent.trace_id, self._new_id(), False, _SAMPLED)

    def _finished(self, name: str, kind: SpanKind, span: Begun, end_ns: int) -> None:
        self._send(
            ReadableSpan(
                name,
                span.own,
                span.parent,
                self._resource,
                span.attributes,
                kind=kind,
                start_time=span.start_ns,
                end_time=end_ns,
                instrumentation_scope=_SCOPE,
            )
        )


def _takes_all_sampled(sampler: Sampler) -> bool:
    """Whether a sampler goes by what the sender has decided, as the default one does: it need not be asked then."""
    said = sampler.get_description()
    return said == "AlwaysOnSampler" or "remoteParentSampled:AlwaysOnSampler" in said
