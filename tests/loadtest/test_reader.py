"""The bench of the online reader measures what it says: all sizes, on rows that are there."""

from __future__ import annotations

import pytest

from loadtest import reader
from loadtest.reader import Found, Memory, Speed, run, spec_of


def test_a_short_run_reads_present_rows_and_measures_every_size_and_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "USERS", 150)
    monkeypatch.setattr(reader, "WIDTHS", (8, 50))
    found = run(lambda _: None, reads=20)
    assert [speed.entities for speed in found.speeds] == [1, 10, 50, 100]
    assert all(0 < speed.p50_ms <= speed.p99_ms for speed in found.speeds)
    assert all(0 < speed.mget_p50_ms <= speed.mget_p99_ms for speed in found.speeds)
    narrow, wide = found.memory
    # the payments example: rings of 12 and 24 panes for count and sum, the newest pane of each, and a time
    slots = 2 * (12 + 24) + 2 + 1
    fixed = 16 + 8 + (slots + 7) // 8 + len("u00000")
    assert fixed + 8 * 3 < narrow.row_bytes < fixed + 8 * slots
    assert narrow.row_bytes < narrow.redis_bytes < wide.redis_bytes
    assert found.as_json()["passed"] == found.passed


def test_features_are_as_many_as_asked_and_of_other_windows_or_fields() -> None:
    for features in (8, 20, 50, 200):
        assert len(spec_of(features).features) == features


def test_the_goal_is_a_ratio_and_a_bound() -> None:
    def found(ratio: float, p99_ms: float) -> Found:
        speed = Speed(100, 1.0, p99_ms, 1.0, p99_ms / ratio)
        return Found("Redis", 1, (speed,), (Memory(8, 1, 1.0, 300.0),))

    assert found(1.9, 2.9).passed
    assert not found(2.1, 2.9).passed
    assert not found(1.9, 3.1).passed
