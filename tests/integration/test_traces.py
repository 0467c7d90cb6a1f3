"""`traceparent` from events into predictions; with a collector, sampled events get spans there."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.integration.outputs import assert_right, predictions
from tests.integration.tape import payments
from tests.integration.worker import Servers, ran_out

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP; `spans` are those that came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Any] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest.FromString(body)
        assert self.path == "/v1/traces"
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def traceparent(i: int) -> bytes:
    """Of the i-th payment: sampled, not sampled, none, or nonsense."""
    sampled = b"00-%032x-%016x-01" % (i + 1, i + 1)
    return (sampled, sampled[:-1] + b"0", b"", b"nonsense")[i % 4]


def headers(i: int) -> Any:
    return [("other", b"x"), ("traceparent", traceparent(i))] if traceparent(i) else None


def test_sampled_events_get_spans_at_the_collector_and_predictions_carry_them(
    embedded: Servers, collector: Collector, tmp_path: Path, name: str
) -> None:
    tape = payments(tmp_path, name, 400, headers=headers)
    tape.send(embedded.broker)
    with ran_out(tape.path, embedded, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url):
        found = predictions(embedded.broker, tape)
    assert_right(found, tape)
    scored = {s.span_id.hex(): s for s in collector.spans if s.name == "weir.score"}
    assert len(scored) == 100
    for output in found:
        i = int(output.prediction["id"].removeprefix("p"))
        carried = output.headers.get("traceparent", b"")
        if i % 4:
            assert carried == traceparent(i)
            continue
        trace_id, span_id = (part.decode() for part in carried.split(b"-")[1:3])
        span = scored[span_id]
        assert trace_id == span.trace_id.hex() == f"{i + 1:032x}"
        assert span.parent_span_id.hex() == f"{i + 1:016x}"
        assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
        attributes = {a.key: a.value for a in span.attributes}
        assert attributes["messaging.kafka.message.offset"].int_value == output.source[1]
    stages = ["weir.decode", "weir.encode", "weir.features", "weir.inference", "weir.produce"]
    detailed = 0  # a few events of each round
    for span_id, span in scored.items():
        children = [s for s in collector.spans if s.parent_span_id.hex() == span_id]
        if children:
            detailed += 1
            assert sorted(s.name for s in children) == stages
            assert max(s.end_time_unix_nano for s in children) == span.end_time_unix_nano
    assert detailed >= 1


def test_a_collector_that_is_not_there_costs_nothing(embedded: Servers, tmp_path: Path, name: str) -> None:
    tape = payments(tmp_path, name, 200, headers=headers)
    tape.send(embedded.broker)
    with ran_out(tape.path, embedded, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9"):
        found = predictions(embedded.broker, tape)
    assert_right(found, tape)
