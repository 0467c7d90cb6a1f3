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
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka.admin import AdminClient

from examples.payments.generate import Payments
from loadtest import scrape
from loadtest.kafka import KafkaCluster
from loadtest.latency import PROBES, LatencyBench, systems_for
from loadtest.latency_receiver import Arrivals, numbers
from loadtest.latency_report import (
    Latency,
    Result,
    Staleness,
    Turn,
    as_json,
    as_rows,
    bounds,
    latency_of,
    plot,
    stage_rows,
    stale_rows,
)
from loadtest.latency_sender import Plan, Sender
from loadtest.measure import OutputCount
from loadtest.shapes import STEADY, Load
from loadtest.stages import ENGINE, TOTAL
from loadtest.systems import LATENCY, System, Task, select
from streams.errors import UsageError, WeirError

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


def test_every_latency_is_also_told_by_system_and_rate() -> None:
    results = [result("weir", 10.0, rate=2000), result("loop", 5.0, rate=2000), result("weir", 30.0, rate=9000)]
    assert as_json(results, [], warmup_s=1, seconds=1, load=(0, 0, 0))["latency_ms"] == {
        "weir": {
            "2000": {"p50": 1.0, "p99": 10.0, "p99_9": 10.0, "max": 10.0},
            "9000": {"p50": 1.0, "p99": 30.0, "p99_9": 30.0, "max": 30.0},
        },
        "loop": {"2000": {"p50": 1.0, "p99": 5.0, "p99_9": 5.0, "max": 5.0}},
    }


def test_the_distributions_go_to_a_chart_and_a_file_for_each_system_and_rate(tmp_path: Path) -> None:
    came = [turn(9.0)._replace(came_ms=np.full(50, ms, np.float32)) for ms in (3.0, 9.0)]
    results = [Result("weir", 2000, tuple(came)), Result("loop", 2000, (turn(1.0),)), Result("weir", 9000, (came[0],))]
    written = plot(results, tmp_path / "plots")
    assert [path.name for path in written] == [
        "latency.svg", "latency-weir-2000.hgrm", "latency-loop-2000.hgrm", "latency-weir-9000.hgrm",
    ]  # fmt: skip
    assert "Total count    =          100]" in written[1].read_text()  # both turns
    assert "Latency by percentile at 9,000 records/s" in written[0].read_text()
    assert plot(results, tmp_path / "own.svg")[1] == tmp_path / "own-weir-2000.hgrm"


def test_what_reads_a_remote_group_says_how_old_it_was() -> None:
    reads = [turn(9.0)._replace(stale=Staleness(100.0 * n, 200.0, 300.0, 400.0)) for n in (1, 3, 8)]
    results = [Result("weir-read", 50_000, tuple(reads)), Result("weir", 1000, (turn(1.0),))]
    assert stale_rows(results) == [("50,000", "weir-read", "300", "200", "300", "400")]
    assert Result("weir-read", 1000, (reads[0], turn(1.0))).stale is None


def test_a_traced_systems_stages_are_a_table_with_what_a_commit_took() -> None:
    parts = {"decode": np.array([1.0, 3.0]), ENGINE: np.array([1.0, 3.0]), TOTAL: np.array([10.0, 10.0])}
    of = turn(9.0, commit=20.0)._replace(parts=parts, commit_p50_ms=5.0)
    results = [Result("weir", 2000, (of, of)), Result("loop", 2000, (turn(1.0),))]
    assert stage_rows(results) == [
        ("2,000", "weir", "decode", "1.00", "3.00", "20.0%"),
        ("2,000", "weir", "poll to produce", "1.00", "3.00", "20.0%"),
        ("2,000", "weir", "all", "10.00", "10.00", "100.0%"),
        ("2,000", "weir", "a commit (metrics)", "5.00", "20.00", ""),
    ]
    told = as_json(results, [], warmup_s=1, seconds=1, load=(0, 0, 0))["results"]
    assert told[0]["stages"]["traced"] == 4
    assert told[1]["stages"] is None
    json.dumps(told, allow_nan=False)


