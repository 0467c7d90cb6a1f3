"""Predictions and dead letters, as a consumer of the broker finds them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from structlog.testing import capture_logs

from streams import Event, Pipeline, Source
from streams.alerts import Alerts
from streams.decoded import DeadLetter
from streams.embedded import Embedded, start_embedded
from streams.kafka import MAX_OUTPUT_BYTES, client_config, producer_config
from streams.outputs import OutputFailed, Outputs
from streams.settings import Settings
from tests.streams.records import scored

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Payment(Event):
    user: str
    amount: float
    ts: int


class Refund(Event):
    user: str
    ts: int


PAYMENTS = Source("payments", Payment, key="user", time="ts")
REFUNDS = Source("refunds", Refund, key="user", time="ts")


BOTH_WAYS = pytest.mark.parametrize("traced", [False, True], ids=["without traces", "with traces"])


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    with start_embedded(tmp_path_factory.mktemp("outputs")) as started:
        yield started


class Side:
    """A pipeline's outputs, and a reader of what they wrote; every test has topics of its own."""

    def __init__(self, broker: str, name: str) -> None:
        self.pipeline = Pipeline(name, score=PAYMENTS, learn=[REFUNDS], features=[PAYMENTS.field("amount")], model="m")
        config = producer_config(client_config(Settings(broker=broker), broker, "test", lambda _: None))
        for topic in (self.pipeline.topics.predictions, self.pipeline.topics.dead_letters):
            Producer({"bootstrap.servers": broker}).list_topics(topic, timeout=10)  # its question makes the topic
        self.outputs = Outputs(self.pipeline, config)
        self._broker = broker

    def read(self, topic: str, count: int) -> list[Message]:
        consumer = Consumer({"bootstrap.servers": self._broker, "group.id": "reader", "auto.offset.reset": "earliest"})
        consumer.assign([TopicPartition(topic, p, 0) for p in range(4)])
        found: list[Message] = []
        deadline = time.monotonic() + 10
        while len(found) < count and time.monotonic() < deadline:
            found += [message for message in consumer.consume(100, 0.1) if message.error() is None]
        found += [message for message in consumer.consume(100, 0.2) if message.error() is None]
        consumer.close()
        return sorted(found, key=lambda m: (m.partition() or 0, m.offset() or 0))


@pytest.fixture
def side(broker: Embedded, request: pytest.FixtureRequest) -> Side:
    return Side(broker.broker, str(request.node.name)[:100].translate(str.maketrans("[] ", "---")))


def letter(key: bytes | None, value: bytes | None, *, reason: str = "why", partition: int = 2) -> DeadLetter:
    return DeadLetter(1, partition, 41, key, value, "decode", "invalid", reason, "amount")


def headers_of(message: Message) -> dict[str, bytes | None]:
    headers = message.headers() or []
    assert len(dict(headers)) == len(headers)
    return {name: value if value is None or isinstance(value, bytes) else value.encode() for name, value in headers}


def as_tuple(message: Message) -> tuple[bytes | str | None, bytes | str | None, int | None]:
    return message.key(), message.value(), message.partition()


@BOTH_WAYS
def test_predictions_have_the_keys_and_partitions_of_their_events(side: Side, traced: bool) -> None:
    rows = scored([3, 0, 3, 1], [b"c", b"\xff\x00", b"a", b""])
    values = [b'{"n":%d}' % i for i in range(4)]
    traces = [b"", PARENT, None, PARENT] if traced else None
    side.outputs.send(rows, values, traces)
    assert side.outputs.flush(10)
    found = side.read(side.pipeline.topics.predictions, 4)
    assert [as_tuple(m) for m in found] == [
        (b"\xff\x00", values[1], 0),
        (b"", values[3], 1),
        (b"c", values[0], 3),
        (b"a", values[2], 3),
    ]
    parents = [None if m.headers() is None else headers_of(m).get("traceparent") for m in found]
    assert parents == ([PARENT, PARENT, None, None] if traced else [None] * 4)


def test_predictions_and_traces_must_be_as_many_as_events(side: Side) -> None:
    rows = scored([0, 1], [b"a", b"b"])
    for values, traces in [([b"{}"], None), ([b"{}"] * 2, [PARENT])]:
        with pytest.raises(ValueError, match="for 2 events"):
            side.outputs.send(rows, values, traces)


