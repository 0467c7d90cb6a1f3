"""The traces of a bench: a share of its records is sampled, and what the worker tells of them by OTLP is kept.

The collector only keeps what it is sent: it is read when the measuring is over.
"""

from __future__ import annotations

import gzip
import threading
from collections import defaultdict
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, Self

import numpy as np

TRACED = 0.01
"""The share of a bench's records that are sampled."""
_SCORE, _STAGE = "weir.score", "weir."


class Trace(NamedTuple):
    """What a worker told of record `number`: from the poll's return to the hand-over to the producer, and in between
    the ns of each stage. Wall-clock times in ns.
    """

    number: int
    began_ns: int
    ended_ns: int
    stages_ns: dict[str, int]


def traceparent(number: int) -> bytes:
    """The header that makes record `number` a sampled one."""
    return b"00-%032x-%016x-01" % (number + 1, number + 1)


def sampled(total: int, share: float = TRACED) -> list[int]:
    """The places of the records that are sampled: drawn, for every hundredth would be the first of its batch."""
    found: list[int] = np.flatnonzero(np.random.default_rng(total).random(total) < share).tolist()
    return found


class Collector:
    """Takes OTLP over HTTP at `url`, from entry to exit; `bodies`: the requests that came."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.bodies = self.bodies
        self._thread = threading.Thread(target=self._server.serve_forever, name="collector", daemon=True)

    @property
    def url(self) -> str:
        """For OTEL_EXPORTER_OTLP_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self) -> list[Trace]:
        """The traces so far, each once; they are forgotten here."""
        taken = self.bodies[:]
        del self.bodies[: len(taken)]
        return read(taken)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    bodies: list[bytes]


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.bodies.append(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


def read(bodies: Iterable[bytes]) -> list[Trace]:
    """The traces in OTLP requests, by number; of a record that was scored twice the first one."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans = [
        span
        for body in bodies
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    stages: defaultdict[bytes, dict[str, int]] = defaultdict(dict)
    for span in spans:
        if span.name != _SCORE and span.name.startswith(_STAGE):
            stages[span.parent_span_id][span.name.removeprefix(_STAGE)] = (
                span.end_time_unix_nano - span.start_time_unix_nano
            )
    found: dict[int, Trace] = {}
    for span in sorted((s for s in spans if s.name == _SCORE), key=lambda s: s.start_time_unix_nano):
        number = int.from_bytes(span.trace_id, "big") - 1
        trace = Trace(number, span.start_time_unix_nano, span.end_time_unix_nano, stages[span.span_id])
        found.setdefault(number, trace)
    return [found[number] for number in sorted(found)]
