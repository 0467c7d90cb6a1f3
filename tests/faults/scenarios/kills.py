"""Workers that are killed in the middle of a transaction."""

from __future__ import annotations

import random
import time

from tests.faults.system import Grounds, System
from tests.faults.table import Row, scenario


@scenario("worker-kill", "worker kill -9", short=5, long=100, lasts=60)
def worker_kill(grounds: Grounds, count: int) -> Row:
    with grounds.system("payments", *_size(count)) as system:
        return kills(system, Row("worker kill -9", count), count).judge(aborts=True)


@scenario("worker-kill-streams", "worker kill -9, two streams", short=1, long=50)
def worker_kill_streams(grounds: Grounds, count: int) -> Row:
    events, per_s = _size(count)
    with grounds.system("streams", events if count > 1 else 30_000, per_s) as system:
        return kills(system, Row("worker kill -9, two streams", count), count).judge(aborts=True)


def kills(system: System, row: Row, count: int) -> Row:
    """`count` kills, each when every partition has moved on since the one before."""
    draw = random.Random(count)
    slowest = 0.0
    for number in range(count):
        slowest = max(slowest, system.progress())
        system.owned_by(number % len(system.fleet.members))
        system.under_load()
        time.sleep(draw.uniform(0.0, 0.3))
        system.in_transaction(number % len(system.fleet.members))
        system.fleet.kill(number % len(system.fleet.members))
        system.say(f"worker {number % len(system.fleet.members)} killed")
    slowest = max(slowest, system.progress())
    row.notes.append(f"all partitions moved again at the latest {slowest:.1f} s after a kill")
    return system.finish(row)


def _size(count: int) -> tuple[int, float]:
    """Events, and how many a second: the load outlasts the kills, and leaves two cores room to start workers in."""
    return (60_000 if count < 20 else 1_000_000), 800.0
