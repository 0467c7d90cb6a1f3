"""Where a record's time goes, from the traces that the product's own tracer sends over OTLP."""

from __future__ import annotations

import math

import numpy as np
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

from loadtest import stages
from loadtest.spans import Collector, Trace, read, sampled, traceparent
from streams.tracing import Tracer, parse_traceparent

MS = 1_000_000


def test_a_sampled_records_header_is_a_traceparent_of_its_number() -> None:
    parent = parse_traceparent(traceparent(41))
    assert parent is not None
    assert (parent.trace_id, parent.sampled) == (42, True)
    assert parse_traceparent(traceparent(0)) is not None


def test_a_hundredth_of_the_records_is_sampled_and_not_always_the_same_of_a_batch() -> None:
    found = np.array(sampled(200_000))
    assert len(found) / 200_000 == pytest.approx(0.01, rel=0.1)
    assert len(np.unique(found % 100)) == 100
    assert sampled(1000, 0.0) == []
    assert sampled(3, 1.0) == [0, 1, 2]


def test_what_the_products_tracer_sends_comes_out_as_stages() -> None:
    with Collector() as collector:
        tracer = Tracer("payments", OTLPSpanExporter(f"{collector.url}/v1/traces"))
        for number, start_ns in ((7, 100 * MS), (9, 300 * MS), (7, 900 * MS)):  # 7 is scored again
            _, spans = tracer.begin([traceparent(number), None], start_ns, lambda i: {})
            tracer.end(
                spans,
                [
                    ("decode", start_ns + MS, start_ns + 3 * MS),
                    ("features", start_ns + 5 * MS, start_ns + 9 * MS),
                    ("produce", start_ns + 9 * MS, start_ns + 10 * MS),
                ],
            )
        assert tracer.shutdown()
        found = collector.take()
        assert collector.take() == []
    in_ns = {"decode": 2 * MS, "features": 4 * MS, "produce": MS}
    assert found == [Trace(7, 100 * MS, 110 * MS, in_ns), Trace(9, 300 * MS, 310 * MS, in_ns)]
    assert read([]) == []


def traced(number: int, began_ms: float, **stages_ms: float) -> Trace:
    """One that waits for 2 ms between its stages."""
    ended_ms = began_ms + 2 + sum(stages_ms.values())
    return Trace(number, int(began_ms * MS), int(ended_ms * MS), {n: int(v * MS) for n, v in stages_ms.items()})


def test_a_records_latency_is_the_sum_of_its_stages() -> None:
    due_ns = np.array([math.nan, 10, 20, 30]) * MS
    arrived_ns = np.array([100, 60, 80, math.nan]) * MS
    found = stages.parts(
        [
            traced(0, 5),  # of the warm-up
            traced(1, 15, decode=1, features=3, produce=4),
            traced(2, 30, decode=1, features=5),
            traced(3, 35, decode=1),  # lost
            traced(9, 35, decode=1),  # of another run
        ],
        due_ns,
        arrived_ns,
    )
    assert {name: values.tolist() for name, values in found.items()} == {
        "to the worker": [5, 10],
        "waiting": [2, 2],
        "decode": [1, 1],
        "features": [3, 5],
        "produce": [4, 0],
        "to the consumer": [35, 42],
        "poll to produce": [10, 8],
        "all": [50, 60],
    }
    parts = [v for name, v in found.items() if name not in (stages.ENGINE, stages.TOTAL)]
    np.testing.assert_allclose(sum(parts), found[stages.TOTAL])


def test_the_summary_is_in_a_records_order_and_its_shares_add_up() -> None:
    due_ns, arrived_ns = np.zeros(100), np.full(100, 100.0 * MS)
    turn = stages.parts(
        [traced(i, 10, produce=3, encode=2, novel=1, features=4, decode=1) for i in range(100)], due_ns, arrived_ns
    )
    rows = stages.summary(stages.merged([turn, turn]))
    assert [name for name, *_ in rows] == [
        "to the worker", "waiting", "decode", "features", "encode", "produce", "novel", "to the consumer",
        "poll to produce", "all",
    ]  # fmt: skip
    assert sum(share for *_, share in rows[:-2]) == pytest.approx(1)
    assert {name: p50 for name, p50, _, _ in rows}["poll to produce"] == pytest.approx(13)
    found = stages.as_json(turn)
    assert found["traced"] == 100
    assert found["ms"]["features"] == {"p50": 4.0, "p99": 4.0, "share": 0.04}
    assert stages.as_rows(2000, "weir", turn)[-1] == ("2,000", "weir", "all", "100.00", "100.00", "100.0%")


def test_of_no_traces_there_is_no_summary() -> None:
    nothing = stages.parts([], np.zeros(5), np.zeros(5))
    assert stages.summary(nothing) == []
    assert stages.as_json(nothing) == {"traced": 0, "ms": {}}
