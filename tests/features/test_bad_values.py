"""What docs/bad-input.md says of values: each line of its table about features is a test here."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from features.engine import Features
from features.spec import (
    Aggregate,
    Category,
    Computed,
    Feature,
    FeatureSpec,
    Field,
    Frequency,
    Hashed,
    Ratio,
    Stream,
    Value,
    Vocabulary,
)
from features.windows import HOUR_MS, MINUTE_MS, LastEvents, Window
from tests.features.crowd import run as run_crowd
from tests.features.rounds import DictStore, owning, round_of
from tests.oracles.features import Event

PAYMENTS = Stream(
    "payments",
    (
        Field("user", "string"),
        Field("shop", "string", nullable=True),
        Field("amount", "number"),
        Field("tip", "number", nullable=True),
    ),
)
HOUR = Window.parse("1h")


def aggregate(op: Any, field: str | None = "amount", window: Any = HOUR, **more: Any) -> Aggregate:
    return Aggregate(f"{op}_{field}", 0, ("user",), op, field, window, **more)


def paid(minute: float, offset: int, amount: float = 1.0, tip: float | None = None, shop: str | None = "a") -> Event:
    fields = {"user": "ann", "shop": shop, "amount": amount, "tip": math.nan if tip is None else tip}
    return Event(0, int(minute * MINUTE_MS), offset, 0, fields)


async def features(features: list[Feature], events: list[Event], missing: float = math.nan) -> Features:
    spec = FeatureSpec((PAYMENTS,), tuple(features), missing)
    engine = owning(spec, DictStore(), partitions=1)
    arrived = round_of(spec, events)
    await engine.load(arrived)
    return engine.process(arrived)


async def column(feature: Feature, events: list[Event], missing: float = math.nan) -> list[float]:
    return [float(value) for value in (await features([feature], events, missing)).matrix[:, 0]]


async def test_a_ratio_over_zero_or_nothing_is_missing() -> None:
    share = Ratio("share", aggregate("sum", "tip"), aggregate("sum"))
    events = [paid(0, 0, 0.0, 1.0), paid(1, 1, 4.0, 2.0), paid(2, 2)]
    np.testing.assert_array_equal(await column(share, events), [math.nan, math.nan, 0.75])


async def test_a_mean_of_nothing_is_missing_and_so_is_a_rate_of_nothing_zero() -> None:
    assert math.isnan((await column(aggregate("mean"), [paid(0, 0)]))[0])
    assert await column(aggregate("rate", None), [paid(0, 0), paid(1, 1)]) == [0.0, np.float32(1 / 3600)]


async def test_a_sum_beyond_what_models_hold_is_missing_until_its_events_have_left_the_window() -> None:
    events = [paid(0, 0, 1.7e308), paid(1, 1, 1.6e308), paid(2, 2, 1.0), paid(62, 3, 1.0), paid(63, 4)]
    found = await features([aggregate("sum"), aggregate("variance"), aggregate("mean")], events)
    assert found.aggregates[:, 0].tolist() == [0.0, 1.7e308, math.inf, 0.0, 1.0]
    assert np.isnan(found.matrix[:, 0]).tolist() == [False, True, True, False, False]
    assert np.isnan(found.matrix[2]).all()
    assert found.matrix[4].tolist() == [1.0, 0.0, 1.0]


async def test_nan_and_infinity_of_a_transform_are_missing_and_logged_as_the_model_got_them() -> None:
    def transform(columns: Any) -> Any:
        return np.array([math.nan, math.inf, -math.inf, 1e300, 3.0])

    found = await features([Computed("odd", transform)], [paid(0, n) for n in range(5)])
    np.testing.assert_array_equal(found.matrix[:, 0], np.float32([math.nan] * 4 + [3.0]))
    np.testing.assert_array_equal(found.logged["odd"], found.matrix[:, 0])


@pytest.mark.parametrize("missing", [0.0, -1.0])
async def test_what_is_missing_has_the_declared_value_in_the_matrix_and_in_the_log(missing: float) -> None:
    declared: list[Feature] = [Value("tip", "tip"), aggregate("mean"), Category("shop", "shop", Vocabulary(("a",)))]
    found = await features(declared, [paid(0, 0, shop=None)], missing)
    assert found.matrix.tolist() == [[missing, missing, 1.0]]
    assert [found.logged["tip"][0], found.logged["mean_amount"][0], found.logged["shop"][0]] == [missing, missing, None]


async def test_a_category_never_seen_has_the_code_of_the_unknown() -> None:
    events = [paid(0, 0, shop="new"), paid(1, 1, shop=None), paid(2, 2, shop="a")]
    assert await column(Category("s", "shop", Vocabulary(("a", "b"))), events) == [2.0, 2.0, 0.0]
    assert await column(Category("s", "shop", Frequency((("a", 0.5),))), events) == [0.0, 0.0, 0.5]
    hashed = await column(Category("s", "shop", Hashed(8)), events)
    assert 0 <= hashed[0] < 8
    assert hashed[1] == 8.0
    most = aggregate("most_frequent", "shop", encoding=Vocabulary(("a", "b")))
    np.testing.assert_array_equal(await column(most, [*events, paid(3, 3)]), [math.nan, 2.0, 2.0, 0.0])


async def test_a_window_over_a_field_that_is_sometimes_null_counts_its_values() -> None:
    events = [paid(0, 0, tip=2.0), paid(1, 1), paid(2, 2, tip=4.0), paid(3, 3)]
    found = await features(
        [
            aggregate("count", None),
            aggregate("mean", "tip"),
            aggregate("std", "tip"),
            aggregate("first", "tip"),
            aggregate("lag", "tip", None, within_ms=HOUR_MS, param=2),
            aggregate("sum", "tip", LastEvents(2), within_ms=HOUR_MS),
        ],
        events,
    )
    assert found.matrix[3].tolist() == [3.0, 3.0, 1.0, 2.0, 2.0, 6.0]


async def test_of_equal_event_times_the_later_to_arrive_is_the_later() -> None:
    events = [paid(5, n, amount=float(n)) for n in range(4)]
    found = await features(
        [
            aggregate("last", window=None, within_ms=HOUR_MS),
            aggregate("lag", window=None, within_ms=HOUR_MS, param=2),
            aggregate("first"),
            aggregate("sum", window=LastEvents(2), within_ms=HOUR_MS),
        ],
        events,
    )
    assert found.matrix[3].tolist() == [2.0, 1.0, 0.0, 3.0]


async def test_more_entities_than_the_cache_holds_cost_loads_but_no_value() -> None:
    crowd = await run_crowd(20_000, 5_000)
    assert (crowd.events, crowd.wrong) == (40_000, 0)
    assert crowd.most_rows <= 5_000
    assert crowd.evictions >= 30_000