def test_a_dead_letter_holds_the_record_as_it_was_and_says_what_and_where(side: Side) -> None:
    side.outputs.send_dead([letter(b"\xfe", b"\x00bad", reason="Größe fehlt"), letter(None, None, partition=0)])
    assert side.outputs.flush(10)
    empty, found = side.read(side.pipeline.topics.dead_letters, 2)
    assert as_tuple(found) == (b"\xfe", b"\x00bad", 2)
    assert headers_of(found) == {
        "weir.topic": b"refunds",
        "weir.partition": b"2",
        "weir.offset": b"41",
        "weir.stage": b"decode",
        "weir.reason": "Größe fehlt".encode(),
        "weir.field": b"amount",
    }
    assert as_tuple(empty) == (None, None, 0)


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"key", b"x" * 2_000_000), (b"k" * 2_000_000, b"value"), (b"k" * 2_000_000, b"x" * 2_000_000)],
    ids=["value", "key", "both"],
)
def test_a_dead_letter_of_2_mb_is_truncated_to_what_kafka_takes_and_says_so(
    side: Side, key: bytes, value: bytes
) -> None:
    side.outputs.send_dead([letter(key, value, reason="r" * 5000)])
    assert side.outputs.flush(10)
    (found,) = side.read(side.pipeline.topics.dead_letters, 1)
    kept_key, kept_value = found.key(), found.value()
    assert isinstance(kept_key, bytes)
    assert isinstance(kept_value, bytes)
    assert key.startswith(kept_key)
    assert value.startswith(kept_value)
    assert MAX_OUTPUT_BYTES * 0.4 < len(kept_key) + len(kept_value) < MAX_OUTPUT_BYTES
    headers = headers_of(found)
    assert headers["weir.truncated"] == f"key {len(key)} bytes, value {len(value)} bytes".encode()
    assert headers["weir.reason"] == b"r" * 1024


def test_a_long_reason_is_cut_between_characters(side: Side) -> None:
    side.outputs.send_dead([letter(b"k", b"v", reason="x" + "ö" * 2000)])
    assert side.outputs.flush(10)
    (found,) = side.read(side.pipeline.topics.dead_letters, 1)
    reason = headers_of(found)["weir.reason"]
    assert reason is not None
    assert reason.decode() == "x" + "ö" * 511


@BOTH_WAYS
def test_a_prediction_that_kafka_refuses_is_an_error_and_never_silence(side: Side, traced: bool) -> None:
    rows = scored([0, 99], [b"a", b"b"])
    with pytest.raises(OutputFailed, match=r"1 records could not be delivered: .*[Pp]artition"):  # noqa: PT012
        side.outputs.send(rows, [b"1", b"2"], [PARENT, None] if traced else None)
        side.outputs.flush(10)
    with pytest.raises(OutputFailed):  # for good: nothing after it may be committed
        side.outputs.flush(10)


@pytest.mark.parametrize("traced", [False, True], ids=["without traces", "with traces"])
def test_a_prediction_larger_than_kafka_takes_is_an_error(side: Side, traced: bool) -> None:
    rows = scored([0, 1], [b"a", b"b"])
    with pytest.raises(OutputFailed, match="1 records could not be delivered: .*too large"):
        side.outputs.send(rows, [b"x" * 2_000_000, b"2"], [PARENT, None] if traced else None)


def test_the_queue_has_room_until_it_is_half_full(broker: Embedded, side: Side) -> None:
    config = producer_config(client_config(Settings(broker=broker.broker), broker.broker, "test", lambda _: None))
    outputs = Outputs(side.pipeline, {**config, "queue.buffering.max.messages": 10, "linger.ms": 5000})
    assert outputs.has_room(5)
    assert not outputs.has_room(6)
    outputs.send(scored([0, 0], [b"a", b"a"]), [b"1", b"2"], None)
    assert outputs.has_room(3)
    assert not outputs.has_room(4)
    assert outputs.flush(10)
    assert outputs.has_room(5)


