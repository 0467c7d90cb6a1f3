"""Commits whose answers do not arrive: whether they were done, only Kafka knows."""

from __future__ import annotations

from tests.faults.proxy import KafkaProxy
from tests.faults.system import Grounds, wait
from tests.faults.table import Row, scenario

_VOID = "transaction void"


@scenario("endtxn", "dropped EndTxn responses", short=5, long=50, lasts=50)
def dropped(grounds: Grounds, count: int) -> Row:
    """Workers speak to all three brokers through a proxy, which drops the answer to one commit at a time."""
    row = Row("dropped EndTxn responses", count)
    events = 60_000 if count < 10 else 1_000_000
    with (
        KafkaProxy(grounds.kafka.address) as proxy,
        grounds.system("payments", events, 800.0, broker=proxy.address) as system,
    ):
        ended = 0
        for number in range(1, count + 1):
            system.progress()
            system.under_load()
            since = [len(member.output) for member in system.fleet.members]
            exits = sum(len(member.exits) for member in system.fleet.members)

            def replaced(since: list[int] = since, exits: int = exits) -> bool:
                members = system.fleet.members
                begun = sum(m.says(_VOID, since=at) for m, at in zip(members, since, strict=True))
                return begun > 0 or sum(len(m.exits) for m in members) > exits

            proxy.drop(1)
            wait(lambda number=number: proxy.dropped >= number, 30, system.state)  # type: ignore[misc]
            system.say("an answer to a commit was dropped")
            wait(replaced, 40, system.state)
            ended += sum(len(member.exits) for member in system.fleet.members) - exits
        system.progress()
        row.notes.append(f"{proxy.dropped} answers dropped, a new producer each time; {ended} times by a new process")
        return system.finish(row, 180.0).judge(aborts=False)
