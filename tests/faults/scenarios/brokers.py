"""Brokers that are killed: the one that leads outputs, and those that coordinate the transactions and the group."""

from __future__ import annotations

from collections.abc import Callable

from tests.faults.system import Grounds, System
from tests.faults.table import Row, scenario

PROGRESS_S = 60.0


def _group(system: System) -> int:
    return system.grounds.coordinator("group", system.group)


def _transaction(system: System) -> int:
    return system.grounds.coordinator("transaction", system.transactional_id(0))


def _output(system: System) -> int:
    """Leads some partition of the predictions, and coordinates neither if there is such a broker."""
    topic = system.pipeline.topics.predictions
    leaders = {system.grounds.leader(topic, p) for p in range(12)}
    return min(leaders, key=lambda node: (node in (_group(system), _transaction(system)), node))


ROLES: dict[str, Callable[[System], int]] = {
    "group coordinator": _group,
    "transaction coordinator": _transaction,
    "output leader": _output,
}


@scenario("broker-kill", "broker kill -9", short=2, long=15, alone=True)
def broker_kill(grounds: Grounds, count: int) -> Row:
    """A broker leads a third of all partitions, so that each kill hits outputs too; progress again within 60 s."""
    row = Row("broker kill -9: group coordinator, transaction coordinator, output leader", count)
    events = 60_000 if count < 5 else 1_000_000
    with grounds.system("payments", events, 800.0) as system:
        slowest = 0.0
        for number in range(count):
            system.progress()
            system.under_load()
            role = list(ROLES)[number % len(ROLES)]
            node = ROLES[role](system)
            grounds.kill_broker(node)
            system.say(f"broker {node} killed, the {role}")
            slowest = max(slowest, took_s := system.progress(2 * PROGRESS_S))
            row.notes.append(f"{role}: all partitions moved again after {took_s:.1f} s")
            grounds.mend()
            system.say(f"broker {node} is back")
        if slowest > PROGRESS_S:
            row.problems.append(f"no progress within {PROGRESS_S:.0f} s, but {slowest:.1f} s")
        return system.finish(row).judge(aborts=True)
