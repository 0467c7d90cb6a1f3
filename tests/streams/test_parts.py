"""What each kind of a pipeline's workers reads, keeps, sends on and scores."""

from __future__ import annotations

from typing import Any

import pytest

from streams import Event, Pipeline, Source, compute, ratio
from streams.errors import UsageError
from streams.parts import part_of, parts_of


class Payment(Event):
    payment: str
    user: str
    shop: str
    device: str | None
    amount: float
    ts: int


class Login(Event):
    user: str
    ts: int


PAYMENTS = Source("payments", Payment, key="user", id="payment", time="ts", partitioner="murmur2")
LOGINS = Source("logins", Login, key="user", time="ts", partitioner="murmur2")
USER, SHOP, DEVICE = PAYMENTS.by("user"), PAYMENTS.by("shop"), PAYMENTS.by("device")


def pipeline(*features: Any, **options: Any) -> Pipeline:
    return Pipeline("fraud", score=PAYMENTS, features=features, model="fraud", **options)


def kept(of: Pipeline) -> dict[str, list[str]]:
    """By worker, what it keeps."""
    return {part.pipeline.name: [a.name for a in part.pipeline.spec.kept] for part in parts_of(of)}


def test_a_pipeline_without_remote_groups_is_one_part_as_it_was_declared() -> None:
    declared = pipeline(USER.count("1h"))
    (part,) = parts_of(declared)
    assert part.pipeline is declared
    assert part.scores
    assert not part.owns
    assert part.sends_to == part.read == ()
    assert declared.spec.kept == declared.spec.aggregates


def test_a_group_that_is_read_is_kept_by_its_owner_and_scored_where_the_source_is_read() -> None:
    declared = pipeline(USER.count("1h"), SHOP.mean("amount", "1h"))
    first, owner = parts_of(declared)
    assert kept(declared) == {"fraud": ["user_count_1h"], "fraud.group.shop": ["shop_mean_amount_1h"]}
    assert (first.scores, first.owns, owner.scores, owner.owns) == (True, False, False, True)
    assert [group.name for group in first.sends_to] == ["shop"] == [group.name for group in first.read]
    assert first.carries == owner.carried == ()
    assert [source.topic for source in owner.pipeline.sources] == ["fraud.group.shop"]
    assert owner.pipeline.lead.partitioner == "crc32"
    assert first.owner_of(first.read[0]).pipeline.spec == owner.pipeline.spec


def test_an_exact_group_scores_and_gets_what_the_source_keeps() -> None:
    shop, device = PAYMENTS.by("shop", exact=True), PAYMENTS.by("device", exact=True)
    declared = pipeline(
        USER.count("1h"), device.count("1h"), shop.count("1h"), LOGINS.by("user").since_last(), learn=[LOGINS]
    )
    first, second, third = parts_of(declared)
    assert [part.group and part.group.name for part in (first, second, third)] == [None, "device", "shop"]
    assert [part.scores for part in (first, second, third)] == [False, False, True]
    assert first.hop == second.group
    assert second.hop == third.group
    assert second.carried == ("user_count_1h", "user_since_last")
    assert third.carried == (*second.carried, "device_count_1h")
    assert third.pipeline.spec.hash == declared.spec.hash
    assert third.pipeline.spec.names == declared.spec.names
    assert len(third.pipeline.spec.streams) == 1


def test_with_both_the_last_exact_group_reads_the_others() -> None:
    shop = PAYMENTS.by("shop", exact=True)
    declared = pipeline(shop.count("1h"), DEVICE.count("1h"))
    first, last, owner = parts_of(declared)
    assert [group.name for group in first.sends_to] == ["shop"]
    assert [group.name for group in last.sends_to] == ["device"]
    assert first.read == ()
    assert last.read == (owner.group,)
    assert declared.spec.given == {"shop_count_1h", "device_count_1h"}


def test_aggregates_that_features_are_only_computed_of_are_kept_too() -> None:
    declared = pipeline(
        ratio("share", SHOP.sum("amount", "1h"), SHOP.sum("amount", "24h")),
        compute("above", lambda c: c["amount"] - c["device_max_amount_1h"], uses=[DEVICE.max("amount", "1h")]),
    )
    assert kept(declared) == {
        "fraud": [],
        "fraud.group.shop": ["shop_sum_amount_1h", "shop_sum_amount_24h"],
        "fraud.group.device": ["device_max_amount_1h"],
    }


def test_what_is_kept_here_does_not_change_with_what_others_keep() -> None:
    alone, beside = pipeline(USER.count("1h")), pipeline(USER.count("1h"), SHOP.count("7d"))
    assert alone.spec.state_hash == beside.spec.state_hash
    assert alone.spec.longest_ms == beside.spec.longest_ms
    assert alone.spec.hash != beside.spec.hash


def test_a_group_that_there_is_not_is_wrong_use_that_names_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"has no remote group 'shops'; it has shop"):
        part_of(pipeline(SHOP.count("1h")), "shops")
    with pytest.raises(UsageError, match=r"leave --group out"):
        part_of(pipeline(USER.count("1h")), "user")


def test_a_composite_of_the_key_is_not_remote() -> None:
    assert pipeline(PAYMENTS.by("shop", "user").count("1h")).groups == ()
    (group,) = pipeline(PAYMENTS.by("shop", "device").count("1h")).groups
    assert group.topic("fraud") == "fraud.group.shop_device"