def test_a_plan_is_the_steady_rate_and_then_the_load() -> None:
    plan = Plan(1000, 1.0, 10.0, 5_000, skip=200, load=Load.parse("spike+poison"))
    assert (plan.warmup, plan.count) == (1000, 14_000)
    assert plan.intended_s[999:1001] == pytest.approx([0.999, 1.0])
    assert plan.intended_s[-1] == pytest.approx(11.0, abs=0.002)
    records = list(plan.records())
    assert [r.time_ms for r in records] == [5_000 + math.floor(s * 1000) for s in plan.intended_s]
    assert records[0].value.startswith(b'{"payment_id":"p00000200"')
    scorable = [b"payment_id" in r.value and r.value.endswith(b"}") for r in records]
    assert np.count_nonzero(~plan.good) == pytest.approx(140, rel=0.4)
    assert not (plan.good & ~np.array(scorable)).any()


def test_a_load_that_ends_the_loops_is_measured_without_them() -> None:
    assert [s.name for s in systems_for(Load.parse("hot"), "")] == [s.name for s in LATENCY]
    assert [s.name for s in systems_for(Load.parse("poison"), "")] == ["weir", "weir-exactly-once"]
    with pytest.raises(UsageError, match="loop-python ends at the first record that it cannot decode"):
        systems_for(Load.parse("poison"), "weir,loop-python")


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
    late_s = sender.send(list(Payments().records(300)), np.arange(300) / 1000, time.monotonic() - 0.2)
    sender.flush()
    assert late_s[0] >= 0.2
    assert min(late_s) < 0.2  # it catches up, whatever held it up since
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
        assert found.latency.max == pytest.approx(found.came_ms.max(), rel=1e-4)
        assert found.parts is not None
        assert len(found.parts[TOTAL]) > 0
        assert {"decode", "features", "inference", "encode", "produce"} <= found.parts.keys()
        assert found.parts[ENGINE].min() > 0
    assert [bound.rate for bound in bounds(results, 100)] == [300]


@pytest.mark.integration
@pytest.mark.slow
def test_both_kinds_of_remote_group_deliver_every_prediction_and_a_read_one_has_an_age(kafka: KafkaCluster) -> None:
    systems = systems_for(STEADY, "weir-read,weir-exact")
    bench = LatencyBench((300,), seconds=3, warmup=1, rounds=1, systems=systems, broker=kafka.address)
    results = bench.run(lambda _: None)
    assert [(r.system, r.sent, r.received, r.turns[0].duplicates) for r in results] == [
        ("weir-read", 900, 900, 0),
        ("weir-exact", 900, 900, 0),
    ]
    read, exact = results
    assert read.stale is not None
    assert 0 < read.stale.age_p50 <= read.stale.age_p99
    assert exact.stale is None


@pytest.mark.integration
@pytest.mark.slow
def test_a_system_that_stands_for_a_second_is_late_for_all_that_was_due_in_it(kafka: KafkaCluster) -> None:
    """A closed loop would see one slow record: here a third of the records is late, by up to the second."""
    (loop,) = select("loop-python", LATENCY, LATENCY)
    admin = AdminClient({"bootstrap.servers": kafka.address})

    @contextmanager
    def standing(task: Task) -> Iterator[list[subprocess.Popen[bytes]]]:
        count = OutputCount(admin, task.output)
        with loop.run(task) as (process,):
            thread = threading.Thread(target=stand, args=(process, count))
            thread.start()
            yield [process]
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
        (["latency", "--shape", "spikes"], "there is no 'spikes'; did you mean 'spike'"),
        (["--shape", "hot"], "--shape is for `weir bench latency, soak`, not for peak"),
        (["soak", "--shape", "poison"], "a soak counts every payment, by its event time; leave poison out"),
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
