"""Latency counts from the intended send time, over every record, whatever was held up on the way."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from confluent_kafka.admin import AdminClient

from examples.payments.generate import Payments
from loadtest import scrape
from loadtest.kafka import KafkaCluster
from loadtest.latency import PROBES, LatencyBench
from loadtest.latency_receiver import Arrivals, numbers
from loadtest.latency_report import Latency, Result, Turn, as_json, as_rows, bounds, latency_of
from loadtest.latency_sender import Sender, due
from loadtest.measure import OutputCount
from loadtest.systems import LATENCY, System, Task, select
from streams.errors import WeirError

LOST = math.nan


def turn(p99: float, *, commit: float | None = None, sent: int = 100, received: int = 100) -> Turn:
    return Turn(Latency(1.0, p99, p99, p99), sent, received, 0, 0.5, commit, None)


def result(system: str, p99: float, *, rate: int = 1000, commit: float | None = None) -> Result:
    return Result(system, rate, (turn(p99, commit=commit),))


def test_percentiles_are_measured_values_at_their_rank() -> None:
    seconds = np.arange(1, 1011)[::-1] / 1000
    assert latency_of(seconds) == pytest.approx((505, 1000, 1009, 1010))


def test_what_was_lost_is_in_no_percentile_and_is_counted() -> None:
    assert latency_of(np.array([0.002, LOST, 0.001, LOST])) == pytest.approx((1, 2, 2, 2))
    found = Result("weir", 1000, (turn(5.0), turn(5.0, sent=100, received=97)))
    assert (found.sent, found.received, found.lost) == (200, 197, 3)
    (row,) = as_rows([found])
    assert row[-4:] == ("200", "3", "", "")


def test_a_run_in_which_nothing_came_has_no_latency_and_is_valid_json() -> None:
    nothing = Turn(latency_of(np.full(10, LOST)), 10, 0, 0, 0.1, 5.0)
    results = [result("weir", 5.0), Result("weir-exactly-once", 1000, (nothing,))]
    report = as_json(results, bounds(results, 100), warmup_s=1, seconds=1, load=(0, 0, 0))
    json.dumps(report, allow_nan=False)
    assert report["results"][1]["latency_ms"] == {"p50": None, "p99": None, "p99.9": None, "max": None}
    assert report["results"][1]["lost"] == 10
    assert report["exactly_once_within_bound"] is False


def test_the_median_round_is_reported_and_the_highest_maximum() -> None:
    found = Result("weir", 1000, (turn(3.0), turn(90.0), turn(5.0)))
    assert found.latency == Latency(1.0, 5.0, 5.0, 90.0)


def test_exactly_once_may_cost_a_commit_interval_a_commit_and_ten_ms() -> None:
    (bound,) = bounds([result("weir", 20.0), result("weir-exactly-once", 150.0, commit=20.0)], 100)
    assert (bound.bound_ms, bound.within) == (150.0, True)
    (bound,) = bounds([result("weir", 20.0), result("weir-exactly-once", 150.1, commit=20.0)], 100)
    assert not bound.within
    assert "1,000 records/s: p99 150.1 ms, ABOVE the bound of 150.0 ms" in str(bound)


def test_the_bound_is_kept_rate_by_rate_and_one_miss_is_a_miss() -> None:
    results = [
        result("weir", 10.0, rate=1000),
        result("weir-exactly-once", 100.0, rate=1000, commit=5.0),
        result("weir", 10.0, rate=9000),
        result("weir-exactly-once", 200.0, rate=9000, commit=5.0),
    ]
    report = as_json(results, bounds(results, 100), warmup_s=1, seconds=1, load=(0, 0, 0))
    assert [(b["rate"], b["bound_ms"], b["within"]) for b in report["exactly_once"]] == [
        (1000, 125.0, True),
        (9000, 125.0, False),
    ]
    assert report["exactly_once_within_bound"] is False


def test_without_both_guarantees_the_bound_is_not_judged() -> None:
    report = as_json([result("weir", 1.0)], [], warmup_s=1, seconds=1, load=(0, 0, 0))
    assert report["exactly_once_within_bound"] is None


def test_a_record_is_due_at_its_intended_time_and_not_before() -> None:
    assert [due(s, 100) for s in (-0.001, 0.0, 0.0099, 0.011, 1.0)] == [0, 1, 1, 2, 101]


def test_numbers_are_read_from_the_predictions_of_every_system() -> None:
    values = [b'{"id":"p00000042","key":"u1"}', b'{"id":"p00012345","score":0.5}', b'{"id":"p10000000"}']
    assert numbers(values).tolist() == [42, 12345, 10_000_000]


@pytest.mark.parametrize("value", [b"", b"{}", b'{"id":"q00000042"}'])
def test_what_is_no_prediction_of_a_payment_is_an_error(value: bytes) -> None:
    with pytest.raises(WeirError, match="not a payment's prediction"):
        numbers([b'{"id":"p00000042"}', value])


def test_the_first_arrival_counts_and_repeated_ones_are_counted_apart() -> None:
    arrivals = Arrivals(4)
    arrivals.add(np.array([2, 0, 2]), 1.0)
    arrivals.add(np.array([0, 3]), 2.0)
    np.testing.assert_array_equal(arrivals.times_s, [1.0, LOST, 1.0, 2.0])
    assert (arrivals.received, arrivals.duplicates) == (3, 2)


def test_a_histograms_quantile_is_of_what_was_observed_in_between() -> None:
    page = """\
