"""Workers that come and go in order: joining, leaving, restarting one after the other."""

from __future__ import annotations

import threading
import time

from tests.faults.fleet import Fleet
from tests.faults.system import Grounds
from tests.faults.table import Row, scenario

EVERY_S = 5.0
GAP_S = 15.0


@scenario("membership", "a worker joins and leaves every 5 s, seconds", short=30, long=600)
def membership(grounds: Grounds, seconds: int) -> Row:
    """The third worker comes and goes; streams of one partition number stay in one worker all the time."""
    row = Row("a worker joins and leaves every 5 s (seconds)", seconds)
    with grounds.system("streams", 60_000 if seconds < 60 else 700_000, 1500.0, workers=2) as system:
        splits = _Splits(system.fleet)
        splits.start()
        system.progress()
        until, joined = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            system.under_load()
            system.fleet.begin(2)
            system.owned_by(2)
            joined += 1
            system.say("worker 2 has joined")
            time.sleep(EVERY_S)
            if (code := system.fleet.stop(2)) != 0:
                row.problems.append(f"the worker that left ended with {code}")
            system.say("worker 2 has left")
            time.sleep(EVERY_S)
        system.progress()
        splits.end()
        row.problems += splits.found[:3]
        system.finish(row).judge(aborts=False)
    row.notes.append(f"joined {joined} times; {splits.looks} looks at who has which partition of which stream")
    if row.stall_s > GAP_S:
        row.problems.append(f"a partition stood still for {row.stall_s:.1f} s")
    return row


@scenario("rolling", "rolling restart of all workers", short=1, long=5)
def rolling(grounds: Grounds, count: int) -> Row:
    row = Row("rolling restart of all workers", count)
    with grounds.system("payments", 60_000 if count < 3 else 300_000, 1500.0) as system:
        system.progress()
        for _ in range(count):
            for number in range(len(system.fleet.members)):
                system.under_load()
                if (code := system.fleet.stop(number)) != 0:
                    row.problems.append(f"worker {number} ended with {code}")
                system.say(f"worker {number} has left")
                system.fleet.begin(number)
                system.owned_by(number)
                system.progress()
                system.say(f"worker {number} is back")
        system.finish(row).judge(aborts=False)
    row.notes.append(f"from sending an event to reading its committed prediction: p99 {row.p99_s:.2f} s")
    return row


class _Splits(threading.Thread):
    """Asks every worker which partitions it has, all the time."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(name="splits", daemon=True)
        self.found: list[str] = []
        self.looks = 0
        self._fleet, self._halt = fleet, threading.Event()

    def run(self) -> None:
        while not self._halt.wait(0.2):
            for member in self._fleet.members:
                offsets = member.status().get("offsets", {})
                self.looks += bool(offsets)
                if len({tuple(sorted(by_partition)) for by_partition in offsets.values()}) > 1:
                    self.found.append(f"worker {member.number} has streams of different partitions: {offsets}")

    def end(self) -> None:
        self._halt.set()
        self.join(10)
