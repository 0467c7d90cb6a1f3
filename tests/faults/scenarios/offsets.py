"""Offsets and logs that are not what they were: reset by an operator, or a topic deleted and made again."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from dataclasses import fields

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition

from tests.faults.feed import Feed, Load
from tests.faults.pipelines import PARTITIONS, records
from tests.faults.system import Failed, Grounds, System, wait
from tests.faults.table import Row, scenario
from tests.faults.verify import verify

BACK = 150
"""Records a partition."""

_NEW = "new incarnation"
_FIRST, _LATER = 12_000, 9_000


@scenario("offsets-reset", "committed offsets reset backwards", short=1, long=3)
def reset(grounds: Grounds, count: int) -> Row:
    """What lies after the offsets is scored again, as the operator wants it, and with the same values."""
    row = Row("committed offsets reset backwards", count)
    with grounds.system("payments", 24_000 if count < 2 else 24_000 * count, 800.0) as system:
        for _ in range(count):
            system.progress()
            system.under_load()
            before = _stopped(system)
            heard = _said(system)
            after = {at: max(0, offset - BACK) for at, offset in before.items()}
            _set_offsets(system, after)
            for (_, p), offset in before.items():
                system.again.update((p, o) for o in range(after[0, p], offset))
            _anew(system, row, heard)
            system.progress()
        row.notes.append(f"{system.again.total()} records were scored again, as they had to be")
        return system.finish(row).judge(aborts=False)


@scenario("topic-recreated", "topic deleted and made again", short=1, long=6, lasts=80)
def recreated(grounds: Grounds, count: int) -> Row:
    """Kafka deletes a topic's committed offsets with it.

    In turns: while workers run; while none runs; so that offsets are put back that lie ahead of the new log.
    """
    row = Row("topic deleted and made again", count)
    whole = records("payments", _FIRST + count * _LATER)
    parts: list[tuple[Feed, Load, int, int]] = []
    with grounds.system("payments", Feed("payments", whole[:_FIRST]), 2000.0) as system:
        seen = system.watch.found[system.pipeline.topics.predictions]
        _all_scored(system, 0)
        for number in range(count):
            running, ahead = number % 3 == 0, number % 3 == 2
            offsets = system.committed() if running else _stopped(system)
            heard = _said(system)
            time.sleep(1.0)  # whatever else was sent would be here by now
            begin = len(seen)
            parts.append((system.feed, system.load, parts[-1][3] if parts else 0, begin))
            _recreate(system)
            left = sum(offset >= 0 for offset in system.committed().values())
            if ahead:
                _set_offsets(system, {at: n + _LATER for at, n in offsets.items()})
            later = whole[_FIRST + number * _LATER : _FIRST + (number + 1) * _LATER]
            system.feed = Feed("payments", later)
            system.load = Load(system.feed, grounds.kafka.address, system.topics, 2000.0)
            system.load.start()
            _anew(system, row, heard)
            _all_scored(system, begin)
            how = "offsets put back, ahead of the log" if ahead else f"of the offsets Kafka left {left}"
            row.notes.append(f"while workers ran: they ended with {system.fleet.exits}" if running else how)
        _stopped(system)
        system.watch.to_end()
        parts.append((system.feed, system.load, parts[-1][3], len(seen)))
        for feed, load, start, stop in parts:
            part = verify(Row(row.fault), feed, seen[start:stop], [], set(), system.model, load)
            for field in fields(Row):
                if isinstance(value := getattr(part, field.name), int) and field.name != "count":
                    setattr(row, field.name, getattr(row, field.name) + value)
            row.stall_s = max(row.stall_s, part.stall_s)
            row.notes += part.notes
            row.problems += part.problems
    return row.judge(aborts=False)


def _stopped(system: System) -> dict[tuple[int, int], int]:
    """All workers end in order; returns what they have committed."""
    for member in system.fleet.members:
        if (code := system.fleet.stop(member.number)) not in (0, -signal.SIGTERM):  # that while it starts
            raise Failed(f"worker {member.number} ended with {code}: {system.last_words()}")
    system.say("all workers are stopped")
    return system.committed()


def _set_offsets(system: System, offsets: dict[tuple[int, int], int]) -> None:
    """As an operator's tool does, once the static members' session is over."""
    at = [TopicPartition(system.topics[stream], p, offset) for (stream, p), offset in offsets.items()]
    deadline = time.monotonic() + 60
    while True:
        wanted = [ConsumerGroupTopicPartitions(system.group, at)]
        try:
            done = system.grounds.admin.alter_consumer_group_offsets(wanted)[system.group].result()
            if all(p.error is None for p in done.topic_partitions) and system.committed() == offsets:
                system.say("committed offsets are set by hand")
                return
        except KafkaException as error:
            if time.monotonic() > deadline:
                raise Failed(f"the offsets could not be set: {error}") from error
        if time.monotonic() > deadline:
            raise Failed("the offsets could not be set")
        time.sleep(0.5)


def _said(system: System) -> Callable[[], int]:
    """How many new incarnations the workers have told of since now."""
    since = [len(member.output) for member in system.fleet.members]
    return lambda: sum(m.says(_NEW, since=at) for m, at in zip(system.fleet.members, since, strict=True))


def _anew(system: System, row: Row, said: Callable[[], int]) -> None:
    """Workers begin again, and say of every partition that it has a new incarnation."""
    system.fleet.begin()
    wait(system.covered, 90, system.state)
    try:
        wait(lambda: said() >= PARTITIONS, 40, system.state)
    except Failed:
        row.problems.append(f"a new incarnation was said of {said()} partitions, not of {PARTITIONS}")


def _recreate(system: System) -> None:
    admin = system.grounds.admin
    for future in admin.delete_topics(system.topics, operation_timeout=20).values():
        future.result()
    wait(lambda: not set(system.topics) & set(admin.list_topics(timeout=10).topics), 30, lambda: "topics remain")
    time.sleep(1.0)
    system.create_sources()
    system.say("topics are made again")


def _all_scored(system: System, before: int) -> None:
    """All of the feed is sent, and the predictions are there beside the `before` ones of earlier feeds."""
    system.load.hurry()
    system.load.finish(120)
    seen = system.watch.found[system.pipeline.topics.predictions]
    wait(lambda: len(seen) - before >= len(system.feed), 120, system.state)
    counts = system.feed.counts
    wait(lambda: all(system.committed()[at] == n for at, n in counts.items()), 30, system.state)
