"""The gauges of a worker."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from features.engine import FeatureEngine
from features.memory_store import MemoryStore
from monitors.metrics import Metrics
from streams import Event, Pipeline, Source
from streams.lane import Lane, Position
from streams.vitals import Vitals
from tests.streams.records import decoded


class Payment(Event):
    user: str
    amount: float
    ts: int


PAYMENTS = Source("payments", Payment, key="user", time="ts")


class Login(Event):
    user: str
    ts: int


LOGINS = Source("logins", Login, key="user", time="ts")


def vitals_of(owned: Any, metrics: Metrics, *beside: Source) -> Vitals:
    amount = PAYMENTS.field("amount")
    pipeline = Pipeline("p", score=PAYMENTS, features=[amount], model="m")
    engine = FeatureEngine(pipeline.spec, MemoryStore())
    if beside:
        counts = [source.by("user").count("1h") for source in beside]
        pipeline = Pipeline("p", score=PAYMENTS, features=[amount, *counts], model="m", learn=beside)
    serving: Any = SimpleNamespace(deployment=None, versions=list, refused={})
    return Vitals(pipeline, engine, owned, serving, metrics)


def joined(vitals: Vitals) -> Vitals:
    """Of a worker that has joined its group."""
    scoring: Any = SimpleNamespace(violations=None)
    vitals.started(scoring, scoring)
    return vitals


def test_a_partition_that_has_left_has_no_watermark_any_more() -> None:
    metrics = Metrics()
    owned: Any = SimpleNamespace(lanes={p: Lane(p, [0], [Position(0, 5_000)], 1) for p in (0, 1)})
    vitals = vitals_of(owned, metrics)

    def watermarks() -> list[str]:
        lines = metrics.render()[0].decode().splitlines()
        return [line for line in lines if line.startswith("weir_watermark_timestamp_seconds{")]

    vitals.measure({})
    assert len(watermarks()) == 2
    del owned.lanes[0]
    vitals.measure({})
    assert watermarks() == ['weir_watermark_timestamp_seconds{partition="1",source="payments"} 5.0']


def test_the_lag_is_not_known_before_the_end_of_every_owned_partition_is() -> None:
    lanes = {0: Lane(0, [0], [Position(0)], 1)}
    owned: Any = SimpleNamespace(lanes=lanes, recovering=[0, 1])
    vitals = vitals_of(owned, Metrics())
    assert vitals.status()["lag"] is None, "it has not joined its group yet"
    joined(vitals)
    assert vitals.status()["lag"] is None, "nothing has been measured"
    vitals.measure({(0, 0): 3})
    assert vitals.status()["lag"] is None, "partition 1 has no state yet"
    lanes[1] = Lane(1, [0], [Position(0)], 1)
    assert vitals.status()["lag"] is None, "the end of partition 1 is not known"
    vitals.measure({(0, 0): 3, (0, 1): 4})
    assert vitals.status()["lag"] == 7


def test_lag_is_what_has_not_been_worked_off_wherever_it_is() -> None:
    lane = Lane(0, [0], [Position(0)], 1)
    vitals = joined(vitals_of(SimpleNamespace(lanes={0: lane}, recovering=[]), Metrics()))
    vitals.measure({(0, 0): 3})
    assert vitals.status()["lag"] == 3, "polled, and on the way"
    lane.add(decoded([5, 6], dead=[2]))
    assert vitals.status()["lag"] == 3, "in the lane"
    take = lane.take()
    assert take is not None
    lane.drop(take)
    assert vitals.status()["lag"] == 0
    lane.add(decoded([7, 8], offsets=[3, 4]))
    assert vitals.status()["lag"] == 2, "came since the end was looked at"


def test_records_that_wait_for_another_stream_are_held_and_no_reason_to_end_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lane = Lane(0, [0, 0], [Position(0), Position(0, 1)], 1)
    vitals = joined(vitals_of(SimpleNamespace(lanes={0: lane}, recovering=[]), Metrics(), LOGINS))
    monkeypatch.setattr(vitals, "ready", lambda: (True, {}))
    lane.add(decoded([5, 6]))
    lane.add(decoded([], stream=1, marks=[(0, 5)]))
    ends = {(0, 0): 2, (1, 0): 1}

    def later(lag: int, held: int) -> bool:
        """Whether it is said to be alive after two minutes without progress."""
        now_s = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now_s + 120)
        vitals.measure(ends)
        status = vitals.status()
        assert (status["lag"], status["held"]) == (lag, held)
        live: bool = vitals.live()["live"]
        return live

    vitals.measure(ends)
    assert not later(3, 0), "nothing was taken"
    take = lane.take()
    assert take is not None
    assert [len(p) for p in take.places] == [1, 0]
    lane.drop(take)
    assert later(1, 1)
    assert lane.take() is None
    assert later(1, 1)
    lane.add(decoded([], stream=1, marks=[(1, 6)]))
    assert not later(1, 0), "it might go now"
    ends[0, 0] = 7
    assert not later(6, 0), "Kafka has more"
