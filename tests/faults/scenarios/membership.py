"""Workers that come and go in order: joining, leaving, restarting one after the other."""

from __future__ import annotations

import threading
import time
from bisect import bisect
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

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
    _come_and_go(grounds.system("streams", 30_000 if seconds < 60 else 700_000, 600.0, workers=2), row)
    if row.stall_s > GAP_S:
        row.problems.append(f"a partition stood still for {row.stall_s:.1f} s")
    return row


@scenario("retained", "what a rebalance costs partitions that stay, one broker, seconds", short=0, long=120, alone=True)
def retained(grounds: Grounds, seconds: int) -> Row:
    """As quiet as one machine can be: one broker, a hundred payments a second, commits as by default.

    stall_s: the longest that an event of a partition that stayed waited while others moved.
    """
    row = Row("partitions that stay while a worker joins and leaves, one broker (seconds)", seconds)
    (folder := grounds.folder / "one").mkdir()
    with Grounds(folder, brokers=1) as quiet:
        feed = 100 * (seconds + 60)
        moving = _come_and_go(quiet.system("payments", feed, 100.0, workers=2, WEIR_COMMIT_INTERVAL="100"), row)
    if moving:
        row.stall_s = round(moving[-1].wait_s, 2)
    else:
        row.problems.append("vacuous: no event was under way while partitions moved")
    return row


def _come_and_go(system: System, row: Row) -> list[_Wait]:
    """For the row's seconds. Returns the waits of events of partitions that stayed while others moved, by length."""
    with system:
        looks = _Looks(system.fleet)
        looks.start()
        system.progress()
        since_s, until, joined = time.time(), time.monotonic() + row.count, 0
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
        moving, calm = looks.waits(system, since_s)
    row.notes.append(f"joined {joined} times; {len(looks.owners)} looks at who has which partition of which stream")
    row.notes += [_told(moving, "while others moved"), _told(calm, "while none moved")]
    return moving


@scenario("rolling", "rolling restart of all workers", short=1, long=5, lasts=125)
def rolling(grounds: Grounds, count: int) -> Row:
    row = Row("rolling restart of all workers", count)
    with grounds.system("payments", 24_000 if count < 3 else 300_000, 800.0) as system:
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


class _Wait(NamedTuple):
    wait_s: float
    partition: int
    sent_s: float


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

    def waits(self, system: System, since_s: float) -> tuple[list[_Wait], list[_Wait]]:
        """Of events of partitions that had one owner from sending to the committed prediction, by length.

        First of those that were under way while other partitions moved, then of the others.
        """
        times = [at for at, _ in self.owners]
        moving, calm = [], []
        for seen in system.watch.found[system.pipeline.topics.predictions]:
            source = orjson.loads(seen.value)["source"]
            sent_s = system.load.sent_s[0, source["partition"]][source["offset"]]
            if since_s < sent_s < system.load.drips_s:
                begin = bisect(times, sent_s - _AROUND_S) - 1
                end = bisect(times, seen.appended_s + _AROUND_S) + 1
                looks = [owner for _, owner in self.owners[max(0, begin) : end]]
                if len({owner.get(seen.partition) for owner in looks}) == 1:
                    moved = any(owner != looks[0] for owner in looks)
                    (moving if moved else calm).append(_Wait(seen.appended_s - sent_s, seen.partition, sent_s))
        return sorted(moving), sorted(calm)


def _told(waits: Sequence[_Wait], when: str) -> str:
    if not waits:
        return f"no event was under way {when}"
    p50, p99, longest = (waits[int(q * (len(waits) - 1))] for q in (0.5, 0.99, 1.0))
    sent = datetime.fromtimestamp(longest.sent_s, UTC).time().isoformat("milliseconds")
    return (
        f"{len(waits):,} events of partitions that stayed where they were waited {when}: p50 {p50.wait_s:.2f} s, "
        f"p99 {p99.wait_s:.2f} s, {longest.wait_s:.2f} s at most (partition {longest.partition}, sent at {sent})"
    )
