"""One trace from a drift to the deployment that it led to, with links back to predictions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from streams.loop_tracing import LINKS, LoopTraces
from streams.tracing import TRACEPARENT, Tracer, parse_traceparent, traceparent_of
from tests.streams.loop_records import drift, retrain

DAY = 24 * 3_600_000


def header(number: int, *, sampled: bool = True) -> bytes:
    return b"00-%032x-%016x-%02x" % (number, number, sampled)


class Message:
    """As confluent_kafka gives it."""

    def __init__(self, *headers: tuple[str, bytes | None]) -> None:
        self._headers = list(headers) or None

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        return self._headers


def prediction(number: int, *, sampled: bool = True) -> Message:
    return Message(("weir-other", None), (TRACEPARENT, header(number, sampled=sampled)))


class Process:
    """A tracer with a collector of its own."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracer = Tracer("shop", self._exporter)

    def spans(self) -> dict[str, ReadableSpan]:
        """By name; of several of one name the last."""
        assert self.tracer.shutdown(10)
        return {span.name: span for span in self._exporter.get_finished_spans()}


@pytest.fixture
def process() -> Iterator[Process]:
    made = Process()
    yield made
    made.tracer.shutdown(1)


def linked(span: ReadableSpan) -> list[int]:
    return [link.context.trace_id for link in span.links]


def test_a_decision_is_one_trace_through_both_processes(process: Process) -> None:
    traces = LoopTraces(process.tracer)
    traces.predictions([prediction(7), prediction(8, sampled=False), Message(), prediction(9)])
    traces.close(2)
    found = drift("d1")  # of blocks 1 and 2
    headers = traces.outcome([found], [retrain("r1", drifts=("d1",))])
    trainer = Process()
    with trainer.tracer.step("train", parent=traceparent_of(headers["r1"]), retrain="r1") as train:
        deploy = trainer.tracer.step("deploy", parent=train.traceparent)
        deploy.end(version="2")
        deploy.end("twice is once")
    monitor, trained = process.spans(), trainer.spans()

    first, second = monitor["weir.drift"], monitor["weir.retrain"]
    third, fourth = trained["weir.train"], trained["weir.deploy"]
    assert linked(first) == [7, 9]
    chain = [(span.parent and span.parent.span_id, span.context.span_id) for span in (first, second, third, fourth)]
    assert [parent for parent, _ in chain] == [None, *(own for _, own in chain[:-1])]
    assert len({span.context.trace_id for span in (first, second, third, fourth)}) == 1
    parsed = parse_traceparent(headers["d1"][0][1])
    assert parsed is not None
    assert (parsed.trace_id, parsed.span_id) == (first.context.trace_id, first.context.span_id)
    assert dict(first.attributes or {}) | {"weir.drift": "d1", "weir.signal": "loss"} == first.attributes
    assert (third.attributes or {})["weir.retrain"] == "r1"
    assert (fourth.attributes or {})["weir.version"] == "2"
    assert fourth.status.status_code == StatusCode.UNSET


def test_a_retraining_of_several_drifts_continues_one_and_links_to_the_others(process: Process) -> None:
    traces = LoopTraces(process.tracer)
    headers = traces.outcome([drift("d1"), drift("d2")], [])
    headers |= traces.outcome([], [retrain("r1", drifts=("gone", "d1", "d2"))])  # at a later block
    span = process.spans()["weir.retrain"]
    one, two = (parse_traceparent(headers[id][0][1]) for id in ("d1", "d2"))
    assert one is not None
    assert two is not None
    assert span.context.trace_id == one.trace_id
    assert linked(span) == [two.trace_id]


def test_a_retraining_without_a_drift_begins_a_trace(process: Process) -> None:
    headers = LoopTraces(process.tracer).outcome([], [retrain("r1")])
    span = process.spans()["weir.retrain"]
    assert span.parent is None
    parsed = parse_traceparent(headers["r1"][0][1])
    assert parsed is not None
    assert parsed.trace_id == span.context.trace_id


def test_links_are_of_the_drifts_own_blocks_and_few(process: Process) -> None:
    traces = LoopTraces(process.tracer)
    for number in range(5):
        traces.predictions([prediction(100 * number + n) for n in range(1, 50)])
        traces.close(number)
    traces.outcome([drift("d1", day=3)], [])  # blocks 1 to 2
    found = linked(process.spans()["weir.drift"])
    assert len(found) == LINKS
    assert {trace_id // 100 for trace_id in found} <= {1, 2}
    assert 201 in found


def test_without_an_exporter_nothing_is_kept_and_what_was_given_passes_through() -> None:
    tracer = Tracer("shop")
    traces = LoopTraces(tracer)
    traces.predictions([prediction(7)])
    traces.close(1)
    assert traces.outcome([drift("d1")], [retrain("r1", drifts=("d1",))]) == {"d1": (), "r1": ()}
    with tracer.step("train", parent=header(7)) as step:
        assert step.headers == ((TRACEPARENT, header(7)),)
    assert tracer.step("train").headers == ()


@pytest.mark.parametrize("parent", [None, b"junk", b"00-" + b"0" * 32 + b"-0000000000000001-01"])
def test_a_header_that_is_none_begins_a_trace(parent: bytes | None, process: Process) -> None:
    with process.tracer.step("train", parent=parent, links=[b"junk", header(5)]):
        pass
    span = process.spans()["weir.train"]
    assert span.parent is None
    assert linked(span) == [5]


def test_a_parent_that_is_not_sampled_makes_no_span_and_goes_on(process: Process) -> None:
    with process.tracer.step("train", parent=header(7, sampled=False)) as step:
        assert step.traceparent == header(7, sampled=False)
    assert process.spans() == {}


def test_the_sampler_of_the_environment_decides_about_traces_that_begin_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    process = Process()
    assert process.tracer.step("drift").headers == ()
    assert process.spans() == {}


def test_a_step_that_fails_says_so(process: Process) -> None:
    with pytest.raises(ValueError, match="no rows"), process.tracer.step("train"):
        raise ValueError("no rows")
    process.tracer.step("gate").end("worse than the champion")
    spans = process.spans()
    assert spans["weir.train"].status.description == "ValueError: no rows"
    assert spans["weir.gate"].status.status_code == StatusCode.ERROR


def test_a_monitor_that_runs_for_long_keeps_little(process: Process) -> None:
    traces = LoopTraces(process.tracer)
    for number in range(1000):
        traces.predictions([prediction(number + 1)])
        traces.close(number)
    assert len(traces._closed) == 64
    assert traces._open == []
