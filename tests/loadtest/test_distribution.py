"""Latency distributions as text that HdrHistogram's plotter reads, and as a chart."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.distribution import chart, hgrm, steps, write_plot

LATENCIES = st.lists(st.floats(0, 60_000, width=32), min_size=1, max_size=300)


def plotted(text: str) -> list[tuple[float, float]]:
    """(1/(1-percentile), value) as HdrHistogram's plotFiles.html takes them: lines of four numbers."""
    found = []
    for line in text.split("\n"):
        values = re.split(r" +", line.strip())
        if not line.strip().startswith("#") and len(values) == 4 and re.fullmatch(r"[\d.]+", values[0]):
            found.append((float(values[3]), float(values[0])))
    return found


@settings(max_examples=200, deadline=None)
@given(LATENCIES)
def test_each_step_is_the_nearest_rank_of_its_percentile(latencies: list[float]) -> None:
    values = np.array(latencies)
    found = steps(values)
    assert (found[0].share, found[0].value) == (0.0, values.min())
    assert found[-1] == (values.max(), 1.0, len(values))
    for step in found[:-1]:
        rank = np.percentile(values, step.share * 100, method="inverted_cdf")
        # a percentile that falls on a rank to the last bit may be the one beside it
        below = np.percentile(values, max(step.share * 100 - 1e-7, 0), method="inverted_cdf")
        assert step.value in (rank, below)
        assert step.at_most == np.count_nonzero(values <= step.value)
    assert [s.share for s in found] == sorted(s.share for s in found)


def test_the_steps_halve_the_distance_to_100_per_cent_five_at_a_time() -> None:
    shares = [s.share for s in steps(np.arange(10_000))]
    assert shares[:12] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.775])


def test_the_text_is_read_by_the_plotter_and_says_what_was_measured() -> None:
    text = hgrm(np.arange(1, 1001) / 10)
    points = plotted(text)
    assert points[0] == (1.0, 0.1)
    assert (2.0, 50.0) in points
    assert (10.0, 90.0) in points
    assert text.splitlines()[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    assert "     100.000 1.000000000000       1000\n" in text
    assert "#[Mean    =       50.050, StdDeviation   =       28.867]" in text
    assert "#[Max     =      100.000, Total count    =         1000]" in text


def test_where_nothing_came_the_text_holds_no_point() -> None:
    text = hgrm(np.empty(0, np.float32))
    assert plotted(text) == []
    assert "Total count    =            0]" in text


def test_the_chart_has_a_line_for_each_system_that_rises_to_the_right(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    series = [("weir", draw.lognormal(2, 1, 50_000)), ("loop", draw.lognormal(1, 0.5, 900)), ("dead", np.empty(0))]
    write_plot([chart("at 2,000", series), chart("at 10,000", series)], tmp_path / "folder" / "latency.svg")
    root = ElementTree.parse(tmp_path / "folder" / "latency.svg").getroot()
    lines = [e for e in root.iter() if e.get("class") == "series"]
    assert len(lines) == 4
    for line in lines:
        points = [tuple(map(float, p.split())) for p in line.get("d", "").removeprefix("M").split("L")]
        assert [x for x, _ in points] == sorted(x for x, _ in points)
        assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
        assert all(0 <= x <= 720 and 0 <= y <= 360 for x, y in points)
    texts = [e.text for e in root.iter() if e.tag.endswith("text")]
    assert texts.count("99.9%") == 2
    assert texts.count("dead: nothing came") == 2
    assert "100 ms" in texts


def test_a_chart_of_equal_latencies_and_of_none_is_drawn() -> None:
    assert "series" in chart("equal", [("weir", np.full(5, 3.0))])
    assert "series" not in chart("none", [("weir", np.empty(0))])
