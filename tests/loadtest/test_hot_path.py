"""The hot path's allocations per record stay within their budget; and the guard sees one more."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from loadtest.hot_path import RECORDS, Budget, HotPath, measure, polls, python_version, read_budget

BUDGET = read_budget()


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    path = HotPath(tmp_path_factory.mktemp("hot-path"))
    try:
        return measure(path.stages, *polls(2))
    finally:
        path.close()


@pytest.mark.skipif(BUDGET.python != python_version(), reason=f"the budget is for Python {BUDGET.python}")
def test_no_stage_allocates_more_per_record_than_its_budget(measured: dict[str, float]) -> None:
    above = BUDGET.exceeded(measured)
    assert not above, (
        f"allocations a record above the budget: {above}. If they are wanted: python -m loadtest.hot_path --write"
    )


def test_the_budget_is_of_the_stages_that_there_are(measured: dict[str, float]) -> None:
    assert list(BUDGET.allocations_per_record) == list(measured)
    assert BUDGET.records == RECORDS


def test_all_records_are_scored_and_their_predictions_whole(tmp_path: Path) -> None:
    path = HotPath(tmp_path)
    for given in polls(2, 500):
        for _, work in path.stages:
            given = work(given)
        assert len(given) == 500
        assert b'"arm":"champion"' in given[-1]
    path.close()


def test_an_object_more_per_record_is_seen_in_its_stage_and_no_other(
    tmp_path: Path, measured: dict[str, float]
) -> None:
    path = HotPath(tmp_path)

    def slower(decode: Any) -> Any:
        kept: list[Any] = []

        def work(batch: Any) -> Any:
            kept.extend(value + b" " for value in batch.values)
            return decode(batch)

        return work

    stages = [(name, slower(work) if name == "decode" else work) for name, work in path.stages]
    more = measure(stages, *polls(2))
    path.close()
    budget = Budget(python_version(), RECORDS, 0.05, measured)
    assert budget.exceeded(measured) == {}
    above = budget.exceeded(more)
    assert above.keys() == {"decode"}
    assert above["decode"] == pytest.approx(1.0, abs=0.1)


def test_a_stage_may_have_its_tolerance_and_one_without_a_budget_nothing() -> None:
    budget = Budget("3.11", 100, 0.05, {"decode": 10.0, "round": 0.0})
    assert budget.exceeded({"decode": 10.5, "round": 0.04}) == {}
    assert budget.exceeded({"decode": 10.6, "round": 0.2, "new": 3.0}) == {"decode": 0.6, "round": 0.2, "new": 3.0}


def test_the_version_of_the_budget_is_a_python_that_is_supported() -> None:
    assert (3, 11) <= tuple(map(int, BUDGET.python.split("."))) < (3, 14)
    assert sys.version_info >= (3, 11)
