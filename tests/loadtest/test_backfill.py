"""The backfill bench: every system computes the same features of the same payments, as near as their windows allow."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest import backfill
from loadtest.backfill import SYSTEMS, Turn, agreed, run, write_payments


def test_all_systems_agree_on_the_payments_and_the_report_has_their_ratios() -> None:
    said: list[str] = []
    found = run(said.append, records=3000, rounds=1)
    assert found.rows_per_s.keys() == SYSTEMS.keys()
    report = found.as_json()
    assert [result["system"] for result in report["results"]] == ["weir", "polars rolling", "polars over", "pandas"]
    assert report["results"][0]["weir_ratio"] == 1.0
    assert len(found.as_rows()) == 4


def test_a_system_that_loses_a_row_or_has_other_data_is_not_measured() -> None:
    weir = Turn(10, 100.0)
    with pytest.raises(AssertionError, match="pandas: 9 rows of 10"):
        agreed({"weir": weir, "pandas": Turn(9, 100.0)}, 10)
    with pytest.raises(AssertionError, match=r"pandas: 90.0 s in all"):
        agreed({"weir": weir, "pandas": Turn(10, 90.0)}, 10)


def test_the_payments_are_the_examples(tmp_path: Path) -> None:
    assert backfill.weir(write_payments(tmp_path / "p.parquet", 1500)).rows == 1500
