"""Performance of versions over their latest rows, against river's rolling metrics and rows that are listed by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from river import metrics as river
from river.utils import Rolling

from monitors.join import Joined, Label
from monitors.live import Difference, LivePerformance, calibration_error, delays_s
from monitors.metrics import Metrics

Row = tuple[float, bool]


def row(
    score: float | list[float] | None,
    positive: bool | None,
    *,
    version: str | None = "1",
    arm: str | None = "champion",
    shadows: dict[str, float | None] | None = None,
) -> Joined:
    found: Any = SimpleNamespace(version=version, arm=arm, score=score, shadows=shadows, time=1000)
    return Joined(found, None if positive is None else Label("a", 4500, float(positive)))


def series(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """(name, label values in the order of their names) → value, of the live metrics."""
    page = metrics.render()[0].decode()
    samples = [s for family in text_string_to_metric_families(page) for s in family.samples]
    return {
        (s.name.removeprefix("weir_live_"), *(s.labels[name] for name in sorted(s.labels))): s.value
        for s in samples
        if s.name.startswith("weir_live_")
    }


rows_of_scores = st.lists(
    st.tuples(st.one_of(st.floats(0.001, 0.999), st.sampled_from([0.0, 0.25, 0.5, 1.0])), st.booleans()),
    min_size=1,
    max_size=40,
)


@settings(max_examples=30, deadline=None)
@given(rows_of_scores, st.integers(1, 40), st.integers(1, 17))
def test_what_is_shown_is_what_rivers_rolling_metrics_say(rows: list[Row], window: int, batch: int) -> None:
    live = LivePerformance(window)
    loss, accuracy = Rolling(river.LogLoss, window_size=window), Rolling(river.Accuracy, window_size=window)
    area = river.RollingROCAUC(window_size=window)
    for start in range(0, len(rows), batch):
        live.update([row(score, positive) for score, positive in rows[start : start + batch]])
        for score, positive in rows[start : start + batch]:
            loss.update(positive, min(max(score, 1e-7), 1 - 1e-7))
            accuracy.update(positive, score >= 0.5)
            area.update(positive, score)
        found = live.performance()["1"]
        assert found.rows == min(window, start + len(rows[start : start + batch]))
        assert found.log_loss == pytest.approx(loss.get(), abs=1e-9)
        assert found.accuracy == pytest.approx(accuracy.get())
        latest = rows[: start + batch][-window:]
        if len({positive for _, positive in latest}) < 2:
            assert found.auc is None
        elif len({score for score, _ in latest}) == len(latest):  # a tie is half a win here, and none with river
            assert found.auc == pytest.approx(area.get())


@settings(max_examples=50, deadline=None)
@given(rows_of_scores)
def test_the_calibration_error_is_the_sum_over_ten_bins(rows: list[Row]) -> None:
    expected = 0.0
    for number in range(10):
        inside = [(s, y) for s, y in rows if min(int(s * 10), 9) == number]
        if inside:
            mean, share = np.mean([s for s, _ in inside]), np.mean([y for _, y in inside])
            expected += len(inside) / len(rows) * abs(mean - share)
    scores, labels = np.array([s for s, _ in rows]), np.array([float(y) for _, y in rows])
    assert calibration_error(labels, scores) == pytest.approx(expected)


def test_a_forecast_that_keeps_its_word_is_calibrated_and_one_that_boasts_is_not() -> None:
    draw = np.random.default_rng(2)
    chance = draw.random(50_000)
    labels = (draw.random(50_000) < chance).astype(float)
    assert calibration_error(labels, chance) < 0.01
    assert calibration_error(labels, np.clip(chance + 0.2, 0, 1)) > 0.15


def test_each_version_has_its_own_rows_whatever_its_place() -> None:
    live = LivePerformance()
    live.update([row(0.9, True, version="1", shadows={"2": 0.2, "3": None})] * 3)
    live.update([row(0.9, True, version="2", arm="canary", shadows={"1": 0.4})])
    found = live.performance()
    assert {version: (p.arm, p.rows, p.accuracy) for version, p in found.items()} == {
        "1": ("shadow", 4, 0.75),
        "2": ("canary", 4, 0.25),
    }
    assert found["2"].calibration_bias == pytest.approx((3 * 0.2 + 0.9) / 4 - 1)


def test_rows_without_a_label_or_without_one_score_do_not_count() -> None:
    live = LivePerformance()
    live.update([row(0.9, None), row(None, True, version=None, arm=None), row([0.1, 0.9], True)])
    assert live.performance() == {}
    live.update([row(None, True, version=None, arm=None, shadows={"2": 0.7})])  # before the first champion
    assert list(live.performance()) == ["2"]
    assert live.differences() == {}


def test_a_shadow_is_compared_with_what_was_served_on_the_same_rows() -> None:
    live = LivePerformance()
    rows = [(0.9, 0.8, True), (0.3, 0.1, False), (0.5, 0.6, False)]
    live.update([row(served, positive, shadows={"2": shadow}) for served, shadow, positive in rows])
    live.update([row(0.4, True), row(0.4, True, version="7", shadows={"2": 0.4})])  # not a row of both
    apart = [np.log(0.9 / 0.8), np.log(0.7 / 0.9), np.log(0.5 / 0.4)]
    assert live.differences() == {
        ("2", "1"): Difference(3, pytest.approx(np.mean(apart)), pytest.approx(np.std(apart, ddof=1) / np.sqrt(3))),
        ("2", "7"): Difference(1, 0.0, 0.0),
    }


def test_a_version_that_scores_no_more_is_forgotten_after_a_whole_window() -> None:
    live, metrics = LivePerformance(10), Metrics()
    live.update([row(0.9, True, shadows={"2": 0.8})])
    live.update([row(0.9, True, version="3")] * 9)
    live.show(metrics)
    assert {"1", "2", "3"} <= {key[-1] for key in series(metrics)}
    live.update([row(0.9, True, version="3")])
    live.show(metrics)
    assert {key[1:] for key in series(metrics)} == {("champion", "3")}


def test_the_gauges_follow_a_version_from_shadow_to_champion() -> None:
    live, metrics = LivePerformance(), Metrics()
    live.update([row(0.9, True, shadows={"2": 0.8}), row(0.2, False, shadows={"2": 0.1})])
    live.show(metrics)
    found = series(metrics)
    assert found["auc", "shadow", "2"] == 1
    assert found["rows", "champion", "1"] == found["paired_rows", "1", "2"] == 2
    live.update([row(0.8, True, version="2", shadows={"1": 0.9})])
    live.show(metrics)
    found = series(metrics)
    assert found["rows", "champion", "2"] == found["rows", "shadow", "1"] == 3
    assert ("auc", "shadow", "2") not in found
    assert found["log_loss_difference", "2", "1"] < 0  # sorted by label name: served, shadow


def test_an_auc_that_is_not_defined_any_more_is_not_shown() -> None:
    live, metrics = LivePerformance(2), Metrics()
    live.update([row(0.9, True), row(0.2, False)])
    live.show(metrics)
    assert series(metrics)["auc", "champion", "1"] == 1
    live.update([row(0.2, False)])
    live.show(metrics)
    assert ("auc", "champion", "1") not in series(metrics)
    assert series(metrics)["rows", "champion", "1"] == 2


def test_delays_are_from_event_to_label_in_seconds() -> None:
    assert delays_s([row(0.5, True), row(0.5, None)]).tolist() == [3.5]
    assert delays_s([]).shape == (0,)
