"""What `weir bench catchup` makes of its samples; and a short one, on real servers."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.catchup import run
from loadtest.catchup_report import CatchUp, Sample

# 3 s until the first commit, then 100,000 a second, and 2 s after the end; 300 MB that grow by 1 MB a second
SAMPLES = tuple(
    Sample(i / 4, min(1_000_000, max(0, (i - 12) * 25_000)), 300.0 + max(0, i - 12) / 4) for i in range(61)
)
CATCH_UP = CatchUp(
    backlog=1_000_000,
    per_s=5_000.0,
    peak_per_s=105_000.0,
    started_s=3.25,
    ended_s=13.0,
    left=60_000,
    on_time_s=1.5,
    limit_ms=250,
    samples=SAMPLES,
    predictions=1_100_000,
    lost=0,
    duplicated=0,
)


def test_the_rate_is_that_of_the_middle_of_the_backlog_beside_the_peak() -> None:
    assert CATCH_UP.catch_up_per_s == pytest.approx(100_000)
    assert CATCH_UP.of_peak == pytest.approx(100 / 105)


def test_a_backlog_that_is_gone_between_two_samples_has_the_rate_of_these() -> None:
    at_once = replace(CATCH_UP, samples=(Sample(1.0, 0, 300.0), Sample(1.25, 1_000_000, 300.0)))
    assert at_once.catch_up_per_s == pytest.approx(4_000_000)


def test_memory_late_in_the_backlog_is_compared_with_early() -> None:
    assert CATCH_UP.memory_mb == pytest.approx((302.0, 308.5), abs=0.1)
    assert CATCH_UP.growth == pytest.approx(0.0215, abs=0.001)
    assert CATCH_UP.passed


def test_slow_growing_late_or_wrong_fails_it() -> None:
    swollen = tuple(sample._replace(rss_mb=sample.rss_mb + 10 * max(0, sample.time_s - 3)) for sample in SAMPLES)
    for one in (
        {"peak_per_s": 120_000.0},
        {"samples": swollen},
        {"on_time_s": 10.5},
        {"lost": 1},
        {"duplicated": 1},
    ):
        assert not replace(CATCH_UP, **one).passed, one


def test_the_report_has_every_sample_and_what_was_made_of_them() -> None:
    report = json.loads(json.dumps(CATCH_UP.as_json()))
    assert (report["catch_up_per_s"], report["of_peak"], report["passed"]) == (100_000, 0.952, True)
    assert report["memory_mb"] == {"early": 302.0, "late": 308.5, "most": 312.0, "growth": 0.0215}
    assert len(report["samples"]) == 61
    rows = dict(CATCH_UP.as_rows())
    assert rows["on time"] == "1.5 s later: 60,000 were left that had come meanwhile"
    assert rows["catching up"] == "100,000 records/s: 0.95 of the peak"


def test_the_plot_has_rate_and_memory_and_both_moments_in_each(tmp_path: Path) -> None:
    CATCH_UP.plot(tmp_path / "catchup.svg")
    texts = [e.text for e in ElementTree.parse(tmp_path / "catchup.svg").iter() if e.tag.endswith("text")]
    assert texts.count("backlog gone") == texts.count("on time") == 2


@pytest.mark.integration
@pytest.mark.slow
def test_a_short_backlog_is_worked_off_and_every_payment_predicted_once() -> None:
    said: list[str] = []
    found = run(said.append, backlog=20_000, per_s=300.0, peak_records=5_000, usual_s=2.0, users=100, partitions=2)
    assert found.samples[0].done < 20_000
    assert max(sample.done for sample in found.samples) == 20_000
    assert found.catch_up_per_s > 1000
    assert 0 < found.started_s <= found.ended_s
    assert found.on_time_s >= 0
    assert found.predictions > 25_000
    assert (found.lost, found.duplicated) == (0, 0)
