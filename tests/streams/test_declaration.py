"""A pipeline that can be: what the declaration makes of it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
import pytest

from features.spec import Aggregate, Category, Computed, Field, Hashed, Value, Vocabulary
from features.windows import HOUR_MS, Window
from models.promotion import Rules
from monitors.policy import Policy, matches
from monitors.watch import DEFAULT_WATCHES
from streams import Blocks, Event, Labels, Pipeline, Retrain, Rollout, Source, Watch, compute
from streams.event import event_fields


class Request(Event):
    id: str
    origin: str
    carrier: str
    hour: int
    temp: float | None
    time: int


class Arrival(Event):
    id: str
    origin: str
    carrier: str
    arr_delay: float
    time: int


requests = Source("flights.requests", Request, key="origin", id="id", time="time")
arrivals = Source("flights.arrivals", Arrival, key="origin", id="id", time="time", max_skew="10m")


def test_fields_of_an_event_become_columns_of_numbers_and_texts() -> None:
    class Every(Event):
        whole: int
        real: float
        flag: bool
        text: str
        choice: Literal["a", "b"]
        maybe: float | None
        absent: str | None = None

    assert event_fields(Every) == (
        Field("whole", "number"),
        Field("real", "number"),
        Field("flag", "number"),
        Field("text", "string"),
        Field("choice", "string"),
        Field("maybe", "number", nullable=True),
        Field("absent", "string", nullable=True),
    )


def test_events_are_strict_in_their_types_and_ignore_unknown_fields() -> None:
    decoder = msgspec.json.Decoder(Arrival)
    good = b'{"id":"a","origin":"JFK","carrier":"AA","arr_delay":3,"time":1,"gate":"B7"}'
    assert decoder.decode(good) == Arrival("a", "JFK", "AA", 3.0, 1)
    with pytest.raises(msgspec.ValidationError, match=r"Expected `float`, got `str` - at `\$.arr_delay`"):
        decoder.decode(good.replace(b":3,", b':"3",'))


def test_features_are_named_after_entity_operation_field_and_window() -> None:
    airport, airline = arrivals.by("origin"), arrivals.by("origin", "carrier")
    pipeline = Pipeline(
        "flights",
        score=requests,
        learn=[arrivals],
        features=[
            requests.field("temp"),
            requests.category("carrier", ["AA", "UA"]),
            airport.count("1h", "3h"),
            [airport.sum("arr_delay", "1h"), airport.min("arr_delay", "1h"), airport.max("arr_delay", "1h")],
            airline.mean("arr_delay", "7d"),
            airline.last("arr_delay"),
            airline.since_last(within="2d"),
            compute("night", lambda c: c["hour"] < 6),
        ],
        model="late",
    )
    assert pipeline.spec.names == (
        "temp",
        "carrier",
        "origin_count_1h",
        "origin_count_3h",
        "origin_sum_arr_delay_1h",
        "origin_min_arr_delay_1h",
        "origin_max_arr_delay_1h",
        "origin_carrier_mean_arr_delay_7d",
        "origin_carrier_last_arr_delay",
        "origin_carrier_since_last",
        "night",
    )


def test_an_aggregate_knows_its_stream_its_entity_and_its_window() -> None:
    features: list[Any] = [
        arrivals.by("origin").mean("arr_delay", "3h"),
        requests.by("origin").since_last(within="2h"),
    ]
    spec = Pipeline("p", score=requests, learn=[arrivals], features=features, model="m").spec
    assert spec.features == (
        Aggregate("origin_mean_arr_delay_3h", 1, ("origin",), "mean", "arr_delay", Window.parse("3h")),
        Aggregate("origin_since_last", 0, ("origin",), "since_last", within_ms=2 * HOUR_MS),
    )
    assert [stream.name for stream in spec.streams] == ["flights.requests", "flights.arrivals"]


def test_sources_stand_in_the_order_of_their_declaration_with_the_scored_one_first() -> None:
    pipeline = Pipeline("p", score=requests, learn=[arrivals], features=[requests.field("hour")], model="m")
    assert pipeline.sources == (requests, arrivals)
    assert pipeline.lead is requests


def test_categories_take_a_list_a_vocabulary_or_hashes() -> None:
    def encoding(declared: object) -> object:
        pipeline = Pipeline("p", score=requests, features=[declared], model="m")  # type: ignore[list-item]
        feature = pipeline.spec.features[0]
        assert isinstance(feature, Category)
        return feature.encoding

    assert encoding(requests.category("carrier", ["AA", "UA"])) == Vocabulary(("AA", "UA"))
    assert encoding(requests.category("carrier", Vocabulary(("AA",)))) == Vocabulary(("AA",))
    assert encoding(requests.category("carrier", Hashed(16))) == Hashed(16)


def test_a_name_renames_a_feature_and_an_entitys_name_all_of_its_features() -> None:
    features: list[Any] = [
        requests.by("origin").count("1h"),
        arrivals.by("origin", name="landed").count("1h"),
        requests.field("temp", name="temperature"),
        arrivals.by("origin").last("arr_delay", name="delay_before"),
    ]
    spec = Pipeline("p", score=requests, learn=[arrivals], features=features, model="m").spec
    assert spec.names == ("origin_count_1h", "landed_count_1h", "temperature", "delay_before")
    assert [type(feature) for feature in spec.features] == [Aggregate, Aggregate, Value, Aggregate]


def test_topics_are_named_after_the_pipeline() -> None:
    topics = Pipeline("fraud", score=requests, features=[requests.field("hour")], model="m").topics
    assert vars(topics) == {
        "predictions": "fraud.predictions",
        "dead_letters": "fraud.dead-letters",
        "blocks": "fraud.blocks",
        "drift": "fraud.drift",
        "retrain": "fraud.retrain",
        "deployments": "fraud.deployments",
        "alerts": "fraud.alerts",
    }


def test_a_computed_feature_sees_the_scored_events_columns() -> None:
    feature = compute("night", lambda c: c["hour"] < 6)
    spec = Pipeline("p", score=requests, features=[feature], model="m").spec
    assert isinstance(spec.features[0], Computed)
    assert spec.features[0].function({"hour": np.array([3.0, 12.0])}).tolist() == [True, False]


def test_a_computed_feature_may_fail_on_made_up_values() -> None:
    def parse(columns: dict[str, list[str]]) -> list[int]:
        return [int(text) for text in columns["carrier"]]  # "?" is no number

    pipeline = Pipeline("p", score=requests, features=[compute("number", parse)], model="m")  # type: ignore[arg-type]
    assert pipeline.spec.names == ("number",)


def test_labels_come_from_a_field_or_from_a_function_of_the_columns() -> None:
    columns = {"arr_delay": np.array([20.0, np.nan, -5.0])}
    by_field = Labels("flights.arrivals", Arrival, id="id", value="arr_delay", within="3d")
    by_function = Labels("flights.arrivals", Arrival, id="id", value=lambda c: c["arr_delay"] > 15, time="time")
    np.testing.assert_array_equal(by_field.values(columns), columns["arr_delay"])
    assert by_function.values(columns).tolist() == [1.0, 0.0, 0.0]
    assert by_field.within_ms == 72 * HOUR_MS


def test_durations_of_a_source_are_milliseconds() -> None:
    assert requests.max_skew_ms == HOUR_MS
    assert arrivals.max_skew_ms == 600_000


def test_a_pipeline_keeps_what_was_said_of_its_model() -> None:
    retrain = Retrain("examples.train:train")
    labels = Labels("flights.arrivals", Arrival, id="id", value="arr_delay")
    pipeline = Pipeline(
        "p",
        score=requests,
        features=[requests.field("hour")],
        model="m",
        labels=labels,
        retrain=retrain,
        output="prob",
    )
    assert (pipeline.model, pipeline.labels, pipeline.retrain, pipeline.output) == (
        "m",
        labels,
        retrain,
        "prob",
    )
    assert repr(pipeline) == "Pipeline('p', sources=[flights.requests], features=1, model='m')"


def test_the_same_declaration_has_the_same_hash_and_another_one_another() -> None:
    def spec_hash(*windows: str) -> str:
        features = [requests.by("origin").count(*windows)]
        return Pipeline("p", score=requests, features=features, model="m").spec.hash

    assert spec_hash("1h") == spec_hash("1h") != spec_hash("1h", "3h")


def whole(**declared: Any) -> Pipeline:
    labels = Labels("flights.arrivals", Arrival, id="id", value="arr_delay")
    return Pipeline("p", score=requests, features=[requests.field("hour")], model="m", labels=labels, **declared)


def test_a_loop_left_out_has_daily_blocks_the_default_watches_and_no_retraining() -> None:
    pipeline = whole()
    assert (pipeline.blocks.length_ms, pipeline.blocks.events) == (24 * HOUR_MS, None)
    assert pipeline.drift == tuple(DEFAULT_WATCHES)
    assert (pipeline.retrain, pipeline.rollout) == (None, None)


def test_who_retrains_rolls_out_by_default() -> None:
    assert whole(retrain=Retrain()).rollout == Rollout()
    assert whole(retrain=Retrain(), rollout=Rollout(500)).rollout == Rollout(rows=500)
    assert whole(rollout=Rollout()).retrain is None  # by hand, with the guard


def test_a_loop_is_kept_as_it_was_declared() -> None:
    watches = [Watch("score", "feature.hour", detector="psi"), Watch("loss")]
    retrain = Retrain(
        "m:f", on=["loss", "feature.*"], min_labels=20, cooldown="14d", max_age="60d", every="30d", budget=2, seed=1
    )
    rollout = Rollout(100, guard_rows=300, margin=0.001, confidence=0.9, latency="20ms", keep_first=True)
    pipeline = whole(blocks=Blocks(every=5000), drift=watches, retrain=retrain, rollout=rollout)
    assert (pipeline.blocks.length_ms, pipeline.blocks.events) == (None, 5000)
    assert (pipeline.drift, pipeline.retrain, pipeline.rollout) == (tuple(watches), retrain, rollout)
    day = 24 * HOUR_MS
    assert retrain.policy == Policy(("loss", "feature.*"), 20, 14 * day, 60 * day, 30 * day, 2)
    assert Retrain(cooldown=None).policy.cooldown_ms == 0
    assert rollout.rules == Rules(100, 400, 300, margin=0.001, confidence=0.9)
    assert (rollout.gate.margin, rollout.gate.confidence, rollout.gate.latency_s) == (0.001, 0.9, 0.02)
    assert whole(drift=[]).drift == ()


def test_the_retrain_policy_by_default_counts_no_drift_of_missing_values() -> None:
    policy = Retrain().policy
    told = [
        s for s in ("loss", "errors", "score", "label", "feature.x", "null.x") if any(matches(p, s) for p in policy.on)
    ]
    assert told == ["loss", "errors", "score", "label", "feature.x"]
