"""Every scenario of the suite, in the order of the table."""

from __future__ import annotations

from tests.faults.scenarios import brokers, endtxn, kills, membership, offsets, poison, stores, unprotected, zombies
from tests.faults.table import SCENARIOS

__all__ = [
    "SCENARIOS",
    "brokers",
    "endtxn",
    "kills",
    "membership",
    "offsets",
    "poison",
    "stores",
    "unprotected",
    "zombies",
]
