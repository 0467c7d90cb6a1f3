"""What `weir bench growth` measures, and what it makes of it; and a short one, on real servers."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from loadtest.growth import run
from loadtest.growth_points import AXES, Plan, base_of, plan
from loadtest.growth_report import COLUMNS, Found, Growth, Look
from loadtest.measure import Measured
from streams.errors import UsageError

FOUND = Found(100_000.0, 8.0, 300.0, 1.5, 4000.0, 0.0, 0.0, 10_000.0)
POINTS = AXES["entities"]
GROWTH = Growth(
    200_000,
    (
        (POINTS[0], FOUND),
        (POINTS[1], FOUND._replace(records_per_s=40_000.0, cpu_us_per_record=20.0, missed=0.8, stored=1.0)),
    ),
)


def test_along_an_axis_one_thing_grows_and_each_axis_has_one_base() -> None:
    assert [point.users for point in AXES["entities"]] == [10_000, 1_000_000, 10_000_000]
    assert [point.features for point in AXES["features"]] == [8, 50, 200]
    assert [point.partitions for point in AXES["partitions"]] == [1, 4, 12, 100]
    assert [point.batch for point in AXES["batch"]] == [1, 8, 64, 512, 4096, 8192]
    for points in AXES.values():
        base = base_of(points, points[-1])
        assert base is not None
        for point in points:
            names = ("users", "features", "numbers", "partitions", "hidden", "batch")
            assert sum(getattr(point, name) != getattr(base, name) for name in names) == (not point.base)


def test_points_with_the_same_payments_share_their_topic() -> None:
    assert len({point.input for point in (*AXES["model"], *AXES["batch"], AXES["entities"][0])}) == 1
    assert len({point.input for point in AXES["partitions"]}) == 4


def test_axes_are_chosen_by_name_in_the_order_given() -> None:
    assert [p.axis for p in plan("batch, model", short=False).points] == ["batch"] * 6 + ["model"] * 3
    assert {p.axis for p in plan("", short=True).points} == set(AXES)


def test_an_unknown_axis_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="--axis colour: there are entities, features, partitions, model, batch"):
        plan("batch,colour", short=False)


def test_a_point_is_warmed_up_for_longer_the_more_entities_it_has() -> None:
    chosen = plan("", short=False)
    few, _, many = (chosen.warm_up_s(point) for point in POINTS)
    assert few < 16
    assert many > 300


def test_what_was_missed_is_told_from_what_the_store_did_not_have() -> None:
    # 1,000 records in 10 rounds: 600 asked of the store, 150 of which were new to it
    look = Look(hits=400, misses=600, rounds=10, records=1000, inference_s=0.002)
    found = Found.of(Measured(50_000.0, 20.0, 300.0), look, entities=5000, new_entities=150)
    assert found.missed == pytest.approx(0.6)
    assert found.stored == pytest.approx(0.75)
    assert found.round_records == 100
    assert found.inference_us == pytest.approx(2.0)
    assert (found.records_per_s, found.entities) == (50_000.0, 5000)


def test_counts_are_read_from_the_workers_metrics_and_subtracted() -> None:
    page = (
        'weir_cache_hits_total{entity="user_id"} 9.0\nweir_cache_misses_total{entity="user_id"} 3.0\n'
        'weir_round_records_count 2.0\nweir_round_records_sum 12.0\nweir_stage_seconds_sum{stage="decode"} 5.0\n'
        'weir_stage_seconds_sum{stage="inference"} 0.5\n'
    )
    look = Look.at(page)
    assert look == Look(9.0, 3.0, 2.0, 12.0, 0.5)
    assert look - Look(1.0, 1.0, 1.0, 2.0, 0.25) == Look(8.0, 2.0, 1.0, 10.0, 0.25)


def test_each_point_is_compared_with_the_base_of_its_axis() -> None:
    report = json.loads(json.dumps(GROWTH.as_json()))
    assert [result["of_base"] for result in report["results"]] == [
        {"records_per_s": 1.0, "cpu_us_per_record": 1.0},
        {"records_per_s": 0.4, "cpu_us_per_record": 2.5},
    ]
    assert (report["results"][1]["axis"], report["results"][1]["value"]) == ("entities", "1M")
    assert Growth(1, ((POINTS[1], FOUND),)).as_json()["results"][0]["of_base"] is None


def test_a_row_says_how_much_was_missed_and_what_it_cost() -> None:
    base, grown = (dict(zip(COLUMNS[6:], row[6:], strict=True)) for row in GROWTH.as_rows())
    assert (base["missed"], base["of them stored"]) == ("0.0%", "")
    assert (grown["missed"], grown["of them stored"]) == ("80.0%", "100%")
    assert GROWTH.as_rows()[1][1:6] == ("1M", "40,000", "0.40", "20.0", "2.50")


def test_the_plot_has_a_curve_of_both_for_every_axis(tmp_path: Path) -> None:
    GROWTH.plot(tmp_path / "growth.svg")
    tree = ElementTree.parse(tmp_path / "growth.svg")
    texts = [e.text for e in tree.iter() if e.tag.endswith("text")]
    assert {"entities: records per second", "entities: CPU µs per record", "10k", "1M"} <= set(texts)
    assert sum(e.tag.endswith("circle") for e in tree.iter()) == 4


@pytest.mark.integration
@pytest.mark.slow
def test_a_worker_beyond_its_cache_asks_the_store_for_what_it_misses() -> None:
    (few, many) = plan("entities", short=True).points
    chosen = Plan((few, many), records=100_000, warm_up=2_000, seconds=2.0, cache=2_000)
    said: list[str] = []
    found = dict(run(said.append, chosen).found)
    # How much is missed goes by the machine: a row that is not yet written stays in memory beyond the bound.
    assert found[many].missed > 0
    assert 0 < found[many].stored <= 1
    assert found[many].entities > found[few].entities
    for point in (few, many):
        assert found[point].records_per_s > 0
        assert found[point].cpu_us_per_record > 0
