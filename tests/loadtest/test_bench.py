"""`weir bench` measures what it is asked to, and reports one JSON object."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from loadtest.bench import Bench
from loadtest.kafka import KafkaCluster
from loadtest.report import Result, as_json, as_rows, write_plot
from loadtest.systems import SYSTEMS, select
from streams.errors import UsageError

RESULTS = [Result("weir", 120_000.4, 9.87654, 310.04), Result("stock-faust", 2_300.0, 450.0, 130.0)]


def test_the_report_is_the_public_json() -> None:
    report = as_json(RESULTS)
    assert report.keys() == {"results", "machine"}
    assert report["results"][0] == {
        "system": "weir",
        "records_per_s": 120_000,
        "cpu_us_per_record": 9.88,
        "peak_rss_mb": 310.0,
    }
    assert report["machine"].keys() == {"cpu", "cores", "memory_gb", "system", "python", "kafka"}


def test_bars_are_as_long_as_systems_are_fast() -> None:
    (_, rate, cpu, peak, longest), (*_, shortest) = as_rows(RESULTS)
    assert (rate, cpu, peak) == ("120,000", "9.9", "310")
    assert len(longest) > 20 * len(shortest)


def test_the_plot_is_an_svg_that_names_every_system_in_both_charts(tmp_path: Path) -> None:
    write_plot(RESULTS, tmp_path / "plot.svg")
    texts = [e.text for e in ElementTree.parse(tmp_path / "plot.svg").iter() if e.tag.endswith("text")]
    assert texts.count("weir") == texts.count("stock-faust") == 2


def test_systems_are_chosen_by_name_in_the_order_given() -> None:
    assert [s.name for s in select("")] == ["weir", "stock-faust", "loop-python", "loop-compiled"]
    assert [s.name for s in select("loop-python, weir")] == ["loop-python", "weir"]


def test_an_unknown_system_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="no system 'flink' to measure; there are weir, stock-faust"):
        select("weir,flink")


def test_a_broker_that_is_not_there_is_said_in_one_line() -> None:
    done = bench("--short", "--broker", "127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.startswith("no Kafka answers: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.integration
def test_the_command_prints_one_json_object_and_its_progress_elsewhere(kafka: KafkaCluster) -> None:
    done = bench("--short", "--broker", kafka.address, "--systems", "loop-python,loop-compiled", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [r["system"] for r in report["results"]] == ["loop-python", "loop-compiled"]
    assert "payments written" in done.stderr


@pytest.mark.integration
def test_every_system_of_a_short_bench_has_a_result_and_nothing_is_left_behind(kafka: KafkaCluster) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.address})
    before = set(admin.list_topics(timeout=10).topics)
    said: list[str] = []
    results = Bench(records=20_000, rounds=1, broker=kafka.address).run(said.append)
    assert [r.system for r in results] == [s.name for s in SYSTEMS]
    for result in results:
        assert result.records_per_s > 0
        assert result.cpu_us_per_record > 0
        assert result.peak_rss_mb > 10
    assert sum(line.startswith("round 1 of 1: ") for line in said) == len(SYSTEMS)
    kafkas_own = {"__consumer_offsets", "__transaction_state"}
    assert set(admin.list_topics(timeout=10).topics) - kafkas_own <= before


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`weir bench` with `arguments`."""
    return subprocess.run(
        [sys.executable, "-m", "streams.cli", "bench", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
