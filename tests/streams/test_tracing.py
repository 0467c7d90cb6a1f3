"""Trace context from events into predictions, against a collector that speaks OTLP over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from streams.tracing import Attributes, TraceParent, Tracer, parse_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{SPAN}-01".encode()
UNSAMPLED = f"00-{TRACE}-{SPAN}-00".encode()
STAGES = [("features", 1_000, 3_000), ("inference", 3_000, 7_000)]


class Collector(ThreadingHTTPServer):
    """Keeps the requests that an exporter sends; `stuck`: takes them and never answers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[ExportTraceServiceRequest] = []
        self.stuck = threading.Event()
        self.free = threading.Event()

    def spans(self) -> list[Any]:
        scopes = [s for r in self.requests for resource in r.resource_spans for s in resource.scope_spans]
        return [span for scope in scopes for span in scope.spans]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert isinstance(self.server, Collector)
        if self.server.stuck.is_set():
            self.server.free.wait(30)
            return
        self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.free.set()
    server.shutdown()
    thread.join()
    server.server_close()


def record(
    tracer: Tracer, traceparents: Sequence[bytes | None], attributes: Callable[[int], Attributes]
) -> list[bytes | None]:
    """The headers of a round that has been sent."""
    headers, spans = tracer.begin(traceparents, 1_000, attributes)
    tracer.end(spans, STAGES)
    return headers


def nothing(_: int) -> dict[str, str]:
    return {}


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (SAMPLED, TraceParent(int(TRACE, 16), int(SPAN, 16), True)),
        (UNSAMPLED, TraceParent(int(TRACE, 16), int(SPAN, 16), False)),
        (b"01" + SAMPLED[2:] + b"-more", TraceParent(int(TRACE, 16), int(SPAN, 16), True)),
        (SAMPLED + b"-more", None),  # version 00 ends here
        (b"ff" + SAMPLED[2:], None),
        (SAMPLED.upper(), None),
        (b"00-" + b"0" * 32 + SAMPLED[35:], None),
        (f"00-{TRACE}-{'0' * 16}-01".encode(), None),
        (SAMPLED[:-1], None),
        (b"", None),
        (b"\xff" * 55, None),
    ],
)
def test_a_traceparent_is_read_as_w3c_says(header: bytes, expected: TraceParent | None) -> None:
    assert parse_traceparent(header) == expected


def test_without_an_exporter_headers_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    tracer = Tracer.from_environment("fraud")
    assert not tracer.exports
    assert record(tracer, [SAMPLED, None, b"junk"], nothing) == [SAMPLED, None, b"junk"]
    assert tracer.shutdown()


@pytest.mark.parametrize(("name", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")])
def test_opentelemetrys_own_switches_are_heard(
    name: str, value: str, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert not Tracer.from_environment("fraud").exports


def test_a_sampled_event_gets_a_span_with_a_child_for_each_stage(collector: Collector) -> None:
    tracer = Tracer.from_environment("fraud")
    headers = record(tracer, [None, SAMPLED], lambda row: {"weir.offset": 40 + row})
    assert tracer.shutdown(10)
    score, features, inference = sorted(collector.spans(), key=lambda s: (s.name != "weir.score", s.name))
    assert (score.trace_id.hex(), score.parent_span_id.hex()) == (TRACE, SPAN)
    assert (score.start_time_unix_nano, score.end_time_unix_nano) == (1_000, 7_000)
    assert (features.name, features.start_time_unix_nano, features.end_time_unix_nano) == (
        "weir.features",
        1_000,
        3_000,
    )
    assert (inference.name, inference.parent_span_id) == ("weir.inference", score.span_id)
    attributes = {a.key: a.value for a in score.attributes}
    assert attributes["weir.offset"].int_value == 41
    assert attributes["weir.pipeline"].string_value == "fraud"
    resource = {a.key: a.value.string_value for a in collector.requests[0].resource_spans[0].resource.attributes}
    assert resource["service.name"] == "weir"
    assert headers == [None, f"00-{TRACE}-{score.span_id.hex()}-01".encode()]


def test_a_round_that_was_not_sent_has_no_spans(collector: Collector) -> None:
    tracer = Tracer.from_environment("fraud")
    headers, _ = tracer.begin([SAMPLED], 1_000, nothing)
    assert headers != [SAMPLED]
    assert tracer.shutdown(10)
    assert collector.spans() == []


def test_events_that_are_not_sampled_and_headers_that_are_none_make_no_span(collector: Collector) -> None:
    tracer = Tracer.from_environment("fraud")
    assert record(tracer, [UNSAMPLED, b"junk", None], nothing) == [UNSAMPLED, b"junk", None]
    assert tracer.shutdown(10)
    assert collector.spans() == []


def test_the_sampler_of_the_environment_decides(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    tracer = Tracer.from_environment("fraud")
    assert record(tracer, [SAMPLED], nothing) == [SAMPLED]
    assert tracer.shutdown(10)
    assert collector.spans() == []


def test_the_service_may_be_named_by_the_environment(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "fraud-worker")
    tracer = Tracer.from_environment("fraud")
    record(tracer, [SAMPLED], nothing)
    assert tracer.shutdown(10)
    resource = {a.key: a.value.string_value for a in collector.requests[0].resource_spans[0].resource.attributes}
    assert resource["service.name"] == "fraud-worker"


def test_shutting_down_does_not_wait_for_a_collector_that_is_stuck(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "20")
    collector.stuck.set()
    tracer = Tracer.from_environment("fraud")
    record(tracer, [SAMPLED], nothing)
    began = time.monotonic()
    assert not tracer.shutdown(0.2)
    assert time.monotonic() - began < 10
