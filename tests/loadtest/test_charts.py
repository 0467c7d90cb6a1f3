"""Charts hold their points where they belong."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from loadtest import charts


def circles(body: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', body)]


def test_sizes_lie_by_their_logarithm_and_values_from_zero_up() -> None:
    chart = charts.over_sizes("t", [(10, 50.0, "10"), (100, 100.0, "100"), (1000, 0.0, "1,000")])
    (x0, y0), (x1, y1), (x2, y2) = circles(chart.body)
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y2 - y0 == pytest.approx(y0 - y1, abs=0.2)


def test_one_size_alone_has_its_place_too() -> None:
    ((x, _),) = circles(charts.over_sizes("t", [(10, 50.0, "10")]).body)
    assert 0 < x < charts.WIDTH / 2


def test_a_moment_beyond_the_last_point_is_on_the_chart() -> None:
    chart = charts.over_time("t", [(0.0, 1.0), (10.0, 2.0)], "s", [(19.0, "late")])
    (x,) = re.findall(r'<path d="M([\d.]+) [\d.]+V', chart.body)
    assert float(x) < charts.WIDTH
    assert "late" in chart.body


def test_charts_of_a_row_lie_side_by_side_and_rows_below_one_another(tmp_path: Path) -> None:
    half = charts.over_sizes("a", [(1, 1.0, "1"), (2, 2.0, "2")])
    whole = charts.bars("b & c", [("x", 1.0, "1")])
    charts.write(tmp_path / "deep" / "c.svg", [[half, half], [whole]])
    root = ElementTree.parse(tmp_path / "deep" / "c.svg").getroot()
    places = [e.get("transform") for e in root if e.tag.endswith("g")]
    assert places == ["translate(0,0)", "translate(360,0)", f"translate(0,{half.height:g})"]
    assert root.get("viewBox") == f"0 0 720 {half.height + whole.height:g}"
