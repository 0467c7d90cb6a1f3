"""Every aggregation, window, filter and encoding, declared in Python and in YAML; and what cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.aggregations import OPS
from features.spec import Aggregate, FeatureSpec
from streams import DeclarationError, Event, Frequency, Hashed, Pipeline, Source, compute, ratio
from streams.entity import Entity
from streams.yaml_form import load_yaml


class Payment(Event):
    user: str
    shop: str
    amount: float
    ts: int
    tip: float | None = None


payments = Source("payments", Payment, key="user", time="ts")
user = payments.by("user")
LARGE = "amount > 100 and shop in ['a', 'b']"

FEATURES: list[Any] = [
    payments.calendar("hour", "Europe/Berlin"),
    payments.calendar("weekday"),
    payments.category("shop", {"a": 0.5, "b": 0.25}),
    user.count("1h", "forever"),
    user.rate("1h"),
    user.sum("amount", "last 5"),
    user.std("amount", "1h", where=LARGE),
    user.variance("tip", "24h"),
    user.first("amount", "1h"),
    user.streak("shop", "forever", within="7d"),
    user.distinct("shop", "24h"),
    user.quantile("amount", 0.95, "1h"),
    user.quantile("amount", 0.999, "1h"),
    user.most_frequent("shop", "24h", values=["a", "b"]),
    user.decayed_count("1h"),
    user.decayed_mean("amount", "1h", "1d"),
    user.lag("amount", 2),
    user.last("amount", where="tip is not None"),
    user.since_last(where="amount >= 1.5"),
    ratio("share", user.sum("amount", "1h"), user.sum("amount", "24h")),
    compute("above", lambda c: c["amount"] > c["user_mean_amount_1h"], uses=[user.mean("amount", "1h")]),
]
NAMES = [
    "hour",
    "weekday",
    "shop",
    "user_count_1h",
    "user_count_forever",
    "user_rate_1h",
    "user_sum_amount_last5",
    "user_std_amount_1h_where_amount_gt_100_and_shop_in_a_b",
    "user_variance_tip_24h",
    "user_first_amount_1h",
    "user_streak_shop_forever",
    "user_distinct_shop_24h",
    "user_p95_amount_1h",
    "user_p99_9_amount_1h",
    "user_most_frequent_shop_24h",
    "user_decayed_count_1h",
    "user_decayed_mean_amount_1h",
    "user_decayed_mean_amount_1d",
    "user_lag_amount_2",
    "user_last_amount_where_tip_is_not_None",
    "user_since_last_where_amount_ge_1p5",
    "share",
    "above",
]


def spec_of(*features: Any, **options: Any) -> FeatureSpec:
    return Pipeline("p", score=payments, features=features, model="m", **options).spec


def test_names_say_entity_aggregation_field_and_window() -> None:
    assert list(spec_of(*FEATURES).names) == NAMES


def test_every_op_of_the_table_can_be_declared() -> None:
    declared = {a.op for a in spec_of(*FEATURES).aggregates}
    declared |= {"min", "max"}  # as sum is
    assert declared == set(OPS)
    assert all(hasattr(Entity, op) for op in OPS)


def test_what_features_are_only_computed_of_is_kept_but_no_input() -> None:
    spec = spec_of(*FEATURES)
    assert [a.name for a in spec.aggregates if a.name not in spec.names] == [
        "user_sum_amount_1h",
        "user_sum_amount_24h",
        "user_mean_amount_1h",
    ]


YAML = """
pipeline: p
model: m
score: payments
missing: zero
sources:
  payments:
    event: {user: str, shop: str, amount: float, ts: int, tip: float | None}
    key: user
    time: ts
features:
  - {calendar: hour, zone: Europe/Berlin}
  - calendar: weekday
  - {category: shop, frequencies: {a: 0.5, b: 0.25}}
  - {by: user, count: [1h, forever], rate: 1h, sum: {amount: last 5}}
  - {by: user, std: {amount: 1h}, where: "amount > 100 and shop in ['a', 'b']"}
  - {by: user, variance: {tip: 24h}, first: {amount: 1h}}
  - {by: user, streak: {shop: forever}, within: 7d}
  - by: user
    distinct: {shop: 24h}
    quantile: {amount: {q: [0.95, 0.999], windows: [1h]}}
    most_frequent: {shop: {values: [a, b], windows: [24h]}}
    decayed_count: 1h
    decayed_mean: {amount: [1h, 1d]}
    lag: {amount: [2]}
  - {by: user, last: {amount: 30d}, where: tip is not None}
  - {by: user, since_last: 30d, where: amount >= 1.5}
  - ratio: share
    of:
      - {by: user, sum: {amount: [1h, 24h]}}
  - compute: above
    function: rules:above
    uses:
      - {by: user, mean: {amount: 1h}}