# TYPE weir_stage_seconds histogram
weir_stage_seconds_bucket{le="0.01",stage="commit"} %s
weir_stage_seconds_bucket{le="0.05",stage="commit"} %s
weir_stage_seconds_bucket{le="+Inf",stage="commit"} %s
weir_stage_seconds_bucket{le="+Inf",stage="decode"} 7.0
"""
    before, after = (
        scrape.buckets(page % counts, "weir_stage_seconds", stage="commit")
        for counts in ((900, 900, 900), (990, 1000, 1000))
    )
    assert after == {0.01: 990, 0.05: 1000, math.inf: 1000}
    # in between: 90 up to 10 ms and 10 more up to 50 ms; the 95th lies halfway through these
    assert scrape.quantile(before, after, 0.95) == pytest.approx(0.03)
    assert scrape.quantile(after, after, 0.95) is None
    assert scrape.quantile({}, {0.01: 0, math.inf: 5}, 0.5) == 0.01


@pytest.mark.integration
def test_a_sender_that_was_held_up_says_so_and_still_sends_everything(kafka: KafkaCluster) -> None:
    kafka.create_topics("late-sender")
    count = OutputCount(AdminClient({"bootstrap.servers": kafka.address}), "late-sender")
    sender = Sender(kafka.address, "late-sender")
    late_s = sender.send(list(Payments().records(300)), 1000, time.monotonic() - 0.2)
    assert late_s[0] >= 0.2
    assert late_s[-1] < 0.2
    assert sender.failed == 0
    assert count() == 300


@pytest.mark.integration
@pytest.mark.slow
def test_both_guarantees_deliver_every_prediction_and_are_compared(kafka: KafkaCluster) -> None:
    systems = select("weir,weir-exactly-once", LATENCY, LATENCY)
    bench = LatencyBench((300,), seconds=3, warmup=1, rounds=1, systems=systems, broker=kafka.address)
    results = bench.run(lambda _: None)
    assert [(r.system, r.rate, r.sent, r.received) for r in results] == [
        ("weir", 300, 900, 900),
        ("weir-exactly-once", 300, 900, 900),
    ]
    for found in results:
        assert 0 < found.latency.p50 <= found.latency.p99 <= found.latency.p99_9 <= found.latency.max
        assert found.median("commit_p99_ms") is not None
        assert found.median("engine_p99_ms") is not None
    assert [bound.rate for bound in bounds(results, 100)] == [300]


@pytest.mark.integration
@pytest.mark.slow
def test_a_system_that_stands_for_a_second_is_late_for_all_that_was_due_in_it(kafka: KafkaCluster) -> None:
    """A closed loop would see one slow record: here a third of the records is late, by up to the second."""
    (loop,) = select("loop-python", LATENCY, LATENCY)
    admin = AdminClient({"bootstrap.servers": kafka.address})

    @contextmanager
    def standing(task: Task) -> Iterator[subprocess.Popen[bytes]]:
        count = OutputCount(admin, task.output)
        with loop.run(task) as process:
            thread = threading.Thread(target=stand, args=(process, count))
            thread.start()
            yield process
            thread.join()

    def stand(process: subprocess.Popen[bytes], count: OutputCount) -> None:
        while count() < PROBES + 600 and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGSTOP)
        time.sleep(1.0)
        process.send_signal(signal.SIGCONT)

    system = System("loop-python", standing)
    bench = LatencyBench((300,), seconds=3, warmup=1, rounds=1, systems=(system,), broker=kafka.address)
    (found,) = bench.run(lambda _: None)
    assert found.lost == 0
    assert found.latency.max >= 900
    assert found.latency.p99 >= 800  # 1 % of 900 records: the 9 oldest of the 300 that waited


def test_options_of_another_mode_and_rates_that_are_none_are_wrong_use() -> None:
    for arguments, said in (
        (
            ["latency", "--records", "2000"],
            "--records is for `weir bench peak, monitor, scale, catchup, backfill`, not for latency",
        ),
        (["--rate", "100"], "--rate is for `weir bench latency, recovery, soak, catchup`, not for peak"),
        (["soak", "--rate", "2000,3000"], "--rate: one number here"),
        (["recovery", "--broker", "localhost:9092"], "--broker is for `weir bench peak, latency`, not for recovery"),
        (["latency", "--rate", "2000,fast"], "--rate fast: write payments a second"),
        (["growth", "--axis", "batch,colour"], "--axis colour: there are entities, features, partitions"),
        (["latency", "--systems", "stock-faust"], "no system 'stock-faust' to measure; there are weir, "),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "streams.cli", "bench", *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
