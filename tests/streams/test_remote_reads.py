"""What a scored event gets of remote groups beside its features: marks, the bound and what it withholds, metrics."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from features.memory_store import MemoryStore
from features.redis_store import RedisStore
from features.remote import Remote
from features.store import StoreUnavailable
from monitors.metrics import Metrics
from streams import Event, Pipeline, Source
from streams.groups import Group
from streams.parts import parts_of
from streams.remote_reads import Reads, RemoteReads

SHOP = Group(("shop",), fresh_ms=5000, on_stale="withhold")
CITY = Group(("city",), fresh_ms=1000)
NAN, INF = np.nan, np.inf


class Payment(Event):
    user: str
    shop: str
    city: str | None
    ts: int


PAYMENTS = Source("payments", Payment, key="user", time="ts")
SCORING, *OWNERS = parts_of(
    Pipeline(
        "fraud",
        score=PAYMENTS,
        features=[
            PAYMENTS.by("shop", fresh="5s", on_stale="withhold").count("1h"),
            PAYMENTS.by("city", fresh="1s").count("1h"),
        ],
        model="fraud",
    )
)


def remote(lag_s: list[float], age_s: list[float], **values: list[float]) -> Remote:
    return Remote({name: np.array(of) for name, of in values.items()}, np.array(lag_s), np.array(age_s))


def members(reads: Reads) -> list[dict[str, Any]]:
    """As they stand in predictions."""
    return [json.loads(b"{" + mark[1:] + b"}") for mark in reads.marks()]


def reads() -> Reads:
    """Of three events: one as it should be, one whose groups are too old, one of which nothing is known or named."""
    shop = remote([0.5, -2, NAN], [5, 5.001, INF], n=[1, 2, NAN])
    city = remote([1, 1, NAN], [0.25, 9, NAN], m=[7, 8, 0])
    return Reads((SHOP, CITY), [shop, city])


def test_a_prediction_says_how_far_each_group_was_and_which_were_older_than_their_bound() -> None:
    assert members(reads()) == [
        {"remote": {"shop": {"lag": 0.5, "age": 5}, "city": {"lag": 1, "age": 0.25}}},
        {"remote": {"shop": {"lag": -2, "age": 5.001}, "city": {"lag": 1, "age": 9}}, "stale": ["shop", "city"]},
        {"remote": {"shop": {"lag": None, "age": None}, "city": {"lag": None, "age": None}}, "stale": ["shop"]},
    ]


def test_a_score_is_withheld_where_a_group_that_asks_for_it_is_too_old() -> None:
    assert reads().withheld(3).tolist() == [False, True, True]
    assert not Reads((CITY,), [remote([1], [9], m=[7])]).withheld(1).any()


def test_values_of_all_groups_are_given_by_aggregate() -> None:
    given = reads().given
    assert {name: values[:2].tolist() for name, values in given.items()} == {"n": [1, 2], "m": [7, 8]}


def test_what_is_stale_or_not_known_is_counted_by_group() -> None:
    metrics = Metrics()
    reads().count(metrics)
    assert metrics.total("weir_remote_stale_total") == 3
    assert metrics.total("weir_remote_unknown_total") == 1
    page = metrics.render()[0].decode()
    assert 'weir_remote_stale_total{action="withhold",group="shop"} 2.0' in page
    assert 'weir_remote_age_seconds_count{group="shop"} 2.0' in page
    assert 'weir_remote_lag_seconds_count{group="city"} 2.0' in page


async def test_each_group_is_read_in_the_store_of_its_own_owner() -> None:
    asked: list[str] = []

    def store_of(owner: str) -> MemoryStore:
        asked.append(owner)
        return MemoryStore()

    found = await RemoteReads(SCORING, store_of, 3).read({"shop": ["a"], "city": [None]}, np.array([1000]))
    assert asked == [owner.pipeline.name for owner in OWNERS] == ["fraud.group.shop", "fraud.group.city"]
    assert np.isnan(found.given["shop_count_1h"][0])
    assert found.given["city_count_1h"].tolist() == [0]
    assert members(found) == [
        {"remote": {"shop": {"lag": None, "age": None}, "city": {"lag": None, "age": None}}, "stale": ["shop"]}
    ]


async def test_where_one_store_does_not_answer_nothing_is_read_and_all_can_go_on_as_unknown() -> None:
    away = RedisStore("redis://127.0.0.1:1", "fraud.group.city")
    found = RemoteReads(SCORING, lambda owner: away if owner == "fraud.group.city" else MemoryStore(), 3)
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1"):
        await found.read({"shop": ["a"], "city": ["b"]}, np.array([1000]))
    await away.close()
    unknown = found.unknown(1)
    assert all(np.isnan(values).all() for values in unknown.given.values())
    assert members(unknown)[0]["stale"] == ["shop", "city"]
