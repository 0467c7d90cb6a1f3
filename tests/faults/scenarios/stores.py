"""A Redis that dies, forgets, goes back in time, answers late, or is full; with most entities out of the cache."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tests.faults.pipelines import PARTITIONS, USERS
from tests.faults.proxy import Proxy
from tests.faults.system import Grounds, System, wait
from tests.faults.table import Row, scenario

AWAY_S = 3.0
LATENCY_S, SLOW_S = 0.5, 10.0
FULL_S = 6.0
RECOVERED_S = 12.0
"""Seconds after Redis is back until which predictions may still be marked."""

_CACHE = {"WEIR_CACHE_ENTITIES": "100"}
_REBUILT = "new incarnation: feature state is rebuilt from the log"
_REFUSED = "stored state refused"
_FAILED = "checkpoint failed, its rows are kept for the next"
_LOCAL = "going on from local state"
_MARK = b'"degraded":"store"'


@scenario("redis-kill", "Redis kill -9, empty restart", short=1, long=5)
def killed(grounds: Grounds, count: int) -> Row:
    def fault(system: System) -> None:
        system.redis.kill()
        time.sleep(AWAY_S)
        system.redis.start()

    return _forgets(grounds, Row("Redis kill -9, empty restart", count), fault, _REBUILT)


@scenario("redis-flush", "FLUSHALL under a running owner with evicted entities", short=1, long=5)
def flushed(grounds: Grounds, count: int) -> Row:
    def fault(system: System) -> None:
        wait(lambda: all(m.metric("weir_cache_evictions_total") for m in system.fleet.members), 60, system.state)
        with system.redis.admin() as admin:
            admin.flushall()

    return _forgets(grounds, Row("FLUSHALL under a running owner with evicted entities", count), fault, _REBUILT)


@scenario("redis-snapshot", "Redis: an old snapshot restored", short=1, long=5)
def set_back(grounds: Grounds, count: int) -> Row:
    def fault(system: System) -> None:
        with system.redis.admin() as admin:
            admin.save()
        _at_work(system)
        later = system.committed()
        wait(lambda: asyncio.run(_written(system, later)), 60, system.state)  # else nothing is lost
        system.redis.kill()
        system.redis.start()  # with the snapshot that lies in its folder
        with system.redis.admin() as admin:
            assert admin.dbsize(), "vacuous: the snapshot was empty"

    return _forgets(grounds, Row("Redis: an old snapshot restored", count), fault, _REFUSED)


@scenario("redis-latency", "Redis answers 500 ms late", short=1, long=5)
def late(grounds: Grounds, count: int) -> Row:
    row = Row("Redis answers 500 ms late", count)
    system = _system(grounds, count)
    with Proxy([system.redis.port]) as proxy:
        system.redis_url = f"redis://127.0.0.1:{proxy.ports[system.redis.port]}"
        with system:
            for _ in range(count):
                _at_work(system)
                proxy.delay_s = LATENCY_S
                system.say("Redis is slow")
                until = time.monotonic() + SLOW_S
                took_s = system.progress()
                time.sleep(max(0.0, until - time.monotonic()))
                proxy.delay_s = 0.0
                row.notes.append(f"{SLOW_S:.0f} s of it: all partitions moved after {took_s:.1f} s")
            system.progress()
            return system.finish(row).judge(aborts=False)


@scenario("redis-full", "Redis out of memory", short=1, long=5)
def full(grounds: Grounds, count: int) -> Row:
    """Nothing can be written for a while; then it is, and a worker that is killed finds it."""
    row = Row("Redis out of memory", count)
    with _system(grounds, count) as system:
        for number in range(count):
            row.notes.append(_fill(system, number))
        return system.finish(row).judge(aborts=False)


@scenario("redis-away-local", "Redis away, going on from local state", short=1, long=10, lasts=50)
def local(grounds: Grounds, count: int) -> Row:
    """Killed and back empty, and stopped and back whole, in turns: what was guessed is marked, what is not is exact."""
    row = Row("Redis away, going on from local state", count)
    spans: list[tuple[float, float]] = []
    with _system(grounds, count, WEIR_ON_STORE_AWAY="local") as system:
        for number in range(count):
            began = time.time()
            row.notes.append(_be_away(system, whole=number % 2 == 1))
            spans.append((began, time.time() + RECOVERED_S))
            time.sleep(RECOVERED_S)
            system.under_load()
        system.progress()
        system.finish(row).judge(aborts=False, degraded=True)
        marked = [seen for seen in system.watch.found[system.pipeline.topics.predictions] if _MARK in seen.value]
    astray = sum(not any(a - 0.1 <= seen.appended_s <= b for a, b in spans) for seen in marked)
    if astray:
        row.problems.append(f"{astray} predictions are marked though Redis was there")
    row.notes.append(f"{row.degraded} of {row.events} predictions are marked")
    return row


def _fill(system: System, number: int) -> str:
    _at_work(system)
    heard = _ears(system)
    with system.redis.admin() as admin:
        admin.config_set("maxmemory", 1)
        system.say("Redis is full")
        wait(lambda: heard(_FAILED) > 0, 60, system.state)
        time.sleep(FULL_S)
        admin.config_set("maxmemory", 0)
    failed = heard(_FAILED)
    system.say("Redis has room")
    took_s = system.progress()
    then = system.committed()
    wait(lambda: asyncio.run(_written(system, then)), 60, system.state)
    system.under_load()
    system.fleet.kill(number % len(system.fleet.members))
    system.progress()
    return f"{failed} checkpoints failed; all partitions moved {took_s:.1f} s after there was room again"


def _be_away(system: System, *, whole: bool) -> str:
    """whole: it comes back with all that it had."""
    _at_work(system)
    wait(lambda: _elsewhere(system), 60, system.state)  # else there is nothing to guess
    heard, redis = _ears(system), system.redis
    away, back = (redis.pause, redis.resume) if whole else (redis.kill, redis.start)
    away()
    system.say("Redis is away")
    wait(lambda: heard(_LOCAL) > 0, 60, system.state)
    took_s = system.progress()
    time.sleep(AWAY_S)
    back()
    system.say("Redis is back")
    return f"without Redis all partitions moved after {took_s:.1f} s"


def _forgets(grounds: Grounds, row: Row, fault: Callable[[System], None], says: str) -> Row:
    """The fault `row.count` times; each time the owner of every partition must notice."""
    slowest = 0.0
    with _system(grounds, row.count) as system:
        for _ in range(row.count):
            _at_work(system)
            heard = _ears(system)
            fault(system)
            system.say("Redis has lost what it had")
            began = time.monotonic()
            wait(lambda heard=heard: heard(says) >= PARTITIONS, 60, system.state)  # type: ignore[misc]
            system.progress()
            slowest = max(slowest, time.monotonic() - began)
        row.notes.append(f"every owner noticed, and all partitions moved again at the latest {slowest:.1f} s later")
        return system.finish(row).judge(aborts=False)


def _at_work(system: System) -> None:
    """Every worker has partitions, and all of these move."""
    for member in system.fleet.members:
        system.owned_by(member.number)
    system.progress()
    system.under_load()


def _elsewhere(system: System) -> bool:
    """Whether half of the entities at least are in Redis alone; after an outage that takes a few checkpoints."""
    return sum(member.metric("weir_cache_rows") for member in system.fleet.members) < USERS / 2


def _system(grounds: Grounds, count: int, **settings: str) -> System:
    return grounds.system("payments", 24_000 if count < 3 else 36_000 * count, 800.0, **_CACHE, **settings)


def _ears(system: System) -> Callable[[str], int]:
    """How many lines the workers have written with some words since now."""
    since = [len(member.output) for member in system.fleet.members]
    return lambda words: sum(m.says(words, since=at) for m, at in zip(system.fleet.members, since, strict=True))


async def _written(system: System, committed: dict[tuple[int, int], int]) -> bool:
    """Whether the store has every partition at `committed` or further."""
    store = system.store()
    found = await store.read({p: [] for _, p in committed})
    await store.close()
    return all(
        (meta := found[p].meta) is not None and meta.vector[stream] >= offset
        for (stream, p), offset in committed.items()
    )
