"""How long a worker is away after kill -9, with its state in Redis and with Redis wiped, while payments go on.

What is measured and how: docs/performance.md.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from examples.payments import generate
from loadtest.ledger import Ledger
from loadtest.live import Live, ends, history
from loadtest.report import machine
from loadtest.service import Service, payments_service
from streams.errors import WeirError

COLUMNS = ("Redis", "kill", "process", "model", "group", "state", "= ready", "all write", "on time", "replayed")

SLOT_S = 0.1
CALM_SLOTS = 20
LEAST_LIMIT_MS = 250
_FILL_S, _RECOVERY_S, _END_S = 300.0, 300.0, 120.0

Redis = Literal["whole", "wiped"]


@dataclass(frozen=True)
class Kill:
    """Seconds from one kill -9 until …

    process_s: the new process listens. model_s: its model is loaded. group_s: Kafka has given it all partitions.
    ready_s: the state of all partitions is there. all_write_s: every partition has a new committed prediction.
    on_time_s: the backlog is gone: predictions come as soon after their events as before, for two seconds.
    replayed: records that were read again for state alone. limit_ms: what counts as on time.
    """

    redis: Redis
    process_s: float
    model_s: float
    group_s: float
    ready_s: float
    all_write_s: float
    on_time_s: float
    replayed: int
    limit_ms: int


@dataclass(frozen=True)
class Recovery:
    """What all kills came to. rows: of feature state in Redis before each kill; at least `entities`."""

    entities: int
    records: int
    per_s: float
    partitions: int
    rows: int
    kills: tuple[Kill, ...]
    predictions: int
    lost: int
    duplicated: int

    @property
    def passed(self) -> bool:
        return self.lost == self.duplicated == 0

    def as_json(self) -> dict[str, Any]:
        """The fields above, the medians by what happened to Redis, and the machine."""
        medians = {redis: _rounded(asdict(median(kills))) for redis, kills in self._by_redis().items()}
        return {
            **asdict(self),
            "kills": [_rounded(asdict(kill)) for kill in self.kills],
            "medians": medians,
            "passed": self.passed,
            "machine": machine(),
        }

    def as_rows(self) -> list[tuple[str, ...]]:
        """Under `COLUMNS`: every kill, then the medians; from `process` to `state` each what it added."""
        found = []
        for redis, kills in self._by_redis().items():
            found += [_row(redis, str(number), kill) for number, kill in enumerate(kills, 1)]
            found.append(_row(redis, "median", median(kills)))
        return found

    def summary(self) -> str:
        return (
            f"{self.rows:,} rows of state in Redis, {self.per_s:,.0f} payments/s; of {self.predictions:,} payments "
            f"{self.lost} lost, {self.duplicated} predicted twice"
        )

    def _by_redis(self) -> dict[Redis, list[Kill]]:
        found: dict[Redis, list[Kill]] = {}
        for kill in self.kills:
            found.setdefault(kill.redis, []).append(kill)
        return found


def run(
    say: Callable[[str], None],
    *,
    entities: int = 100_000,
    each: int = 4,
    per_s: float = 2000.0,
    kills: int = 3,
    partitions: int = 4,
    settle_s: float = 10.0,
) -> Recovery:
    """Kills a worker `kills` times with Redis whole and as often with Redis wiped, in turns.

    Each of `entities` users has paid `each` times in the day before; `per_s` payments a second follow, all the time.
    settle_s: on time for so long before each kill. Raises WeirError where a worker does not come back.
    """
    with payments_service(partitions, say, retention_ms="-1") as service:
        service.serve()
        written = history(entities, each, time.time_ns() // 1_000_000)
        records = generate.produce(service.address, service.source, written)
        say(f"{records:,} payments of the day before are written")
        service.worker.start()
        ledger = Ledger(service.address, service.predictions, SLOT_S)
        live = Live(service.address, service.source, entities, per_s)
        try:
            ledger.start()
            service.worker.wait(lambda: ledger.seen >= records, _FILL_S, "the day before")
            live.start()
            found, rows = [], []
            for turn in range(1, kills + 1):
                for redis in ("whole", "wiped"):
                    rows.append(_settle(service, entities, partitions, settle_s))
                    found.append(_kill(service, ledger, redis, settle_s))
                    say(f"{turn} of {kills}: {_spoken(found[-1])}")
            live.halt()
            until = ends(service.address, service.source)
            lost, duplicated = ledger.finish(until, _END_S)
        finally:
            live.halt()
            ledger.close()
    return Recovery(
        entities, records, per_s, partitions, min(rows), tuple(found), sum(until.values()), lost, duplicated
    )


def _settle(service: Service, entities: int, partitions: int, settle_s: float) -> int:
    """Waits until Redis has the state of every entity; returns its rows."""

    def stored() -> bool:
        return service.valkey.keys() - partitions >= entities  # a key more per partition: its meta record

    service.worker.wait(stored, _FILL_S, "all state in Redis", pause_s=0.2)
    time.sleep(settle_s)
    return service.valkey.keys() - partitions


def _kill(service: Service, ledger: Ledger, redis: Redis, settle_s: float) -> Kill:
    worker, log_end = service.worker, service.worker.log.stat().st_size
    now = ledger.slot(time.time())
    limit_ms = on_time_limit_ms(worst(ledger, max(0, now - int(settle_s / SLOT_S))), now)
    killed_s = time.time()
    worker.kill()
    if redis == "wiped":
        service.valkey.wipe()
    worker.start()
    worker.wait(lambda: worker.listening, _RECOVERY_S, "the process")
    process_s = time.time()
    ledger.mark()  # what the dead one had committed has been read by now
    worker.wait(lambda: len(ledger.first()) == len(ledger.partitions), _RECOVERY_S, "a prediction in every partition")
    all_write_s = max(ledger.first().values())

    def calm() -> int | None:
        start = ledger.slot(all_write_s)
        return calm_from(worst(ledger, start), start, limit_ms)

    worker.wait(lambda: calm() is not None, _RECOVERY_S, f"predictions within {limit_ms} ms", pause_s=0.2)
    on_time_s = ledger.origin_s + SLOT_S * (calm() or 0)
    told = milestones(worker.said(log_end), len(ledger.partitions))
    if told.rebuilt != (redis == "wiped"):
        raise WeirError(f"Redis was {redis}, but the state was {'rebuilt' if told.rebuilt else 'read from it'}")
    return Kill(
        redis=redis,
        process_s=process_s - killed_s,
        model_s=told.model_s - killed_s,
        group_s=told.group_s - killed_s,
        ready_s=told.ready_s - killed_s,
        all_write_s=all_write_s - killed_s,
        on_time_s=max(on_time_s, all_write_s) - killed_s,
        replayed=told.replayed,
        limit_ms=limit_ms,
    )


class Milestones(NamedTuple):
    """Wall-clock seconds of a start, as the worker's log tells them. rebuilt: whether state came from Kafka."""

    model_s: float
    group_s: float
    ready_s: float
    replayed: int
    rebuilt: bool


