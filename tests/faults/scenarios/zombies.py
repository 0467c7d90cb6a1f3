"""Workers that stop answering, lose their partitions, and come back to find them somebody else's."""

from __future__ import annotations

import asyncio
import time

from features.store import Meta, Refused
from tests.faults.system import Grounds, System, wait
from tests.faults.table import Row, scenario

STOPS_S = (8.0, 16.0)
"""Past the session (6 s), and past the transaction (10 s) too."""

_FENCED = "this process stood still", "fenced by a newer instance"
"""What a worker says whose transaction or membership Kafka has refused after that, or whose producer."""


@scenario("zombie", "SIGSTOP past the session, then SIGCONT", short=2, long=20, lasts=55)
def zombie(grounds: Grounds, count: int) -> Row:
    with grounds.system("streams", 60_000 if count < 5 else 1_000_000, 800.0) as system:
        row = Row("SIGSTOP past the session, then SIGCONT", count)
        for number in range(count):
            row.notes.append(_one(system, number, STOPS_S[number % len(STOPS_S)], row))
        return system.finish(row).judge(aborts=True)


def _one(system: System, number: int, stop_s: float, row: Row) -> str:
    member = system.fleet[number % len(system.fleet.members)]
    system.owned_by(member.number)
    system.progress()
    system.steady()  # one that has no transaction open, for a rebalance has just voided it, is no zombie afterwards
    system.under_load()
    mine = system.owned()[member.number]
    metas = asyncio.run(_metas(system, mine))
    heard, exits = len(member.output), len(member.exits)
    member.freeze()
    system.say(f"worker {member.number} stopped, it has {mine}")
    began = time.monotonic()
    wait(system.covered, 90, system.state)
    taken_s = time.monotonic() - began
    time.sleep(max(0.0, stop_s - taken_s))
    refused = asyncio.run(_write_as(system, metas))
    if refused < len(mine):
        row.problems.append(f"the store took a zombie's write of {len(mine) - refused} partitions")
    member.thaw()
    system.say(f"worker {member.number} goes on")
    system.progress()
    wait(lambda: len(member.exits) > exits, 20, system.state)
    if not any(member.says(words, since=heard) for words in _FENCED):
        row.problems.append(f"worker {member.number} ended, but not because it was fenced")
    return (
        f"stopped for {stop_s:.0f} s: taken over after {taken_s:.1f} s, fenced, ended with {member.exits[-1]}; "
        f"{refused} writes refused"
    )


async def _metas(system: System, partitions: list[int]) -> dict[int, Meta]:
    """What a worker believes to follow, by partition."""
    store = system.store()
    found = await store.read({p: [] for p in partitions})
    await store.close()
    return {p: meta for p, (meta, _) in found.items() if meta is not None}


async def _write_as(system: System, metas: dict[int, Meta]) -> int:
    """Writes as the owner of `metas` would; how many writes were refused."""
    store = system.store()
    refused = 0
    for partition, meta in metas.items():
        try:
            await store.write(partition, meta, meta.vector, [])
        except Refused:
            refused += 1
    await store.close()
    return refused
