"""Two co-partitioned streams: orders are scored, visits are only learned from."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from examples.flights.replay import CLOSED, WATERMARK
from streams import Event, Hashed, Pipeline, Source, compute, ratio
from tests.integration.tape import PARTITIONS, Record, Tape, partition_of

DECLARED = "from tests.integration.shop import {form}\n\npipeline = {form}({name!r})\n"


class Order(Event):
    order: str
    user: str
    amount: float
    ts: int


class Visit(Event):
    user: str
    seconds: float | None
    ts: int


class WideOrder(Order):
    country: str | None = None


class WideVisit(Visit):
    page: str | None = None


COUNTRIES = ("DE", "FR", "US", "AT")
PAGES = ("home", "list", "item", "cart", "pay", "help", "jobs", "terms", "press", "team", "faq", "blog", "map")


def pipeline_named(name: str) -> Pipeline:
    """Windows of at most 30 min, so that a short tape goes through many of them."""
    orders = Source(f"{name}.orders", Order, key="user", id="order", time="ts", max_skew="1m")
    visits = Source(f"{name}.visits", Visit, key="user", time="ts", max_skew="1m")
    buyer, visitor = orders.by("user"), visits.by("user")
    return Pipeline(
        name,
        score=orders,
        learn=[visits],
        features=[
            orders.field("amount"),
            buyer.count("10m"),
            buyer.sum("amount", "10m", "30m"),
            visitor.mean("seconds", "10m"),
            visitor.max("seconds", "30m"),
            visitor.last("seconds", within="30m"),
            visitor.since_last(within="30m"),
        ],
        model=name,
    )


def wide_named(name: str) -> Pipeline:
    """Every aggregation, kind of window and of feature over the same streams."""
    orders = Source(f"{name}.orders", WideOrder, key="user", id="order", time="ts", max_skew="1m")
    visits = Source(f"{name}.visits", WideVisit, key="user", time="ts", max_skew="1m")
    buyer, visitor = orders.by("user"), visits.by("user", name="visitor")
    return Pipeline(
        name,
        score=orders,
        learn=[visits],
        features=[
            orders.calendar("minute_of_day", "Europe/Berlin"),
            orders.calendar("weekday"),
            orders.category("country", COUNTRIES[:2]),
            orders.category("country", Hashed(8), name="country_hashed"),
            orders.by("user", "country").count("30m"),
            buyer.rate("10m"),
            buyer.max("amount", "10m"),
            buyer.variance("amount", "30m"),
            buyer.sum("amount", "30m", where="country in ['DE', 'US'] or amount > 50", name="some"),
            buyer.mean("amount", "last 5", within="20m"),
            buyer.last("amount", within="30m", where="country is not None", name="last_known"),
            buyer.most_frequent("country", "30m", values=COUNTRIES[:3]),
            buyer.count("30m", where="amount > 20"),
            buyer.count("last 5", where="amount > 20", within="20m"),
            buyer.count("forever", within="10m"),
            visitor.min("seconds", "30m", where="seconds > 50"),
            visitor.first("seconds", "10m"),
            visitor.streak("seconds", "30m"),
            visitor.distinct("seconds", "30m"),
            visitor.distinct("page", "10m", where="seconds is not None", name="read"),
            visitor.streak("page", "forever", within="10m"),
            visitor.most_frequent("seconds", "last 5", within="30m"),
            visitor.most_frequent("page", "30m", values=Hashed(1000)),
            visitor.quantile("seconds", 0.5, "30m"),
            visitor.quantile("seconds", 0.5, "last 9", within="30m"),
            visitor.std("seconds", "30m"),
            visitor.lag("seconds", 3, within="30m"),
            visitor.since_last(within="30m", where="page == 'cart'", name="since_cart"),
            visitor.decayed_count("10m"),
            visitor.decayed_mean("seconds", "10m"),
            ratio("share", buyer.sum("amount", "10m"), buyer.sum("amount", "30m")),
            compute("above", above, uses=[buyer.mean("amount", "30m")]),
        ],
        model=name,
        missing=-1.0,
    )


def above(columns: Any) -> Any:
    """How far an order is above its buyer's mean."""
    return columns["amount"] - columns["user_mean_amount_30m"]


def shop(folder: Path, name: str, n: int) -> Tape:
    """`n` orders and twice as many visits, over a few hours."""
    return Tape(_declared(folder, name, "pipeline_named"), _over_hours(n, name))


def wide_shop(folder: Path, name: str, n: int) -> Tape:
    """The same records, with the features of `wide_named`; what is expected of them is not worked out."""
    return wide(folder, name, _over_hours(n, name))


def wide(folder: Path, name: str, made: list[Record]) -> Tape:
    """The features of `wide_named` over these records of the shop, to which countries and pages are added."""
    draw, likely = random.Random(len(made)), [1 / (1 + i) for i in range(len(PAGES))]
    told = []
    for record in made:
        if record.value is not None:
            texts = ("page", draw.choices(PAGES, likely)[0]) if record.stream else ("country", draw.choice(COUNTRIES))
            more = {texts[0]: None if draw.random() < 0.1 else texts[1]}
            record = record._replace(value=json.dumps({**json.loads(record.value), **more}).encode())
        told.append(record)
    return Tape(_declared(folder, name, "wide_named"), told, expected={})


def _declared(folder: Path, name: str, form: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(DECLARED.format(name=name, form=form))
    return path


def _over_hours(n: int, name: str) -> list[Record]:
    return records(3 * n, name, users=60, step_ms=4000, late_ms=300_000, marks_every=50)


def records(
    n: int,
    seed: int | str,
    *,
    users: int,
    step_ms: int,
    late_ms: int,
    marks_every: int,
    partitions: int = PARTITIONS,
) -> list[Record]:
    """`n` events, an order for two visits, in the order of sending; record timestamps never fall.

    One in fifty is late, by up to `late_ms`, so that the merge and the windows have something to decide; `late_ms`
    behind go the watermarks, one round every `marks_every` events.
    """
    draw = random.Random(seed)
    now = 1_700_000_000_000
    made = marks(now - 3_600_000, now, partitions)
    for i in range(n):
        now += draw.randrange(0, step_ms)
        user = f"u{draw.randrange(users)}"
        late = draw.randrange(late_ms) if draw.random() < 0.02 else 0
        seconds = None if draw.random() < 0.1 else round(draw.expovariate(0.01), 3)
        order = {"order": f"o{i}", "user": user, "amount": round(draw.lognormvariate(3, 1), 2), "ts": now - late}
        value = order if i % 3 == 0 else {"user": user, "seconds": seconds, "ts": now - late}
        key = user.encode()
        made.append(Record(int(i % 3 != 0), partition_of(key, partitions), key, json.dumps(value).encode(), now))
        if i % marks_every == marks_every - 1:
            made += marks(now - late_ms, now, partitions)
    return [*made, *marks(CLOSED, now, partitions)]


def marks(time_ms: int, timestamp: int, partitions: int = PARTITIONS) -> list[Record]:
    """A watermark in every partition of both streams: no event before `time_ms` is to come."""
    headers = [(WATERMARK, str(time_ms).encode())]
    return [Record(s, p, None, None, timestamp, headers) for p in range(partitions) for s in (0, 1)]
