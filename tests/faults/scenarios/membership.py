"""Workers that come and go in order: joining, leaving, restarting one after the other."""

from __future__ import annotations

import threading
import time
from bisect import bisect

import orjson

from tests.faults.fleet import Fleet
from tests.faults.system import Grounds, System
from tests.faults.table import Row, scenario

EVERY_S = 5.0
GAP_S = 15.0
_AROUND_S = 0.5


@scenario("membership", "a worker joins and leaves every 5 s, seconds", short=30, long=600, lasts=65)
def membership(grounds: Grounds, seconds: int) -> Row:
    """The third worker comes and goes; streams of one partition number stay in one worker all the time."""
    row = Row("a worker joins and leaves every 5 s (seconds)", seconds)
    with grounds.system("streams", 60_000 if seconds < 60 else 700_000, 600.0, workers=2) as system:
        looks = _Looks(system.fleet)
        looks.start()
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
        looks.end()
        row.problems += looks.split[:3]
        system.finish(row).judge(aborts=False)
        stayed_s = looks.longest_wait(system)
    row.notes.append(f"joined {joined} times; {len(looks.owners)} looks at who has which partition of which stream")
    row.notes.append(f"an event of a partition that stayed where it was waited for {stayed_s:.2f} s at most")
    if row.stall_s > GAP_S:
        row.problems.append(f"a partition stood still for {row.stall_s:.1f} s")
    return row


@scenario("rolling", "rolling restart of all workers", short=1, long=5, lasts=65)
def rolling(grounds: Grounds, count: int) -> Row:
    row = Row("rolling restart of all workers", count)
    with grounds.system("payments", 60_000 if count < 3 else 300_000, 800.0) as system:
        system.progress()
        for _ in range(count):
            for number in range(len(system.fleet.members)):
                system.under_load()
                system.owned_by(number)  # one that is only just starting knows no SIGTERM yet
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


class _Looks(threading.Thread):
    """Asks every worker which partitions it has, all the time. owners: when, and by partition which worker had it."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(name="looks", daemon=True)
        self.split: list[str] = []
        self.owners: list[tuple[float, dict[int, int]]] = []
        self._fleet, self._halt = fleet, threading.Event()

    def run(self) -> None:
        while not self._halt.wait(0.1):
            owner = {}
            for member in self._fleet.members:
                status = member.status()
                owner.update(dict.fromkeys(status.get("partitions", ()), member.number))
                offsets = status.get("offsets", {})
                if len({tuple(sorted(by_partition)) for by_partition in offsets.values()}) > 1:
                    self.split.append(f"worker {member.number} has streams of different partitions: {offsets}")
            self.owners.append((time.time(), owner))

    def end(self) -> None:
        self._halt.set()
        self.join(10)

    def longest_wait(self, system: System) -> float:
        """Seconds from sending an event to its committed prediction, of partitions that had one owner meanwhile."""
        times = [at for at, _ in self.owners]
        longest = 0.0
        for seen in system.watch.found[system.pipeline.topics.predictions]:
            source = orjson.loads(seen.value)["source"]
            sent_s = system.load.sent_s[0, source["partition"]][source["offset"]]
            wait_s = seen.appended_s - sent_s
            if sent_s < system.load.drips_s and wait_s > longest:
                begin = bisect(times, sent_s - _AROUND_S) - 1
                looks = self.owners[max(0, begin) : bisect(times, seen.appended_s + _AROUND_S) + 1]
                if len({owner.get(seen.partition) for _, owner in looks}) == 1:
                    longest = wait_s
        return longest