def milestones(lines: Iterable[Mapping[str, Any]], partitions: int) -> Milestones:
    """Of a worker's log since its start. Raises WeirError where one is missing."""
    model_s, replayed, rebuilt = None, 0, False
    assigned: dict[int, float] = {}
    ready: dict[int, float] = {}
    for line in lines:
        event, time_s = line["event"], datetime.fromisoformat(line["timestamp"]).timestamp()
        if event == "deployment in use":
            model_s = model_s or time_s
        elif event == "state found in the store":
            replayed += line["replay"]
        elif event == "new incarnation: feature state is rebuilt from the log":
            replayed, rebuilt = replayed + line["records"], True
        elif event == "partition ready":
            ready[line["partition"]] = time_s
            assigned.setdefault(line["partition"], time_s - line["recovery_s"])
    if model_s is None or len(ready) < partitions:
        raise WeirError(f"the worker's log names no model, or {len(ready)} of {partitions} partitions only")
    return Milestones(model_s, max(assigned.values()), max(ready.values()), replayed, rebuilt)


def worst(ledger: Ledger, since: int) -> dict[int, int]:
    """By slot from `since` on, the longest latency in ms."""
    return {slot: max(found) for slot, found in ledger.latencies(since).items() if found}


def on_time_limit_ms(worst_ms: Mapping[int, int], stop: int) -> int:
    """Twice what the slots before `stop` kept to, but for one in a hundred."""
    usual = sorted(ms for slot, ms in worst_ms.items() if slot < stop)
    return max(LEAST_LIMIT_MS, 2 * usual[int(0.99 * (len(usual) - 1))]) if usual else LEAST_LIMIT_MS


def calm_from(worst_ms: Mapping[int, int], start: int, limit_ms: int) -> int | None:
    """The first slot from `start` on with which `CALM_SLOTS` slots within the limit begin; None = not yet."""
    begin, newest = start, max(worst_ms, default=start)
    for slot in sorted(worst_ms):
        if slot >= start and worst_ms[slot] > limit_ms:
            if slot >= begin + CALM_SLOTS:
                return begin
            begin = slot + 1
    return begin if newest >= begin + CALM_SLOTS else None


def median(kills: Sequence[Kill]) -> Kill:
    """The median of each value."""
    rows = [asdict(kill) for kill in kills]
    middle = {name: statistics.median(row[name] for row in rows) for name in rows[0] if name != "redis"}
    return Kill(kills[0].redis, **middle)


def _row(redis: str, name: str, kill: Kill) -> tuple[str, ...]:
    moments = (0.0, kill.process_s, kill.model_s, kill.group_s, kill.ready_s)
    steps = [f"{after - before:.2f}" for before, after in pairwise(moments)]
    whole = [f"{moment:.2f}" for moment in (kill.ready_s, kill.all_write_s, kill.on_time_s)]
    return redis, name, *steps, *whole, f"{kill.replayed:,.0f}"


def _spoken(kill: Kill) -> str:
    return (
        f"Redis {kill.redis}: {kill.ready_s:.2f} s until ready ({kill.process_s:.2f} s process, "
        f"{kill.ready_s - kill.group_s:.2f} s state), {kill.on_time_s:.2f} s until on time"
    )


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()}
