"""How fast online features are read, beside a plain MGET of the same bytes; and what an entity takes in Redis.

The rows are written by the engine, as a worker does, into a redis-server of the bench's own. What is measured and how:
docs/performance.md.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
from redis.asyncio import Redis

from examples.payments.pipeline import pipeline as payments
from features.engine import FeatureEngine
from features.layout import Layout
from features.partitioner import partition_of
from features.reader import StateReader
from features.redis_store import RedisStore
from features.round import Segment, StreamColumns
from features.spec import Aggregate, FeatureSpec, Field, Op, Stream
from features.store import Meta
from features.windows import HOUR_MS, Window
from loadtest.report import machine
from loadtest.valkey import Valkey

COLUMNS = ("entities x features", "", "p50 ms", "p99 ms", "of MGET's p99")
MEMORY_COLUMNS = ("features", "bytes of a row", "bytes in Redis", "ns an event")
SIZES = (1, 10, 50, 100)
FEATURES = 20
WIDTHS = (8, 50, 200)
GOAL_RATIO, GOAL_MS = 2.0, 3.0
PARTITIONS = 12
USERS = 5000
_PAYMENTS = 20
"""Of a user, over the last day."""
_NOW_MS = 1_745_600_400_000
_FIELDS = ("amount", "fee", "items", "balance")
_WINDOWS = ("1h", "24h", "7d", "30d", "3h", "12h", "14d", "6h", "2h", "30m", "10m", "4h")
_MEASURED: tuple[Op, ...] = ("sum", "mean", "min", "max")


@dataclass(frozen=True)
class Speed:
    """Milliseconds of a read of `entities`, by FeatureReader's own reader and by an MGET of the same keys."""

    entities: int
    p50_ms: float
    p99_ms: float
    mget_p50_ms: float
    mget_p99_ms: float

    @property
    def ratio(self) -> float:
        return self.p99_ms / self.mget_p99_ms


@dataclass(frozen=True)
class Memory:
    """Of an entity with so many features: bytes of its value, and MEMORY USAGE of its key (means over the entities).

    event_ns: of the engine, to read an event's features and to add it, in the fastest of the rounds.
    """

    features: int
    row_bytes: float
    redis_bytes: float
    event_ns: float


@dataclass(frozen=True)
class Found:
    """What the bench found."""

    server: str
    reads: int
    speeds: tuple[Speed, ...]
    memory: tuple[Memory, ...]

    @property
    def passed(self) -> bool:
        return all(speed.ratio <= GOAL_RATIO for speed in self.speeds) and self.speeds[-1].p99_ms < GOAL_MS

    def as_json(self) -> dict[str, Any]:
        speeds = [{**asdict(speed), "ratio": round(speed.ratio, 3)} for speed in self.speeds]
        return {
            "server": self.server,
            "reads": self.reads,
            "features": FEATURES,
            "speeds": speeds,
            "memory": [asdict(memory) for memory in self.memory],
            "passed": self.passed,
            "machine": machine(),
        }

    def as_rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = []
        for s in self.speeds:
            size = f"{s.entities} x {FEATURES}"
            rows.append((size, "reader", f"{s.p50_ms:.3f}", f"{s.p99_ms:.3f}", f"{s.ratio:.2f}"))
            rows.append((size, "MGET", f"{s.mget_p50_ms:.3f}", f"{s.mget_p99_ms:.3f}", ""))
        return rows

    def as_memory_rows(self) -> list[tuple[str, ...]]:
        return [
            (str(m.features), f"{m.row_bytes:,.0f}", f"{m.redis_bytes:,.0f}", f"{m.event_ns:,.0f}") for m in self.memory
        ]

    def summary(self) -> str:
        goal = f"at most {GOAL_RATIO:g} x MGET's p99, and p99 of {SIZES[-1]} entities below {GOAL_MS:g} ms"
        return (
            f"{self.server}, {self.reads:,} reads of each; goal ({goal}): {'reached' if self.passed else 'not reached'}"
        )


def run(say: Callable[[str], None], *, reads: int) -> Found:
    """Measures `reads` reads of each size, in turns with MGET. Raises WeirError if the server does not start."""
    with Valkey(shutil.which("redis-server")) as server:
        return asyncio.run(_run(server.url, say, reads))


def spec_of(features: int) -> FeatureSpec:
    """Features of one user over windows and fields of payments, the first so many; eight are the example pipeline's."""
    if features == len(payments.spec.features):
        return payments.spec
    stream = Stream("payments", (Field("user_id", "string"), *(Field(name, "number") for name in _FIELDS)))
    return FeatureSpec((stream,), tuple(islice(_aggregates(), features)))


def _aggregate(op: Op, field: str | None, window: str) -> Aggregate:
    name = "_".join(["user_id", op, *filter(None, (field, window))])
    return Aggregate(name, 0, ("user_id",), op, field, Window.parse(window))


def _aggregates() -> Iterator[Aggregate]:
    for field in _FIELDS:
        for window in _WINDOWS:
            if field == _FIELDS[0]:
                yield _aggregate("count", None, window)
            for op in _MEASURED:
                yield _aggregate(op, field, window)


