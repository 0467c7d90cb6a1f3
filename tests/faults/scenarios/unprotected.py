"""The same faults with one protection off: if the suite does not notice, it proves nothing."""

from __future__ import annotations

import time

from tests.faults.scenarios.kills import kills
from tests.faults.system import Grounds, System, wait
from tests.faults.table import Row, scenario

EVENTS, PER_S = 24_000, 1000.0


def _size(count: int) -> tuple[int, float]:
    return (EVENTS * max(1, count // 2), PER_S)


@scenario("off-transactions", "protection off: a plain producer", short=2, long=4)
def plain_producer(grounds: Grounds, count: int) -> Row:
    settings = {"WEIR_GUARANTEE": "at_least_once", "WEIR_COMMIT_INTERVAL": "500"}
    with grounds.system("payments", *_size(count), **settings) as system:
        return kills(system, Row("protection off: a plain producer", count), count).judge(aborts=False).must_fail()


@scenario("off-order", "protection off: Redis written before the commit", short=2, long=4)
def written_first(grounds: Grounds, count: int) -> Row:
    with grounds.system("payments", *_size(count), unprotected="written_first") as system:
        row = Row("protection off: Redis written before the commit", count)
        return kills(system, row, count).judge(aborts=False).must_fail()


@scenario("off-state", "protection off: state dropped on rebalance", short=1, long=4)
def state_dropped(grounds: Grounds, count: int) -> Row:
    row = Row("protection off: state dropped on rebalance", count)
    with grounds.system("payments", *_size(count), unprotected="state_dropped", workers=2) as system:
        for _ in range(count):
            system.progress()
            system.fleet.begin(2)
            system.owned_by(2)
            system.progress()
            system.fleet.stop(2)
        return system.finish(row).judge(aborts=False).must_fail()


@scenario("off-fencing", "protection off: no fencing", short=2, long=4)
def no_fencing(grounds: Grounds, count: int) -> Row:
    """Few commits, so that one is rarely under way; and load for longer than the stops last on a slow machine."""
    row = Row("protection off: no fencing", count)
    settings, (events, per_s) = {"WEIR_COMMIT_INTERVAL": "1000"}, _size(count)
    with grounds.system("payments", 2 * events, per_s, unprotected="no_fencing", **settings) as system:
        for number in range(count):
            system.owned_by(number % len(system.fleet.members))
            system.progress()
            _stop_and_go(system, number % len(system.fleet.members))
        return system.finish(row).judge(aborts=False).must_fail()


def _stop_and_go(system: System, number: int) -> None:
    system.under_load()
    system.freeze_in_transaction(number)
    wait(system.covered, 60, system.state)
    time.sleep(1.0)
    system.fleet[number].thaw()
    system.progress()
