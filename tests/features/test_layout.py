"""What a row holds, and what it holds once however many features read it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from features.layout import Layout
from features.spec import Aggregate, FeatureSpec, Field, Op, Stream
from features.table import values_at
from features.windows import DAY_MS, Window

AMOUNT = Field("amount", "number")
PAYMENTS = Stream("payments", (Field("user", "string"), AMOUNT))


def aggregate(op: Op, window: str | None = None, stream: int = 0) -> Aggregate:
    field = None if op in ("count", "since_last") else "amount"
    cut = Window.parse(window) if window else None
    within = None if window else 30 * DAY_MS
    return Aggregate(f"{stream}_{op}_{window}", stream, ("user",), op, field, cut, within)


def spec_of(*aggregates: Aggregate, amount: Field = AMOUNT) -> FeatureSpec:
    stream = replace(PAYMENTS, fields=(PAYMENTS.fields[0], amount))
    return FeatureSpec((stream, replace(stream, name="refunds")), aggregates)


def width(*aggregates: Aggregate, amount: Field = AMOUNT) -> int:
    (kind,) = Layout(spec_of(*aggregates, amount=amount)).kinds
    return kind.width


def test_windows_of_one_pane_length_share_the_ring_of_the_longest() -> None:
    # | newest | count: 36 panes of 5 minutes |
    assert width(aggregate("count", "1h"), aggregate("count", "3h")) == 1 + 36
    # | newest | count: 12 panes of 5 minutes | newest | count: 24 panes of an hour |
    assert width(aggregate("count", "1h"), aggregate("count", "24h")) == 1 + 12 + 1 + 24


def test_a_mean_counts_values_apart_only_where_they_can_be_null() -> None:
    features = (aggregate("count", "1h"), aggregate("sum", "1h"), aggregate("mean", "1h"))
    assert width(*features) == 1 + 2 * 12
    assert width(*features, amount=replace(AMOUNT, nullable=True)) == 1 + 3 * 12


def test_last_and_since_last_keep_a_time_each_and_a_value() -> None:
    assert width(aggregate("last"), aggregate("since_last")) == 2 + 1


def test_each_stream_feeds_banks_of_its_own() -> None:
    (kind,) = Layout(spec_of(aggregate("count", "1h"), aggregate("count", "1h", stream=1))).kinds
    assert kind.width == 2 * (1 + 12)
    assert kind.fed_by == {0, 1}
    assert kind.feeds[:, :4].tolist() == [[0, 1, 0, 0], [1, 2, 0, 0], [0, 0, 0, 0]]
    assert not kind.feeds[:, 4:].any()


def test_a_row_that_has_seen_nothing_reads_as_nothing_at_any_time() -> None:
    spec = spec_of(*[aggregate(op, "1h") for op in ("count", "sum", "mean", "min", "max")], aggregate("last"))
    (kind,) = Layout(spec).kinds
    row = kind.template.view(np.float64)[np.newaxis]
    for time in (-1, 0, 2**62):
        (found,) = values_at(kind, row, np.array([time]), len(spec.aggregates))
        assert found[:2].tolist() == [0, 0]
        assert np.isnan(found[2:]).all()


def test_whether_a_field_can_be_null_is_part_of_what_names_the_state() -> None:
    spec = spec_of(aggregate("mean", "1h"))
    assert (
        spec.state_hash != spec_of(aggregate("mean", "1h"), amount=replace(AMOUNT, nullable=True)).state_hash
    )
    assert spec.hash == spec_of(aggregate("mean", "1h"), amount=replace(AMOUNT, nullable=True)).hash
