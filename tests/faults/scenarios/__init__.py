"""Every scenario of the suite, in the order of the table."""

from __future__ import annotations

from tests.faults.scenarios import (
    brokers,
    endtxn,
    kills,
    loop,
    membership,
    offsets,
    poison,
    stores,
    unprotected,
    zombies,
)
from tests.faults.table import Scenario

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for module in (kills, brokers, zombies, membership, stores, offsets, endtxn, poison, loop, unprotected)
    for scenario in vars(module).values()
    if isinstance(scenario, Scenario)
}
