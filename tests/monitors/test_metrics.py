"""The table of metrics: what it counts, what it refuses, what it renders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from monitors.metrics import DELAYS, METRICS, Metrics, document


def test_every_name_follows_the_conventions() -> None:
    names = [row.name for row in METRICS]
    assert len(names) == len(set(names))
    for row in METRICS:
        assert row.name.startswith("weir_"), row.name
        assert (row.kind == "counter") == row.name.endswith("_total"), row.name
        assert bool(row.buckets) == (row.kind == "histogram"), row.name
        if row.unit in {"seconds", "bytes"}:
            assert f"_{row.unit}" in row.name, row.name


def test_the_rendered_page_parses_and_carries_what_was_counted() -> None:
    metrics = Metrics()
    metrics.inc("weir_events_total", 3, source="payments")
    metrics.inc("weir_events_total", 2, source="payments")
    metrics.set("weir_consumer_lag_records", 7, topic="payments", partition=1)
    metrics.observe("weir_stage_seconds", 0.003, stage="decode")
    metrics.observe("weir_stage_seconds", 0.3, 4, stage="decode")
    metrics.observe_many("weir_round_records", [1, 100, 1e9])

    page, content_type = metrics.render()
    samples = {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(page.decode())
        for s in family.samples
    }
    assert content_type.startswith("text/plain")
    assert samples["weir_events_total", (("source", "payments"),)] == 5
    assert samples["weir_consumer_lag_records", (("partition", "1"), ("topic", "payments"))] == 7
    assert samples["weir_stage_seconds_count", (("stage", "decode"),)] == 5
    assert samples["weir_stage_seconds_sum", (("stage", "decode"),)] == pytest.approx(1.203)
    assert samples["weir_stage_seconds_bucket", (("le", "0.005"), ("stage", "decode"))] == 1
    assert samples["weir_round_records_bucket", (("le", "+Inf"),)] == 3


def test_the_page_has_every_row_of_the_process_that_the_table_names() -> None:
    page = Metrics().render()[0].decode()
    for row in METRICS:
        if row.group == "Process" and row.name != "weir_build_info":
            assert row.name in page


def test_a_name_or_label_that_the_table_lacks_is_refused() -> None:
    metrics = Metrics()
    with pytest.raises(KeyError):
        metrics.inc("weir_nothing_total")
    with pytest.raises(KeyError):
        metrics.inc("weir_events_total", topic="payments")
    with pytest.raises(KeyError):
        metrics.inc("weir_events_total")
    with pytest.raises(KeyError):
        metrics.drop("weir_events_total", topic="payments")


def test_a_partition_that_has_gone_leaves_no_series_behind() -> None:
    metrics = Metrics()
    for partition in (0, 1):
        metrics.set("weir_consumer_lag_records", 5, topic="payments", partition=partition)
    metrics.drop("weir_consumer_lag_records", topic="payments", partition=1)
    page = metrics.render()[0].decode()
    assert 'weir_consumer_lag_records{partition="0",topic="payments"} 5.0' in page
    assert 'partition="1"' not in page


def test_values_can_be_read_back() -> None:
    metrics = Metrics()
    metrics.inc("weir_dead_letters_total", source="a", stage="decode", reason="json")
    metrics.inc("weir_dead_letters_total", 2, source="a", stage="decode", reason="type")
    metrics.observe("weir_round_records", 10)
    assert metrics.value("weir_dead_letters_total", source="a", stage="decode", reason="type") == 2
    assert metrics.value("weir_dead_letters_total", source="b", stage="decode", reason="type") == 0
    assert metrics.total("weir_dead_letters_total") == 3
    assert metrics.value("weir_round_records") == 1


@given(st.lists(st.one_of(st.floats(0, 1e9), st.sampled_from(DELAYS)), max_size=60))
def test_an_array_is_observed_as_its_values_one_by_one(values: list[float]) -> None:
    singly, at_once = Metrics(), Metrics()
    singly.observe_many("weir_label_delay_seconds", values)
    at_once.observe_array("weir_label_delay_seconds", np.array(values, dtype=np.float64))

    def histogram(metrics: Metrics) -> dict[str, float]:
        lines = (line for line in metrics.render()[0].decode().splitlines() if line.startswith("weir_label_delay"))
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    assert histogram(at_once) == pytest.approx(histogram(singly))
    assert at_once.value("weir_label_delay_seconds") == len(values)


def test_the_documentation_is_up_to_date() -> None:
    written = Path(__file__).parents[2].joinpath("docs", "metrics.md").read_text(encoding="utf-8")
    assert written == document(), "run python -m monitors.metrics"
