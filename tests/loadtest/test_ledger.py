"""A ledger strikes every source offset off once, in whatever order they come, and tells how late they were."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from examples.payments.generate import Payments
from loadtest import live
from loadtest.kafka import KafkaCluster
from loadtest.ledger import LATEST_MS, Ledger, Offsets, percentile
from loadtest.live import Live, history
from streams.errors import WeirError


def struck(*offsets: int) -> Offsets:
    found = Offsets()
    for offset in offsets:
        found.strike(offset)
    return found


def test_offsets_in_order_leave_nothing_behind() -> None:
    found = struck(*range(1000))
    assert (found.lost(1000), found.duplicated, len(found.skipped)) == (0, 0, 0)


def test_what_was_skipped_or_has_not_come_is_lost() -> None:
    found = struck(0, 1, 4)
    assert found.lost(7) == 4  # 2, 3, 5, 6
    assert found.duplicated == 0


def test_a_second_copy_is_a_duplicate_and_heals_no_loss() -> None:
    found = struck(0, 1, 1, 0, 3)
    assert (found.lost(4), found.duplicated) == (1, 2)


def test_order_does_not_matter() -> None:
    offsets = [*range(50), 7, 20, 20]
    random.Random(1).shuffle(offsets)
    found = struck(*offsets)
    assert (found.lost(50), found.duplicated) == (0, 3)


def test_percentiles_are_those_of_the_sorted_values() -> None:
    draw = random.Random(2)
    values = sorted(draw.randrange(100) for _ in range(1001))
    for share in (0.5, 0.99, 1.0):
        assert percentile(Counter(values), share) == values[max(0, -int(-share * 1001 // 1) - 1)]
    assert percentile(Counter(), 0.5) == 0


def test_the_day_before_holds_every_user_equally_often_in_event_time_order() -> None:
    records = list(history(users=50, each=4, until_ms=10_000_000, span_ms=1_000_000))
    assert set(Counter(record.key for record in records).values()) == {4}
    times = [record.time_ms for record in records]
    assert times == sorted(times)
    assert (times[0], times[-1] < 10_000_000) == (9_000_000, True)


def prediction(time_ms: int, partition: int, offset: int) -> bytes:
    return b'{"id":"p","key":"u","time":%d,"source":{"topic":"s","partition":%d,"offset":%d},"model":null}' % (
        time_ms, partition, offset,
    )  # fmt: skip


@pytest.mark.integration
def test_a_ledger_reads_a_topic_to_given_ends_and_counts_what_is_missing_and_what_is_there_twice(
    kafka: KafkaCluster,
) -> None:
    topic = f"ledger-{time.time_ns()}"
    kafka.create_topics(topic, partitions=2)
    producer = live.Producer({"bootstrap.servers": kafka.address})
    ledger = Ledger(kafka.address, topic, slot_s=1000.0)
    now_ms = int(time.time() * 1000)
    for partition, offset, time_ms in [(0, 0, now_ms), (0, 1, 0), (0, 1, 0), (1, 0, now_ms), (1, 2, now_ms)]:
        producer.produce(topic, prediction(time_ms, partition, offset), partition=partition)
    producer.flush()
    ledger.start()
    assert ledger.finish({0: 2, 1: 4}, within_s=3.0) == (2, 1)
    assert ledger.seen == 5
    assert ledger.first().keys() == {0, 1}
    (latencies,) = ledger.latencies().values()
    assert latencies[LATEST_MS] == 2
    assert max(ms for ms in latencies if ms != LATEST_MS) < 20_000


@pytest.mark.integration
def test_a_ledger_fails_on_what_is_no_prediction(kafka: KafkaCluster) -> None:
    topic = f"ledger-{time.time_ns()}"
    kafka.create_topics(topic, partitions=1)
    producer = live.Producer({"bootstrap.servers": kafka.address})
    producer.produce(topic, b"{}")
    producer.flush()
    ledger = Ledger(kafka.address, topic, slot_s=1.0)
    ledger.start()
    with pytest.raises(WeirError, match="not a prediction"):
        ledger.finish({0: 1}, within_s=10.0)


@pytest.mark.integration
def test_live_payments_are_sent_when_they_are_due(kafka: KafkaCluster, tmp_path: Path) -> None:
    topic = f"live-{time.time_ns()}"
    kafka.create_topics(topic, partitions=2)
    sender, began = Live(kafka.address, topic, users=10, per_s=400.0), time.monotonic()
    sender.start()
    time.sleep(1.5)
    sender.halt()
    seconds = time.monotonic() - began
    assert sum(live.ends(kafka.address, topic).values()) == sender.sent
    assert sender.sent == pytest.approx(400 * seconds, rel=0.25)
    assert next(Payments(rate=400.0, start_ms=0).records(1)).time_ms < 100
