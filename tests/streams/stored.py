"""Payments in a store, as a worker of the example's pipeline would keep them."""

from __future__ import annotations

import numpy as np

from examples.payments.pipeline import pipeline
from features.engine import FeatureEngine
from features.partitioner import partition_of
from features.redis_store import RedisStore
from features.round import Segment, StreamColumns
from features.store import Meta

PARTITIONS = 4


async def store_payments(
    store: RedisStore, users: list[str], amounts: list[float], at_ms: int, *, state_hash: str = ""
) -> None:
    """One payment for each of `users`, all at `at_ms`, and nothing of before. state_hash: of other features."""
    for partition in range(PARTITIONS):
        epoch, _ = await store.claim(partition, PARTITIONS)
        meta = Meta(epoch, epoch, state_hash or pipeline.spec.state_hash, (0,))
        await store.begin(partition, meta)
        some = [i for i, user in enumerate(users) if partition_of(user.encode(), PARTITIONS, "crc32") == partition]
        n = len(some)
        engine = FeatureEngine(pipeline.spec, store)
        engine.own(partition, meta)
        fields = {"user_id": [users[i] for i in some], "amount": np.array([amounts[i] for i in some], dtype=float)}
        columns = (
            StreamColumns(0, (Segment(partition, 0, n),), np.arange(n), np.full(n, at_ms, dtype=np.int64), fields),
        )
        await engine.load(columns)
        engine.process(columns)
        for copy in engine.snapshot({partition: (n,)}):
            await store.write(partition, copy.follows, copy.vector, copy.rows())
