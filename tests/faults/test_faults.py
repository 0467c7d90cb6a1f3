"""The fault suite in its short form, a test a scenario; `make faults-short` prints the table too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.runs import run
from tests.faults.scenarios import SCENARIOS
from tests.faults.system import Grounds
from tests.faults.table import render

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grounds]:
    """Three brokers for all scenarios."""
    with Grounds(tmp_path_factory.mktemp("grounds")) as made:
        yield made


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_event_is_predicted_exactly_once_with_the_right_features(grounds: Grounds, name: str) -> None:
    row = run(SCENARIOS[name], grounds, SCENARIOS[name].short)
    print(render([row]))
    assert row.ok, render([row])
