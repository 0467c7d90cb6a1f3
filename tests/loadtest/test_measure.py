"""Rates and costs come from the steady part of a run, seen from outside."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from loadtest import measure
from loadtest.measure import Sample, steady, watch
from streams.errors import WeirError


def test_start_and_last_flush_do_not_count() -> None:
    # 2 s of start, 100 records in each of 10 s, then 5 s for the last one
    samples = [Sample(0.0, 0, 0.0, 10.0), Sample(2.0, 0, 1.5, 20.0)]
    samples += [Sample(2.0 + s, 100 * s, 1.5 + 0.5 * s, 50.0) for s in range(1, 11)]
    samples += [Sample(17.0, 1001, 9.0, 60.0)]
    found = steady(samples)
    assert found.records_per_s == pytest.approx(100)
    assert found.cpu_us_per_record == pytest.approx(0.5 / 100 * 1e6)
    assert found.peak_rss_mb == 60.0


def test_a_run_that_is_over_between_two_samples_still_has_a_rate() -> None:
    found = steady([Sample(0.0, 0, 0.0, 1.0), Sample(0.5, 100, 0.1, 1.0)])
    assert found.records_per_s == pytest.approx(200)


def test_a_process_is_watched_until_its_records_are_there() -> None:
    busy = "x = 0\nwhile True: x += 1"
    process = subprocess.Popen([sys.executable, "-c", busy])
    try:
        began = time.perf_counter()
        samples = watch(process, lambda: int((time.perf_counter() - began) * 1000), 600)
    finally:
        process.kill()
        process.wait()
    found = steady(samples)
    assert found.records_per_s == pytest.approx(1000, rel=0.5)
    assert 0 < found.cpu_us_per_record < 2000
    assert found.peak_rss_mb > 1


def test_a_process_that_ends_early_is_an_error() -> None:
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(WeirError, match="ended with code 3 after 7 of 10 records"):
        watch(process, lambda: 7, 10)


def test_a_process_that_stands_still_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "STALLED_S", 0.2)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with pytest.raises(WeirError, match="stood at 7 of 10 records"):
            watch(process, lambda: 7, 10)
    finally:
        process.kill()
        process.wait()
