"""What a feature means, in words: every operation has some, and they say what the declaration says."""

from __future__ import annotations

from typing import get_args

import pytest

from features.calendar_parts import PARTS
from features.spec import Op
from features.words import CALENDAR, OPERATIONS, duration, encoding, freshness, meaning, missing, type_of
from streams import Event, Frequency, Hashed, Pipeline, Source, compute, ratio


class Payment(Event):
    payment_id: str
    user_id: str
    merchant: str
    amount: float
    ts: int
    country: str | None = None


class Visit(Event):
    user_id: str
    seconds: float
    ts: int


payments = Source("payments", Payment, key="user_id", id="payment_id", time="ts")
visits = Source("visits", Visit, key="user_id", time="ts")
user, pair = payments.by("user_id"), payments.by("user_id", "merchant")


def night(columns: object) -> object:
    return columns["ts"] % 24 < 6  # type: ignore[index]


def above(columns: object) -> object:
    return columns["amount"] > columns["user_id_mean_amount_1h"]  # type: ignore[index]


def test_every_operation_has_its_words() -> None:
    lacking = set(get_args(Op)) - OPERATIONS.keys()
    assert not lacking, f"features/words.py: no words for {', '.join(sorted(lacking))}"


def test_every_part_of_the_calendar_has_its_words() -> None:
    assert CALENDAR.keys() == PARTS.keys()


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (
            user.mean("amount", "1h"),
            "mean of amount over the last hour of payments of the same user_id, before this one",
        ),
        (user.count("24h"), "number of events over the last 24 hours of payments of the same user_id, before this one"),
        (
            pair.sum("amount", "7d"),
            "sum of amount over the last 7 days of payments of the same user_id and merchant, before this one",
        ),
        (
            visits.by("user_id", name="v").max("seconds", "30m"),
            "largest seconds over the last 30 minutes of visits of the same user_id, before this one",
        ),
        (
            user.last("amount", within="30d"),
            "amount of the event before, of payments of the same user_id, if it is no older than 30 days",
        ),
        (
            user.since_last(within="1d"),
            "seconds since the event before, of payments of the same user_id, if it is no older than 24 hours",
        ),
        (
            user.quantile("amount", 0.95, "1h"),
            "0.95 quantile of amount over the last hour of payments of the same user_id, before this one",
        ),
        (
            user.distinct("merchant", "last 5", within="7d"),
            "number of different values of merchant over the 5 latest events of payments of the same user_id, "
            "before this one, as far as no older than 7 days",
        ),
        (
            user.most_frequent("merchant", "forever", values=["a"]),
            "most frequent merchant over all events of payments of the same user_id, before this one, "
            "since there was none for 30 days",
        ),
        (
            user.decayed_count("1h"),
            "number of events, each weighing half as much after every hour, of payments of the same user_id, "
            "before this one, since there was none for 30 hours",
        ),
        (
            user.lag("amount", 3),
            "amount of the 3rd event before, of payments of the same user_id, if it is no older than 30 days",
        ),
        (
            user.count("1h", where="amount > 100 and country in ['DE']"),
            "number of events over the last hour of payments of the same user_id where amount > 100 and "
            "country in ['DE'], before this one",
        ),
        (
            ratio("share", user.sum("amount", "1h"), user.sum("amount", "24h")),
            "sum of amount over the last hour of payments of the same user_id, before this one, divided by: "
            "sum of amount over the last 24 hours of payments of the same user_id, before this one",
        ),
        (
            payments.calendar("weekday", "Europe/Berlin"),
            "day of the week (0 is Monday) at the time of the event of payments, in the time zone Europe/Berlin",
        ),
        (
            compute("above", above, uses=[user.mean("amount", "1h")]),
            "computed from the fields of the event of payments, and from user_id_mean_amount_1h, by the function above",
        ),
        (payments.field("amount"), "amount of the event of payments itself"),
        (payments.category("country", ["DE"]), "country of the event of payments itself"),
        (compute("night", night), "computed from the fields of the event of payments by the function night"),
        (compute("late", lambda c: c["ts"]), "computed from the fields of the event of payments by a function"),
    ],
)
def test_a_feature_is_said_in_words(declared: object, words: str) -> None:
    spec = Pipeline("p", score=payments, learn=[visits], features=[declared], model="m").spec  # type: ignore[list-item]
    assert meaning(spec, spec.features[0]) == words


def test_types_encodings_missing_values_and_freshness_are_said() -> None:
    features = [
        payments.category("country", ["DE", "FR"]),
        payments.category("merchant", Hashed(64)),
        user.count("1h"),
        user.mean("amount", "24h"),
        user.since_last(),
        payments.field("amount"),
    ]
    spec = Pipeline("p", score=payments, features=features, model="m").spec
    listed, hashed, counted, mean, latest, own = spec.features
    assert type_of(listed) == "category: a code from 0 to 2, as float32"
    assert encoding(listed) == "DE=0, FR=1; others=2"
    assert encoding(hashed) == "CRC32 of the text modulo 64"
    assert missing(spec, hashed) == "code 64 to the model, null in the prediction"
    assert type_of(counted) == "number: float32"
    assert (encoding(counted), encoding(own)) == ("", "")
    assert missing(spec, counted) == "0 where there was none"
    assert missing(spec, mean) == "NaN to the model, null in the prediction, where there was no event"
    assert freshness(counted) == "all events that arrived before; old ones leave by panes of 5 minutes"
    assert freshness(mean) == "all events that arrived before; old ones leave by panes of 1 hour"
    assert freshness(latest) == "all events that arrived before"
    assert freshness(own) == "the scored event itself"


def test_what_a_missing_number_becomes_is_said() -> None:
    features = [
        user.mean("amount", "1h"),
        user.rate("1h"),
        payments.field("amount"),
        ratio("share", user.count("1h"), user.count("24h")),
        payments.calendar("hour"),
        payments.category("country", Frequency((("DE", 0.5), ("FR", 0.25)))),
        user.most_frequent("merchant", "1h", values=Hashed(8)),
    ]
    spec = Pipeline("p", score=payments, features=features, model="m", missing="zero").spec
    assert [missing(spec, feature) for feature in spec.features] == [
        "0 to the model and in the prediction, where there was no event",
        "0 where there was none",
        "0 to the model and in the prediction",
        "0 to the model and in the prediction, where one of the two is missing, or the lower one is 0",
        "never",
        "0 to the model, null in the prediction",
        "0 to the model and in the prediction, where there was no event",
    ]
    share, hour, country, frequent = spec.features[3:]
    assert freshness(share) == (
        "all events that arrived before; old ones leave by panes of 5 minutes; "
        "all events that arrived before; old ones leave by panes of 1 hour"
    )
    assert freshness(hour) == "the scored event itself"
    assert type_of(country) == "category: its share, as float32"
    assert encoding(country) == "DE=0.5, FR=0.25; others=0"
    assert type_of(frequent) == "category: a code from 0 to 8, as float32"
    assert encoding(frequent) == "CRC32 of the text modulo 8"


def test_durations_are_said_in_the_largest_unit_that_fits() -> None:
    said = [duration(ms) for ms in (1, 1500, 1000, 300_000, 3_600_000, 86_400_000, 2 * 86_400_000, 90_000)]
    assert said == ["1 millisecond", "1500 milliseconds", "1 second", "5 minutes", "1 hour", "24 hours", "2 days",
                    "90 seconds"]  # fmt: skip
