"""What is taken out of the events of each stream: just what the features read."""

from __future__ import annotations

import numpy as np
import pytest

from features.spec import Columns
from streams import Event, Hashed, Pipeline, Source, compute
from streams.declared import Declared
from streams.decode import decoder_of
from tests.streams.records import NOW, Record, batch


class Order(Event):
    order_id: str
    user: int
    shop: str
    amount: float
    country: str
    ts: int
    unused: float = 0.0


class Visit(Event):
    user: int
    shop: str
    seconds: float
    ts: int
    unused: str = ""


ORDERS = Source("orders", Order, key="user", id="order_id", time="ts")
VISITS = Source("visits", Visit, key="user", time="ts")
ORDER = {"order_id": "o", "user": 2**53 + 1, "shop": "s", "amount": 1.5, "country": "at", "ts": NOW}
VISIT = {"user": 2**53 + 1, "shop": "s", "seconds": 3, "ts": NOW}


def fields_of(*features: Declared | list[Declared] | object) -> tuple[Columns, Columns]:
    """The columns of one order and of one visit."""
    pipeline = Pipeline("p", score=ORDERS, learn=[VISITS], features=features, model="m")  # type: ignore[arg-type]
    orders = decoder_of(ORDERS, 0, pipeline.spec).decode(batch([Record(ORDER)]))
    visits = decoder_of(VISITS, 1, pipeline.spec).decode(batch([Record(VISIT)], stream=1))
    return orders.fields, visits.fields


@pytest.mark.parametrize(
    ("feature", "of_orders", "of_visits"),
    [
        (ORDERS.field("amount"), {"amount"}, set()),
        (ORDERS.category("country", Hashed(4)), {"country"}, set()),
        (ORDERS.by("user").count("1h"), {"user"}, set()),
        (ORDERS.by("user", "shop").mean("amount", "1h"), {"user", "shop", "amount"}, set()),
        # Another stream's aggregate: the scored event names the entity, the other has the values.
        (VISITS.by("user", "shop").sum("seconds", "1h"), {"user", "shop"}, {"user", "shop", "seconds"}),
        (VISITS.by("user").since_last(), {"user"}, {"user"}),
        (
            compute("high", lambda e: e["amount"] > 1),
            {"order_id", "user", "shop", "amount", "country", "ts", "unused"},
            set(),
        ),
    ],
    ids=["field", "category", "count", "mean", "sum of another stream", "since_last of another stream", "compute"],
)
def test_the_fields_that_a_feature_reads_are_taken_and_no_others(
    feature: Declared | list[Declared], of_orders: set[str], of_visits: set[str]
) -> None:
    orders, visits = fields_of(feature)
    assert (set(orders), set(visits)) == (of_orders, of_visits)


def test_integers_that_name_an_entity_come_exactly_in_both_streams() -> None:
    orders, visits = fields_of(VISITS.by("user").mean("seconds", "1h"), ORDERS.field("amount"))
    for columns in (orders, visits):
        assert columns["user"].dtype == np.int64
        assert columns["user"].tolist() == [2**53 + 1]
    assert orders["amount"].dtype == visits["seconds"].dtype == np.float64


def test_an_integer_that_names_nothing_is_a_number_like_others() -> None:
    orders, _ = fields_of(ORDERS.field("user"))
    assert orders["user"].dtype == np.float64
