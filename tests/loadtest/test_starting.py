"""What `weir bench start` makes of its starts and of memory; and a short one, on real servers."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from loadtest.starting import run
from loadtest.starting_report import MEMORY_COLUMNS, Memory, Start, Starting

STARTING = Starting(
    {
        "cached": (Start(2.0, 2.2, 2.8, 3.0, 3.1), Start(2.2, 2.4, 3.0, 3.2, 3.5), Start(9.0, 9.1, 9.2, 9.3, 9.4)),
        "compiled": (Start(2.0, 2.2, 2.8, 3.0, 9.0),),
    },
    few=Memory(200_000, 1_000, 1_000, 150.0, 160.0),
    bounded=Memory(200_000, 1_000_000, 200_000, 350.0, 380.0),
    unbounded=Memory(2_000_000, 1_000_000, 1_000_000, 1150.0, 1200.0),
)


def test_a_start_is_told_by_the_median_of_each_moment() -> None:
    assert STARTING.median("cached") == Start(2.2, 2.4, 3.0, 3.2, 3.5)
    assert STARTING.as_rows()[3] == ("cached", "median", "2.20", "2.40", "3.00", "3.20", "3.50")


def test_an_entity_takes_what_is_beyond_the_memory_with_few() -> None:
    report = json.loads(json.dumps(STARTING.as_json()))["memory"]
    assert report["bounded"]["bytes_per_row"] == round(200 * 2**20 / 200_000)
    assert report["bounded"]["bytes_per_entity"] == round(200 * 2**20 / 1_000_000)
    assert report["unbounded"]["bytes_per_entity"] == round(1000 * 2**20 / 1_000_000)
    few, bounded, _ = (dict(zip(MEMORY_COLUMNS, row, strict=True)) for row in STARTING.memory_rows())
    assert few["bytes an entity"] == ""
    assert (bounded["rows in memory"], bounded["bytes a row"]) == ("200,000", "1,049")


def test_a_late_first_prediction_or_a_large_worker_fails_it() -> None:
    assert STARTING.passed
    late = {**STARTING.starts, "cached": (Start(2.0, 2.2, 2.8, 3.0, 4.1),)}
    assert not replace(STARTING, starts=late).passed
    assert not replace(STARTING, bounded=STARTING.bounded._replace(peak_mb=401.0)).passed
    assert "ABOVE 4 s" in replace(STARTING, starts=late).summary()


def test_the_plot_compares_starts_and_memories(tmp_path: Path) -> None:
    STARTING.plot(tmp_path / "start.svg")
    texts = [e.text for e in ElementTree.parse(tmp_path / "start.svg").iter() if e.tag.endswith("text")]
    assert {"kernels cached", "kernels compiled", "1,000,000 seen, bound 200,000", "3.50", "350"} <= set(texts)


@pytest.mark.integration
@pytest.mark.slow
def test_a_short_one_times_both_kinds_of_start_and_counts_rows() -> None:
    said: list[str] = []
    found = run(said.append, rounds=1, entities=2000, bound=1000)
    for kernels in ("cached", "compiled"):
        (start,) = found.starts[kernels]
        assert 0 < start.process_s < start.first_s
        assert all(before <= after for before, after in pairwise(start[1:4]))
    assert found.bounded.entities == found.unbounded.entities == 2000
    assert found.unbounded.rows == 2000
    assert found.few.rows == 1000
    assert found.bounded.rows <= 1000
    assert found.bounded.rss_mb > 50
