"""What a spec says of its state."""

from __future__ import annotations

import pytest

from features.spec import Aggregate, FeatureSpec, Field, Op, Stream
from features.windows import DAY_MS, HOUR_MS, MINUTE_MS, Window, parse_window

PAYMENTS = Stream("payments", (Field("user", "string"), Field("amount", "number")))


def aggregate(op: Op, window: str | None = None, within_ms: int | None = None, param: int = 0) -> Aggregate:
    field = None if op in ("count", "since_last", "decayed_count") else "amount"
    cut = parse_window(window) if window else None
    return Aggregate(f"{op}_{window}_{within_ms}", 0, ("user",), op, field, cut, within_ms, param=param)


def kept_ms(*aggregates: Aggregate) -> int:
    return FeatureSpec((PAYMENTS,), aggregates).kept_ms


@pytest.mark.parametrize("text", ["12ms", "30m", "1h", "24h", "30d"])
def test_state_of_a_window_is_kept_for_its_length_and_a_pane(text: str) -> None:
    window = Window.parse(text)
    assert kept_ms(aggregate("count", text)) == window.length_ms + window.pane_ms


@pytest.mark.parametrize(
    "counted",
    [
        aggregate("last", None, 3 * HOUR_MS),
        aggregate("since_last", None, 3 * HOUR_MS),
        aggregate("lag", None, 3 * HOUR_MS, param=2),
        aggregate("sum", "last 5", 3 * HOUR_MS),
        aggregate("sum", "forever", 3 * HOUR_MS),
        aggregate("decayed_count", None, 3 * HOUR_MS, param=DAY_MS),
    ],
    ids=lambda counted: str(counted.name),
)
def test_what_ends_with_a_silence_is_kept_for_so_long_however_far_back_it_counts(counted: Aggregate) -> None:
    assert kept_ms(counted) == 3 * HOUR_MS


def test_an_entity_is_kept_for_as_long_as_any_of_its_features_counts() -> None:
    short, long, silent = aggregate("count", "10m"), aggregate("sum", "30m"), aggregate("last", None, HOUR_MS)
    assert kept_ms(short, long) == 30 * MINUTE_MS + 150_000
    assert kept_ms(short, silent, long) == HOUR_MS
    assert kept_ms(silent, aggregate("count", "24h")) == 25 * HOUR_MS


def test_what_others_keep_is_not_kept_here_and_nothing_is_kept_for_no_time() -> None:
    near, far = aggregate("count", "1h"), aggregate("last", None, 30 * DAY_MS)
    assert FeatureSpec((PAYMENTS,), (near, far), given=frozenset({far.name})).kept_ms == HOUR_MS + 5 * MINUTE_MS
    assert FeatureSpec((PAYMENTS,), (near, far), given=frozenset({near.name, far.name})).kept_ms == 0
    assert kept_ms() == 0
