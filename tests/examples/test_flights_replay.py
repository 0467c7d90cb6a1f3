"""The replay into an embedded broker: what lies in the topics, and how it is held back, paused and paced."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from examples.flights import replay
from examples.flights.data import FlightEvent, Flights, month_start
from examples.flights.replay import CLOSED, SAMPLE, TOPICS, WATERMARK, HoldBack, Progress, ReplayError, connect, run
from streams.embedded import Embedded, start_embedded

N = 3000


@pytest.fixture(scope="module")
def events() -> list[FlightEvent]:
    return list(islice(Flights(1, 1).events(), N))


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Embedded]:
    with start_embedded(tmp_path) as pair:
        yield pair


def read(broker: str, topic: str, *, until_closed: bool = True) -> dict[int, list[Message]]:
    """Every record of a topic by partition, up to the watermark that closes it."""
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "test", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, p, 0) for p in range(4)])
    found: dict[int, list[Message]] = {p: [] for p in range(4)}
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for message in consumer.consume(1000, 0.1):
            assert message.error() is None
            found[message.partition() or 0].append(message)
        if all(found.values()) and all(mark(records[-1]) == CLOSED for records in found.values()):
            break
    consumer.close()
    return found


def mark(message: Message) -> int | None:
    headers = dict(message.headers() or [])
    return int(headers[WATERMARK] or b"") if WATERMARK in headers and message.value() is None else None


def quiet(_: Progress) -> None:
    pass


def test_every_partition_begins_and_ends_with_a_watermark_and_keeps_each_promise(
    embedded: Embedded, events: list[FlightEvent]
) -> None:
    run(events, connect(embedded.broker, 4, 1, "nobody", pytest.fail), report=quiet)
    total = 0
    for stream, topic in enumerate(TOPICS):
        expected = [e for e in events if e.stream == stream]
        for records in read(embedded.broker, topic).values():
            assert mark(records[0]) == events[0].time
            assert mark(records[-1]) == CLOSED
            promised = 0
            for record in records:
                if (promise := mark(record)) is not None:
                    assert promise >= promised
                    promised = promise
                    continue
                event = json.loads(record.value() or b"")
                assert event["time"] >= promised
                assert record.timestamp()[1] == event["time"]
                assert (record.key() or b"").decode() == event["origin"]
                total += 1
        assert len(expected) > 0
    assert total == len(events)


def test_events_of_a_partition_stay_in_order(embedded: Embedded, events: list[FlightEvent]) -> None:
    run(events, connect(embedded.broker, 4, 1, "nobody", pytest.fail), report=quiet)
    for records in read(embedded.broker, TOPICS[0]).values():
        times = [record.timestamp()[1] for record in records if record.value() is not None]
        assert all(a <= b for a, b in pairwise(times))


def test_the_sampled_offsets_are_those_of_the_records(embedded: Embedded, events: list[FlightEvent]) -> None:
    heard: list[Progress] = []
    run(events, connect(embedded.broker, 4, 1, "nobody", pytest.fail), report=heard.append)
    samples = {(partition, offset) for progress in heard for partition, offset, _ in progress.samples}
    records = read(embedded.broker, TOPICS[0])
    expected = {
        (partition, r.offset())
        for partition, found in records.items()
        for r in found
        if (r.offset() or 0) % SAMPLE == 0 and r.value() is not None
    }
    assert samples == expected
    assert heard[-1].state == "done"
    assert sum(heard[-1].sent) == len(events)


def test_it_waits_for_the_last_consumer_and_goes_on_with_it(embedded: Embedded, events: list[FlightEvent]) -> None:
    target = connect(embedded.broker, 4, 1, "slow", pytest.fail)
    assert target._hold_back is not None
    target._hold_back.max_records = 100
    thread = threading.Thread(target=run, args=(events, target), kwargs={"report": quiet}, daemon=True)
    thread.start()
    time.sleep(1.0)
    assert thread.is_alive()
    held = target.sent[0]
    assert 100 <= held <= 300  # two partitions are in use

    reader = Consumer({"bootstrap.servers": embedded.broker, "group.id": "slow", "enable.auto.commit": False})
    deadline = time.monotonic() + 20
    while thread.is_alive() and time.monotonic() < deadline:
        offsets = target._next_request
        positions = [TopicPartition(TOPICS[0], p, offset) for p, offset in offsets.items()]
        reader.commit(offsets=positions, asynchronous=False)
        time.sleep(0.01)
    thread.join(1.0)
    assert not thread.is_alive()
    assert sum(target.sent) == len(events)
    reader.close()


def test_the_bound_is_in_records_and_in_bytes() -> None:
    by_records = HoldBack(dict, max_records=3, max_bytes=10**9)
    by_bytes = HoldBack(dict, max_records=10**9, max_bytes=300)
    for offset in range(3):
        assert not by_records.full(0)
        assert not by_bytes.full(0)
        by_records.sent(0, offset, 100)
        by_bytes.sent(0, offset, 100)
    assert by_records.full(0)
    assert by_bytes.full(0)
    assert not by_records.full(1)


def test_a_wait_ends_when_half_of_the_bound_is_dealt_with() -> None:
    done = {0: 0}
    hold_back = HoldBack(lambda: dict(done), max_records=10)
    for offset in range(10):
        hold_back.sent(0, offset, 1)

    def pause(_: float) -> None:
        done[0] += 1

    hold_back.wait(0, pause)
    assert done[0] == 6


def test_while_it_is_paused_nothing_is_sent_but_signs_of_life(embedded: Embedded, events: list[FlightEvent]) -> None:
    target = connect(embedded.broker, 4, 1, "nobody", pytest.fail)
    cut = events[N // 2].time
    seen: list[tuple[int, int]] = []
    answers = iter([False, False, True])

    def go_on() -> bool:
        seen.append((sum(target.sent), target._next_request[2]))
        return next(answers)

    heard: list[Progress] = []
    run(events, target, pauses=[cut], report=heard.append, go_on=go_on)
    signs = [sum(mark(record) == cut for record in read(embedded.broker, topic)[2]) for topic in TOPICS]
    assert signs == [1, 1, 3]
    before = sum(1 for e in events if e.time < cut)
    assert [sent for sent, _ in seen] == [before] * 3
    assert len({offset for _, offset in seen}) == 1, "where a request lies does not tell how long the pause was"
    paused = next(p for p in heard if p.state == "paused")
    assert (paused.time, sum(paused.sent)) == (cut, before)
    assert sum(heard[-1].sent) == len(events)


def test_a_speed_keeps_the_pace_of_event_time(embedded: Embedded, events: list[FlightEvent]) -> None:
    some = events[:600]
    span_s = (some[-1].time - some[0].time) / 1000
    started = time.monotonic()
    target = connect(embedded.broker, 4, 1, "nobody", pytest.fail)
    run(some, target, speed=span_s / 1.0, report=quiet)
    assert 0.9 <= time.monotonic() - started <= 10.0


def test_a_broker_that_is_not_there_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "TIMEOUT_S", 0.5)
    assert replay.main(["--broker", "127.0.0.1:1", "--months", "1", "--hold-back", "g"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("replay: no broker answers at 127.0.0.1:1")


def test_months_that_cannot_be_are_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        replay.main(["--months", "5-3"])
    assert ended.value.code == 2
    assert "months go from 1 to 12" in capsys.readouterr().err


def test_pauses_of_each_day_come_between_those_of_months() -> None:
    hour, day = 3_600_000, 24 * 3_600_000
    found = replay.pauses((1, 2), [1, 2], 5)
    assert found[:3] == [month_start(1), month_start(1) + day + 5 * hour, month_start(1) + 2 * day + 5 * hour]
    assert found == sorted(found)
    assert len(found) == 2 + 31 + 28 - 1
    assert month_start(2) in found
    assert found[-1] == month_start(3) - day + 5 * hour
    assert replay.pauses((1, 12), [4]) == [month_start(4)]


def test_an_hour_that_no_day_has_is_wrong_use(capsys: pytest.CaptureFixture[str]) -> None:
    for hour in ("24", "-1", "five"):
        with pytest.raises(SystemExit) as ended:
            replay.main(["--pause-daily", hour])
        assert ended.value.code == 2
    assert "hours go from 0 to 23" in capsys.readouterr().err


def test_standard_input_that_closes_ends_a_pause(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    with empty.open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with pytest.raises(ReplayError, match="closed"):
            replay._line_came()


def test_a_month_begins_at_its_first_instant() -> None:
    assert month_start(1) == 1_356_998_400_000
    assert month_start(13) - month_start(12) == 31 * 24 * 3_600_000
