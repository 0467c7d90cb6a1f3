"""The report: one page that needs nothing else, whatever is missing from its data."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from monitors.performance import WEEK_MS, Importance, by_week
from monitors.report import KINDS, Happening, ReportData, Tile, render
from monitors.svg import Lane, Series, bar_chart, histogram, line_chart, nice_ticks, timeline

START = 1_362_096_000_000


def data(n: int = 500) -> ReportData:
    draw = np.random.default_rng(0)
    times = np.sort(draw.integers(START, START + 20 * WEEK_MS, n))
    labels, scores = draw.integers(0, 2, n).astype(float), draw.random(n)
    return ReportData(
        title="Late & <later>",
        subtitle="a year",
        outcome="late",
        tiles=[Tile("Lost", "0", "", True)],
        weeks=by_week(times, labels, scores, START),
        times=times,
        labels=labels,
        scores=scores,
        importance=[Importance("hour", 0.02, 0.001), Importance("precip", -0.001, 0.0005)],
        latency_s=draw.lognormal(-2, 0.5, 300),
        latency_note="1 in 50",
        summary=[("Events", "500")],
        first_weeks=by_week(times, labels, 1 - scores, START),
        timeline=[
            Happening(START + WEEK_MS, "drift", "feature.<hour>", "psi"),
            Happening(START + WEEK_MS, "retrain", "1 drift", "4,000 labels"),
            Happening(START + 2 * WEEK_MS, "promotion", "version 2", "better"),
            Happening(START + 3 * WEEK_MS, "rejection", "version 3", "worse"),
        ],
        span=(START, START + 20 * WEEK_MS),
        notes=["a note"],
    )


class _Balance(HTMLParser):
    """Fails on a tag that is not closed, or closed out of order."""

    void = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_no_network() -> None:
    page = render(data())
    balance = _Balance()
    balance.feed(page)
    assert balance.open == []
    assert balance.seen.count("svg") == 6
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)


def test_it_serves_light_and_dark() -> None:
    assert "prefers-color-scheme: dark" in render(data())


def test_text_is_escaped() -> None:
    page = render(data())
    assert "Late &amp; &lt;later&gt;" in page
    assert "<later>" not in page


def test_a_run_without_scores_has_a_page_too() -> None:
    nothing = np.empty(0)
    empty = replace(
        data(), weeks=[], timeline=[], times=nothing, labels=nothing, scores=nothing, importance=[], latency_s=nothing
    )
    page = render(empty)
    assert "<svg" not in page
    assert "Summary" in page


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.62, 0.79), (0, 0), (-3, 12_000), (1e-9, 2e-9), (5, 5.0000001), (0.5, 0.5)]
)
def test_ticks_enclose_the_values_and_are_few(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert 2 <= len(ticks) <= 9
    assert ticks == sorted(set(ticks))


def test_a_line_has_a_gap_where_a_value_is_missing() -> None:
    times = [START + i * WEEK_MS for i in range(5)]
    chart = line_chart(times, [Series("AUC", [0.7, 0.8, None, 0.75, 0.7])], y_label="AUC")
    assert chart.count('class="line"') == 2
    assert chart.count('class="slot"') == 4


def test_the_loop_has_a_dot_a_happening_and_a_row_each_in_words() -> None:
    page = render(data())
    assert page.count('class="dot"') == 4
    assert page.count('class="moment"') == 2, "a promotion is pointed out in both curves"
    assert "feature.&lt;hour&gt;" in page
    for name, _ in KINDS.values():
        assert f"<td>{name}</td>" in page


def test_the_first_model_has_a_line_of_its_own_beside_what_was_served() -> None:
    alone = render(replace(data(), first_weeks=[], timeline=[]))
    assert "first model" not in alone
    assert render(data()).count("first model: ") == alone.count("live: ")


def test_a_week_that_the_first_model_did_not_score_is_a_gap_in_its_line() -> None:
    found = data()
    page = render(replace(found, first_weeks=[week for week in found.first_weeks if week.start_ms > START + WEEK_MS]))
    assert page.count("first model: ") == render(found).count("first model: ") - 4


def test_a_timeline_leaves_out_what_lies_beyond_it() -> None:
    lanes = [Lane("Drift", [(START - 1, "before"), (START, "first"), (START + WEEK_MS, "last")])]
    chart = timeline(lanes, (START, START + WEEK_MS))
    assert chart.count("<circle") == 2
    assert "before" not in chart


def test_charts_of_nothing_say_so() -> None:
    for chart in (
        timeline([Lane("Drift", [])], (START, START + WEEK_MS)),
        line_chart([], [], y_label="y"),
        line_chart([1], [Series("a", [None])], y_label="y"),
        bar_chart([], x_label="x"),
        histogram(np.array([np.nan, 0.0, -1.0]), x_label="x", y_label="y"),
    ):
        assert "nothing to show" in chart


def test_every_coordinate_is_a_number() -> None:
    drawn = [
        render(data(1)),
        bar_chart([("a", 0.0, 0.0)], x_label="x"),
        histogram(np.array([0.2]), x_label="x", y_label="y", marks=[(0.2, "p50")]),
        line_chart([START], [Series("a", [1.0])], y_label="y", reference=(1.0, "all")),
    ]
    assert not any(re.search(r'="[^"]*\b(nan|inf)\b', text) for text in drawn)