"""


def test_yaml_declares_the_same(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(YAML)
    above = FEATURES[-1].feature.function
    loaded = load_yaml(path, lambda _: above).spec
    spec = spec_of(*FEATURES, missing="zero")
    assert loaded.features == spec.features
    assert loaded.hash == spec.hash
    assert loaded.missing == 0.0


def refused(declare: Any) -> str:
    with pytest.raises(DeclarationError) as refusal:
        spec_of(declare())
    return str(refusal.value)


@pytest.mark.parametrize(
    ("declare", "said"),
    [
        (lambda: user.std("amount", "1w"), "feature user_std_amount_1w: '1w' is not a duration"),
        (lambda: user.std("amount"), "feature user_std_amount: std needs a window"),
        (lambda: user.std("shop", "1h"), "feature user_std_shop_1h: std needs a number, shop of payments is a string"),
        (lambda: user.std("amont", "1h"), "feature user_std_amont_1h: payments has no field 'amont'; did you mean"),
        (lambda: user.sum("amount", "last 0"), "feature user_sum_amount_last 0: 0 events: choose 1 to 1000"),
        (lambda: user.sum("amount", "always"), 'write a duration like "1h", "last 5" or "forever"'),
        (lambda: user.count("last 5"), "feature user_count_last5: the latest 5 events are 5; count a window"),
        (lambda: user.rate("forever"), 'feature user_rate_forever: a rate needs a window with a length'),
        (lambda: user.sum("amount", "1h", within="7d"), "feature user_sum_amount_1h: a window with a length ends"),
        (lambda: user.sum("amount", "1h", "2h", name="x"), "name='x' names one feature; declare its windows one by"),
        (lambda: user.quantile("amount", 95, "1h"), "q lies between 0 and 1, not 95"),
        (lambda: user.most_frequent("shop", "1h"), "most_frequent of shop, a string, gives a code; list its values"),
        (lambda: user.most_frequent("amount", "1h", values=["a"]), "an encoding belongs to most_frequent of a string"),
        (lambda: user.lag("amount", 0), "feature user_lag_amount_0: 0 events: choose 1 to 1000"),
        (lambda: user.decayed_count("2 days"), "feature user_decayed_count_2 days: half-life: '2 days' is not"),
        (lambda: user.count("1h", where="amount >"), "feature user_count_1h: where: 'amount >' is not a condition"),
        (lambda: user.count("1h", where="amont > 1"), "where: payments has no field 'amont'"),
        (lambda: user.count("1h", where="shop > 'a'"), "strings have no order here"),
        (lambda: user.count("1h", where="shop == 1"), "compares a string with a number"),
        (lambda: user.count("1h", where="shop"), 'shop is a string; compare it: shop == "…"'),
        (lambda: user.count("1h", where="tip == None"), "a null is asked for with `is None`"),
        (lambda: user.count("1h", where="len(shop) > 1"), "is neither a field nor a constant"),
        (lambda: user.count("1h", where="shop in []"), "the list is empty"),
        (lambda: payments.calendar("fortnight"), "feature fortnight: 'fortnight' is none of minute, hour"),
        (lambda: payments.calendar("hour", "Europe/Bern"), "there is no time zone 'Europe/Bern'"),
        (lambda: payments.category("shop", {}), "feature shop: no frequencies"),
        (lambda: payments.category("shop", {"a": float("nan")}), "is not a text with its share"),
        (lambda: ratio("r", user.sum("amount", "1h", "2h"), user.count("1h")), "a ratio has two aggregates of one"),
        (lambda: ratio("r", payments.field("amount"), user.count("1h")), "is no aggregate; use source.by("),
        (lambda: compute("c", lambda c: c["nope"], uses=[user.count("1h")]), "has no field 'nope'; it has"),
    ],
)
def test_what_cannot_be_names_the_feature_and_the_mend(declare: Any, said: str) -> None:
    assert said in refused(declare)


@pytest.mark.parametrize("missing", ["none", True, float("inf"), 1e300, None])
def test_a_missing_value_is_nan_zero_or_a_number(missing: Any) -> None:
    with pytest.raises(DeclarationError, match='missing is "nan", "zero" or a number'):
        spec_of(payments.field("amount"), missing=missing)


def test_declarations_that_need_nothing_new_keep_the_hash_that_models_were_trained_on() -> None:
    # As it was before there were other windows, filters and aggregations; that of the state goes by STATE_FORMAT too.
    spec = spec_of(payments.field("amount"), user.count("1h"), user.mean("tip", "24h"), user.last("amount"))
    assert (spec.hash, spec.state_hash) == ("116767d308f956e7", "9a5c06c77ae8cc32")


def test_another_condition_window_parameter_or_encoding_is_another_spec() -> None:
    declared = [
        user.count("1h", where="amount > 1", name="x"),
        user.count("1h", where="amount > 2", name="x"),
        user.count("forever", name="x"),
        user.count("forever", within="7d", name="x"),
        user.quantile("amount", 0.5, "1h", name="x"),
        user.quantile("amount", 0.6, "1h", name="x"),
        user.most_frequent("shop", "1h", values=["a"], name="x"),
        user.most_frequent("shop", "1h", values=["b"], name="x"),
        user.most_frequent("shop", "1h", values=Hashed(3), name="x"),
        [payments.category("shop", Frequency((("a", 0.5),)), name="x")],
        [payments.category("shop", Frequency((("a", 0.6),)), name="x")],
    ]
    assert len({spec_of(*features).hash for features in declared}) == len(declared)
    aggregated = [features for features in declared if isinstance(features[0].feature, Aggregate)]
    assert len({spec_of(*features).state_hash for features in aggregated}) == len(aggregated)


def test_conditions_hold_over_columns_as_they_do_one_by_one() -> None:
    from features.condition import Condition

    columns = {"amount": np.array([50.0, 150.0, np.nan, 150.0]), "shop": ["a", "a", "b", None]}
    for text, holds in (
        (LARGE, [False, True, False, False]),
        ("amount <= 50 or shop is None", [True, False, False, True]),
        ("not amount > 100", [True, False, True, False]),
        ("shop != 'a'", [False, False, True, False]),
        ("shop not in ['a']", [False, False, True, False]),
        ("amount is None", [False, False, True, False]),
        ("40 < amount < 100", [True, False, False, False]),
        ("amount", [True, True, False, True]),
        ("amount == -5 or amount in [50, 7]", [True, False, False, False]),
    ):
        assert Condition.parse(text).holds(columns, 4).tolist() == holds, text