async def _run(url: str, say: Callable[[str], None], reads: int) -> Found:
    redis = Redis.from_url(url, protocol=2, socket_timeout=30)
    info: dict[str, Any] = await redis.info("server")
    server = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
    spec = spec_of(FEATURES)
    store = RedisStore(url, "bench", command_timeout_s=30)
    await _fill(store, spec)
    say(f"{USERS:,} entities of {FEATURES} features are written")
    speeds = await _speeds(spec, store, redis, reads)
    await store.close()
    memory = []
    for features in WIDTHS:
        await redis.flushall()
        of_width = RedisStore(url, "bench", command_timeout_s=30)
        row_bytes, event_ns = await _fill(of_width, spec_of(features))
        await of_width.close()
        keys = [_key(spec_of(features), user) for user in range(USERS)]
        usage = [await redis.memory_usage(key, samples=0) or 0 for key in keys]
        memory.append(Memory(features, row_bytes, round(float(np.mean(usage)), 1), round(event_ns, 1)))
    await redis.aclose()
    return Found(server, reads, tuple(speeds), tuple(memory))


async def _speeds(spec: FeatureSpec, store: RedisStore, redis: Redis, reads: int) -> list[Speed]:
    """Both ways take the same entities, drawn anew for each read, and take turns at being first."""
    reader = StateReader(spec, store, key="user_id", now_ms=lambda: _NOW_MS)
    draw = np.random.default_rng(7)
    took: dict[tuple[int, bool], list[float]] = {(size, plain): [] for size in SIZES for plain in (False, True)}
    warm_up = max(20, reads // 20)
    for turn in range(warm_up + reads):
        for size in SIZES:
            users = draw.integers(0, USERS, size).tolist()
            entities = [{"user_id": _name(user)} for user in users]
            keys = [_key(spec, user) for user in users]

            async def ours(entities: list[Any] = entities) -> None:
                found = await reader.read(entities)
                assert len(found) == len(entities)

            async def plain(keys: list[bytes] = keys) -> None:
                await redis.mget(keys)

            both: Sequence[tuple[bool, Callable[[], Awaitable[None]]]] = ((False, ours), (True, plain))
            for is_plain, call in both if turn % 2 else both[::-1]:
                began = time.perf_counter()
                await call()
                if turn >= warm_up:
                    took[size, is_plain].append(time.perf_counter() - began)
    found = []
    for size in SIZES:
        (p50, p99), (mget_p50, mget_p99) = (_percentiles(took[size, is_plain]) for is_plain in (False, True))
        found.append(Speed(size, p50, p99, mget_p50, mget_p99))
    return found


def _percentiles(took_s: list[float]) -> tuple[float, float]:
    """p50 and p99 in ms, nearest rank."""
    ordered = sorted(took_s)
    p50, p99 = (ordered[-(-len(ordered) * percent // 100) - 1] for percent in (50, 99))
    return round(p50 * 1000, 4), round(p99 * 1000, 4)


async def _fill(store: RedisStore, spec: FeatureSpec) -> tuple[float, float]:
    """Every user has paid, and the engine has written what it keeps of that.

    Returns the mean bytes of a row, and the ns an event that the engine took in the fastest round.
    """
    draw = np.random.default_rng(7)
    sizes: list[int] = []
    event_ns = float("inf")
    for partition in range(PARTITIONS):
        epoch, _ = await store.claim(partition, PARTITIONS)
        meta = Meta(epoch, epoch, spec.state_hash, (0,))
        await store.begin(partition, meta)
        engine = FeatureEngine(spec, store)
        engine.own(partition, meta, empty=True)
        mine = [_name(user) for user in range(USERS) if _partition(user) == partition]
        n = len(mine) * _PAYMENTS
        columns = StreamColumns(
            0,
            (Segment(partition, 0, n),),
            np.arange(n, dtype=np.int64),
            np.sort(_NOW_MS - draw.integers(0, 24 * HOUR_MS, n)),
            {"user_id": mine * _PAYMENTS, **{name: draw.lognormal(3, 1, n).round(2) for name in _FIELDS}},
        )
        arrived = (columns,)
        await engine.load(arrived)
        began_ns = time.perf_counter_ns()
        engine.process(arrived)
        event_ns = min(event_ns, (time.perf_counter_ns() - began_ns) / n)
        for copy in engine.snapshot({partition: (n,)}):
            rows = list(copy.rows())
            sizes += [len(value) for _, value in rows]
            await store.write(partition, copy.follows, copy.vector, rows)
    return round(float(np.mean(sizes)), 1), event_ns


def _name(user: int) -> str:
    return f"u{user:05d}"


def _partition(user: int) -> int:
    return partition_of(_name(user).encode(), PARTITIONS, "crc32")


def _key(spec: FeatureSpec, user: int) -> bytes:
    """Where the store keeps a user's row."""
    return f"weir:{{bench:{_partition(user)}}}:row:{_group(spec):x}:{_name(user)}".encode()


@cache
def _group(spec: FeatureSpec) -> int:
    (kind,) = Layout(spec).kinds
    return kind.number
