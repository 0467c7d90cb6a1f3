"""What `weir bench soak` makes of its samples; and a short one, on real servers."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.soak import Minute, Sample, Soak, evaluate, run, sample_of
from streams.errors import WeirError

# every 5 s for 15 minutes: 300 MB, then from the end of the warm-up on a MB a minute more, 40 files but once
SAMPLES = [Sample(5.0 * i, 300.0 + max(0, i - 24) / 12, 60 if i == 90 else 40, 20) for i in range(180)]


def soak(samples: list[Sample] = SAMPLES) -> Soak:
    return Soak(
        per_s=50_000.0,
        peak_per_s=100_000.0,
        seconds=900.0,
        samples=tuple(samples),
        steady=evaluate(samples, 120.0),
        swapped_s=(20.0, 40.0),
        switched=2,
        refused=0,
        minutes=(Minute(3_000_000, 40, 90),),
        predictions=45_000_000,
        lost=0,
        duplicated=0,
    )


def test_the_first_minute_after_the_warm_up_is_compared_with_the_last() -> None:
    found = evaluate(SAMPLES, 120.0)
    assert found.first_mb == pytest.approx(300.5, abs=0.1)
    assert found.last_mb == pytest.approx(312.4, abs=0.1)
    assert found.growth == pytest.approx(0.0396, abs=0.0005)
    assert (found.fds_first, found.fds_last, found.fds_max) == (40, 40, 60)


def test_a_short_soak_is_compared_by_thirds() -> None:
    found = evaluate([Sample(float(i), 100.0 if i < 22 else 200.0, 1, 1) for i in range(31)], 1.0)
    assert found.window_s == pytest.approx(9.7)
    assert (found.first_mb, found.last_mb) == (100.0, 200.0)


def test_too_few_samples_are_an_error() -> None:
    with pytest.raises(WeirError, match="1 samples after the warm-up"):
        evaluate(SAMPLES[:25], 120.0)


def test_more_memory_more_files_lost_or_doubled_predictions_and_missed_swaps_fail_it() -> None:
    assert soak().passed
    grown = [sample._replace(rss_mb=sample.rss_mb * (1 + sample.time_s / 9000)) for sample in SAMPLES]
    leaking = [sample._replace(fds=40 + int(sample.time_s / 200)) for sample in SAMPLES]
    assert not soak(grown).passed
    assert not soak(leaking).passed
    assert not replace(soak(), lost=1).passed
    assert not replace(soak(), duplicated=1).passed
    assert not replace(soak(), switched=1).passed


def test_the_report_names_the_growth_and_the_plot_has_every_sample(tmp_path: Path) -> None:
    found = soak().as_json()
    assert found["steady"]["growth"] == pytest.approx(0.0396, abs=0.0005)
    assert found["minutes"] == [{"predictions": 3_000_000, "p50_ms": 40, "p99_ms": 90}]
    assert len(found["samples"]) == 180
    assert dict(soak().as_rows())["resident memory"].endswith("+4.0%")
    soak().plot(tmp_path / "soak.svg")
    paths = [e.get("d", "") for e in ElementTree.parse(tmp_path / "soak.svg").iter() if e.tag.endswith("path")]
    assert max(path.count("L") for path in paths) == 179


def test_a_sample_is_of_the_process() -> None:
    before = sample_of(os.getpid(), 0.0)
    held = bytearray(os.urandom(64 * 2**20))
    with open("/dev/null") as _:
        after = sample_of(os.getpid(), 1.0)
    assert after.fds == before.fds + 1
    assert after.rss_mb - before.rss_mb == pytest.approx(64, abs=8)
    assert after.threads >= 1
    assert len(held) == 64 * 2**20


@pytest.mark.integration
@pytest.mark.slow
def test_a_short_soak_swaps_models_and_loses_nothing() -> None:
    said: list[str] = []
    found = run(
        said.append,
        minutes=0.12, per_s=500.0, swap_s=2.0, users=100, partitions=2, warm_up_s=2.0, sample_s=0.5,
    )  # fmt: skip
    assert 2 <= len(found.swapped_s) <= 3
    # On a machine that is busy the last one comes too late to be taken up.
    assert len(found.swapped_s) - 1 <= found.switched <= len(found.swapped_s)
    assert found.refused == 0
    assert found.per_s == pytest.approx(500, rel=0.25)
    assert len(found.samples) >= 6  # of 14; a swap may last for as long as several take
    assert found.steady.first_mb > 50
    assert found.steady.fds_max > 10
    assert (found.lost, found.duplicated) == (0, 0)
    assert found.predictions == pytest.approx(found.per_s * found.seconds, rel=0.02)  # seconds: to a tenth
    assert 0 < found.minutes[0].p50_ms <= found.minutes[0].p99_ms
