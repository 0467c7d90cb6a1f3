"""Many more entities than the cache holds: memory stays bounded, values stay exact.

    python -m tests.features.crowd                      # 5 million entities, a bound of 100,000
    python -m tests.features.crowd 500000 10000

Each entity comes twice, in two rounds of all entities. What was evicted in between is loaded from the store.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from dataclasses import dataclass

import numpy as np

from features.engine import FeatureEngine
from features.memory_store import MemoryStore
from features.round import Segment, StreamColumns
from features.spec import Aggregate, FeatureSpec, Field, Stream
from features.store import Meta
from features.windows import HOUR_MS, Window

BATCH = 4000
SPEC = FeatureSpec(
    (Stream("visits", (Field("user", "number"), Field("amount", "number"))),),
    (
        Aggregate("count", 0, ("user",), "count", None, Window.parse("1h")),
        Aggregate("sum", 0, ("user",), "sum", "amount", Window.parse("1h")),
        Aggregate("std", 0, ("user",), "std", "amount", Window.parse("1h")),
    ),
)


@dataclass(frozen=True)
class Crowd:
    """wrong: events whose values are not those of the definition; most_rows: held at the end of any batch."""

    events: int
    wrong: int
    most_rows: int
    evictions: int


async def run(entities: int, bound: int) -> Crowd:
    """Two rounds of `entities` users through an engine that keeps `bound` of them, checkpoint by checkpoint."""
    store = MemoryStore()
    epoch, _ = await store.claim(0)
    meta = Meta(epoch, epoch, SPEC.state_hash, (0,))
    await store.begin(0, meta)
    engine = FeatureEngine(SPEC, store, capacity=bound)
    engine.own(0, meta)
    wrong = most = offset = 0
    for turn in range(2):
        for start in range(0, entities, BATCH):
            users = np.arange(start, min(start + BATCH, entities), dtype=np.float64)
            n = len(users)
            arrived = (
                StreamColumns(
                    0,
                    (Segment(0, 0, n),),
                    np.arange(offset, offset + n, dtype=np.int64),
                    np.full(n, HOUR_MS + turn, dtype=np.int64),
                    {"user": users, "amount": users / 7},
                ),
            )
            await engine.load(arrived)
            found = engine.process(arrived).aggregates
            wanted = np.column_stack([np.full(n, turn), turn * users / 7, np.full(n, 0.0 if turn else np.nan)])
            wrong += int((~((found == wanted) | (np.isnan(found) & np.isnan(wanted))).all(axis=1)).sum())
            offset += n
            for copy in engine.snapshot({0: (offset,)}):
                engine.written(copy, await store.write(0, copy.follows, copy.vector, copy.rows()))
            most = max(most, engine.stats()["user"].rows)
    return Crowd(offset, wrong, most, engine.stats()["user"].evictions)


if __name__ == "__main__":
    asked, kept = (int(a) for a in (sys.argv[1:] or ("5000000", "100000")))
    print(asyncio.run(run(asked, kept)))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB, the store's rows included")