def test_what_is_sent_while_a_commit_is_under_way_goes_out_after_it_in_its_order(side: Side) -> None:
    told: list[str] = []
    side.outputs.send(scored([0], [b"a"]), [b"1"], None)
    side.outputs.hold()
    side.outputs.send(scored([0], [b"a"]), [b"2"], None)
    side.outputs.send_dead([letter(b"k", b"v", partition=0)])
    side.outputs.then(lambda: told.append("over"))
    side.outputs.send(scored([0], [b"a"]), [b"3"], None)
    assert side.outputs.flush(10), "what is kept is nothing to wait for"
    assert [m.value() for m in side.read(side.pipeline.topics.predictions, 1)] == [b"1"]
    assert told == []
    side.outputs.release()
    assert told == ["over"]
    side.outputs.send(scored([0], [b"a"]), [b"4"], None)
    side.outputs.release()  # nothing is held any more
    assert side.outputs.flush(10)
    assert [m.value() for m in side.read(side.pipeline.topics.predictions, 4)] == [b"1", b"2", b"3", b"4"]
    assert len(side.read(side.pipeline.topics.dead_letters, 1)) == 1


def test_where_nothing_is_held_what_follows_comes_at_once(side: Side) -> None:
    told: list[str] = []
    side.outputs.then(lambda: told.append("over"))
    assert told == ["over"]


def test_what_was_dropped_may_never_be_committed(side: Side) -> None:
    side.outputs.hold()
    side.outputs.send(scored([0], [b"a"]), [b"1"], None)
    side.outputs.drop(OutputFailed("the broker is gone"))
    assert side.outputs.has_room(100)
    with pytest.raises(OutputFailed, match="the broker is gone"):
        side.outputs.send(scored([0], [b"a"]), [b"2"], None)
    with pytest.raises(OutputFailed, match="the broker is gone"):
        side.outputs.flush(10)
    assert side.read(side.pipeline.topics.predictions, 0) == []


def test_a_commit_that_was_cancelled_is_an_error_for_those_that_come_after_it(side: Side) -> None:
    side.outputs.hold()
    side.outputs.drop(asyncio.CancelledError())
    with pytest.raises(OutputFailed, match="a commit was broken off"):
        side.outputs.send(scored([0], [b"a"]), [b"2"], None)


def test_what_is_kept_has_a_bound_that_one_round_may_exceed(side: Side) -> None:
    side.outputs.hold()
    assert side.outputs.has_room(100_000)
    side.outputs.send(scored([0] * 30_000, [b"a"] * 30_000), [b"1"] * 30_000, None)
    assert side.outputs.has_room(2_768)
    assert not side.outputs.has_room(2_769)
    side.outputs.drop(RuntimeError("over"))
    assert side.outputs.has_room(100_000)


def test_an_alert_says_what_happened_where_and_when(broker: Embedded, side: Side) -> None:
    Producer({"bootstrap.servers": broker.broker}).list_topics(side.pipeline.topics.alerts, timeout=10)
    side.outputs.send_alert("model_failed", deployment="d1", serving=None)
    (found,) = side.read(side.pipeline.topics.alerts, 1)
    value = found.value()
    assert isinstance(value, bytes)
    told = json.loads(value)
    assert abs(told.pop("time") / 1000 - time.time()) < 60
    assert told == {"pipeline": side.pipeline.name, "kind": "model_failed", "deployment": "d1", "serving": None}
    assert found.key() == b"model_failed"


def test_an_alert_that_kafka_refuses_does_predictions_no_harm(side: Side) -> None:
    side.outputs.send_alert("model_failed", reason="x" * 2_000_000)
    side.outputs.send(scored([0], [b"a"]), [b"1"], None)
    assert side.outputs.flush(10)
    assert len(side.read(side.pipeline.topics.predictions, 1)) == 1


def test_an_alert_that_cannot_be_told_is_logged() -> None:
    quiet = {"bootstrap.servers": "127.0.0.1:1", "error_cb": lambda _: None, "log_level": 0}
    with capture_logs() as lines:
        Alerts("p", "p.alerts", {**quiet, "transactional.id": "t"}, tell_s=0.2).send("model_failed").join(20)
        Alerts("p", "p.alerts", quiet).send("model_failed", reason="x" * 2_000_000).join(20)
    assert [(line["log_level"], line["kind"]) for line in lines] == [("error", "model_failed")] * 2
    assert "timed out" in lines[0]["error"]
    assert "too large" in lines[1]["error"]
