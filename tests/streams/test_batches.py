"""Batches of messages as a consumer gives them."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from streams.batches import End, Poll, Waiting, batch_of, by_place
from streams.embedded import start_embedded


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> list[Message]:
    """Three records of partition 2, the second with headers."""
    data: Path = tmp_path_factory.mktemp("batches")
    with start_embedded(data) as embedded:
        producer = Producer({"bootstrap.servers": embedded.broker})
        producer.produce("t", b"a", b"k", 2, timestamp=11)
        producer.produce("t", None, b"\xff", 2, timestamp=12, headers=[("h", b"1"), ("h", None)])
        producer.produce("t", b"", None, 2, timestamp=13)
        assert producer.flush(10) == 0
        consumer = Consumer({"bootstrap.servers": embedded.broker, "group.id": "g", "auto.offset.reset": "earliest"})
        consumer.assign([TopicPartition("t", 2, 0)])
        found = consumer.consume(3, 10)
        consumer.close()
    return found


def test_a_batch_holds_what_the_messages_hold(messages: list[Message]) -> None:
    batch = batch_of(1, 2, messages, polled_ns=5, generation=3)
    assert (batch.stream, batch.partition, batch.polled_ns, batch.generation) == (1, 2, 5, 3)
    assert (batch.keys, batch.values) == ([b"k", b"\xff", None], [b"a", None, b""])
    assert (batch.offsets.tolist(), batch.timestamps.tolist()) == ([0, 1, 2], [11, 12, 13])
    assert batch.headers == [None, [("h", b"1"), ("h", None)], None]
    assert (len(batch), batch.next_offset) == (3, 3)


def test_records_without_headers_have_no_list_of_them(messages: list[Message]) -> None:
    assert batch_of(0, 2, [messages[0], messages[2]], polled_ns=5, generation=1).headers is None
    assert batch_of(0, 2, messages[:1], polled_ns=5, generation=1).next_offset == 1


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> list[Message]:
    """Two records of each of three partitions of two topics."""
    with start_embedded(tmp_path_factory.mktemp("places")) as embedded:
        producer = Producer({"bootstrap.servers": embedded.broker})
        places = [TopicPartition(topic, partition, 0) for topic in ("t", "u") for partition in (0, 1, 3)]
        for place in places * 2:
            producer.produce(place.topic, b"x", b"k", place.partition)
        assert producer.flush(10) == 0
        consumer = Consumer({"bootstrap.servers": embedded.broker, "group.id": "g", "auto.offset.reset": "earliest"})
        consumer.assign(places)
        found: list[Message] = []
        while len(found) < 2 * len(places):
            found += consumer.consume(2 * len(places) - len(found), 10)
        consumer.close()
    return found


@given(st.data())
def test_messages_are_kept_by_place_in_their_order(elsewhere: list[Message], data: st.DataObject) -> None:
    """However runs of one place follow one another."""
    mixed = data.draw(st.permutations(elsewhere))[: data.draw(st.integers(0, len(elsewhere)))]
    expected: dict[tuple[int, int], list[Message]] = {}
    for message in mixed:
        place = {"t": 0, "u": 1}[str(message.topic())], int(message.partition() or 0)
        expected.setdefault(place, []).append(message)
    assert by_place(mixed, {"t": 0, "u": 1}) == expected
    if all(message.topic() == "t" for message in mixed):
        assert by_place(mixed, {"t": 0}) == expected


@given(cuts=st.lists(st.integers(0, 3)))
def test_polls_that_are_worked_on_together_are_as_one_poll(messages: list[Message], cuts: list[int]) -> None:
    whole = batch_of(0, 2, messages, polled_ns=5, generation=1)
    stops = sorted({0, *cuts, len(messages)})
    parts = [
        Poll([batch_of(0, 2, messages[a:b], polled_ns=5 + a, generation=1)], [End(0, 2, b, 1)])
        for a, b in pairwise(stops)
    ]
    together = parts[0]
    for later in parts[1:]:
        together.take_in(later)
    together.join()
    (found,) = together.batches
    assert (found.keys, found.values, found.headers) == (whole.keys, whole.values, whole.headers)
    assert (found.offsets.tolist(), found.timestamps.tolist()) == (whole.offsets.tolist(), whole.timestamps.tolist())
    assert found.polled_ns == 5
    assert [end.offset for end in together.ends] == stops[1:]
    assert together.size == len(messages) + len(together.ends)


def test_what_was_read_elsewhere_or_anew_stays_apart(messages: list[Message]) -> None:
    batches = [
        batch_of(stream, partition, messages[:1], polled_ns=5, generation=generation)
        for stream, partition, generation in ((0, 2, 1), (0, 2, 2), (1, 2, 1), (0, 3, 1))
    ]
    poll = Poll(batches[:1], [])
    poll.take_in(Poll(batches[1:], []))
    poll.join()
    assert poll.batches == batches
    assert all(batch.headers is None for batch in poll.batches)


@given(st.sets(st.integers(0, 2**40), min_size=1) | st.integers(0, 9).map(lambda n: range(5, 6 + n)))
def test_offsets_are_those_of_the_records_with_gaps_and_without(offsets: Collection[int]) -> None:
    records = [
        Message(topic="t", partition=2, offset=offset, key=b"k", value=b"v", timestamp=(1, 7))
        for offset in sorted(offsets)
    ]
    assert batch_of(0, 2, records, polled_ns=5, generation=1).offsets.tolist() == sorted(offsets)


def offsets_of(poll: Poll) -> list[int]:
    return [offset for batch in poll.batches for offset in batch.offsets.tolist()]


def test_polls_wait_together_until_they_are_taken_and_up_to_a_bound(messages: list[Message]) -> None:
    one, two, three, four = (
        Poll([batch_of(0, 2, [messages[i % 3]], polled_ns=5, generation=i)], []) for i in range(4)
    )
    waiting = Waiting(2)
    assert not waiting.takes_in(one)
    assert waiting.takes_in(two)
    assert not waiting.takes_in(three)  # beyond the bound
    waiting.taken(one)
    assert (offsets_of(one), offsets_of(three)) == ([0, 1], [2])
    waiting.taken(three)
    assert not waiting.takes_in(four)  # nothing waits


def test_polls_that_were_put_together_are_joined_when_they_are_taken(messages: list[Message]) -> None:
    polls = [Poll([batch_of(0, 2, [message], polled_ns=5, generation=1)], []) for message in messages[:3]]
    waiting = Waiting(100)
    assert [waiting.takes_in(poll) for poll in polls] == [False, True, True]
    waiting.taken(polls[0])
    (batch,) = polls[0].batches
    assert len(batch) == polls[0].size == 3
