"""The gauges of a worker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from features.engine import FeatureEngine
from features.memory_store import MemoryStore
from monitors.metrics import Metrics
from streams import Event, Pipeline, Source
from streams.lane import Lane, Position
from streams.vitals import Vitals


class Payment(Event):
    user: str
    amount: float
    ts: int


PAYMENTS = Source("payments", Payment, key="user", time="ts")


def test_a_partition_that_has_left_has_no_watermark_any_more() -> None:
    pipeline = Pipeline("p", score=PAYMENTS, features=[PAYMENTS.field("amount")], model="m")
    metrics = Metrics()
    owned: Any = SimpleNamespace(lanes={p: Lane(p, [0], [Position(0, 5_000)], 1) for p in (0, 1)})
    nothing: Any = None
    vitals = Vitals(pipeline, FeatureEngine(pipeline.spec, MemoryStore()), owned, nothing, metrics)

    def watermarks() -> list[str]:
        lines = metrics.render()[0].decode().splitlines()
        return [line for line in lines if line.startswith("weir_watermark_timestamp_seconds{")]

    vitals.measure({})
    assert len(watermarks()) == 2
    del owned.lanes[0]
    vitals.measure({})
    assert watermarks() == ['weir_watermark_timestamp_seconds{partition="1",source="payments"} 5.0']
