"""The YAML form of a declaration: the same objects, and errors that say where in the file they lie."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from examples.payments.pipeline import pipeline as payments_in_python
from features.windows import Window, WindowError
from streams import Blocks, Retrain, Rollout, Watch
from streams.errors import UsageError
from streams.loading import load_pipeline
from streams.pipeline import Pipeline

ROOT = Path(__file__).parents[2]
WHOLE = """\
pipeline: flights
model: flights-delay
output: probability
score: requests
learn: [arrivals]

sources:
  requests:
    event: {id: str, origin: str, carrier: str | None, hour: int, temp: float | None, time: int}
    key: origin
    id: id
    time: time
    partitioner: murmur2
    max_skew: 10m
  arrivals:
    event: {id: str, origin: str, arr_delay: float, late: bool, time: int}
    key: origin
    time: time
    partitioner: murmur2

features:
  - field: temp
    name: temperature
  - category: carrier
    values: [AA, UA]
  - category: origin
    buckets: 16
  - compute: night
    function: rules:night
  - by: origin
    source: arrivals
    name: landed
    count: 1h
    mean: {arr_delay: [1h, 7d]}
    min: {arr_delay: 3h}
    last: {arr_delay: 2d}
    since_last: 30d

labels:
  topic: arrivals
  id: id
  value: rules:is_late
  within: 3d

retrain: rules:train
"""
RULES = """\
def night(c): return c["hour"] < 6
def is_late(c): return c["arr_delay"] > 15
def train(dataset, out, seed): ...
"""


def window_error(text: str) -> str:
    """What `features.windows` says of a window that cannot be."""
    with pytest.raises(WindowError) as caught:
        Window.parse(text)
    return str(caught.value)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "rules", raising=False)
    Path("rules.py").write_text(RULES)


def load(text: str) -> Pipeline:
    Path("p.yaml").write_text(text)
    return load_pipeline("p.yaml")


def test_labels_of_a_sources_topic_have_its_codec() -> None:
    avro = WHOLE.replace("murmur2\n\nfeatures", "murmur2\n    codec: avro\n\nfeatures")
    assert load(avro).labels.codec == "avro"  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="arrivals is a source with codec='avro'; give the labels the same"):
        load(avro.replace("  within: 3d\n", "  within: 3d\n  codec: json\n"))


def test_the_payments_example_is_the_same_in_both_forms() -> None:
    in_yaml = load_pipeline(str(ROOT / "examples/payments/pipeline.yaml"))
    assert in_yaml.spec == payments_in_python.spec
    assert in_yaml.spec.hash == payments_in_python.spec.hash
    assert in_yaml.topics == payments_in_python.topics


def test_everything_that_python_can_declare_can_be_written_in_yaml() -> None:
    pipeline = load(WHOLE)
    assert pipeline.spec.names == (
        "temperature",
        "carrier",
        "origin",
        "night",
        "landed_count_1h",
        "landed_mean_arr_delay_1h",
        "landed_mean_arr_delay_7d",
        "landed_min_arr_delay_3h",
        "landed_last_arr_delay",
        "landed_since_last",
    )
    assert [source.topic for source in pipeline.sources] == ["requests", "arrivals"]
    assert (pipeline.lead.partitioner, pipeline.lead.max_skew_ms) == ("murmur2", 600_000)
    assert {field.name for field in pipeline.lead.stream.fields if field.nullable} == {"carrier", "temp"}
    assert pipeline.labels is not None
    assert callable(pipeline.labels.value)
    assert pipeline.retrain is not None
    assert (pipeline.output, pipeline.retrain.function) == ("probability", "rules:train")


def test_a_field_that_may_be_null_may_also_be_absent() -> None:
    event = load(WHOLE).lead.event
    found = msgspec.json.decode(b'{"id":"a","origin":"JFK","hour":1,"temp":null,"time":5}', type=event)
    assert msgspec.to_builtins(found)["carrier"] is None


LOOP = """\
blocks: {every: 6h}
drift:
  - signals: [score, feature.temperature]
    detector: psi
    confirm: 2
  - signals: loss
retrain:
  function: rules:train
  on: [loss, feature.*]
  min_labels: 50
  cooldown: 14d
  max_age: 60d
rollout: {rows: 100, margin: 0.01, keep_first: true}
"""


def test_the_loop_is_the_same_in_both_forms() -> None:
    pipeline = load(WHOLE.replace("retrain: rules:train\n", LOOP))
    assert pipeline.blocks == Blocks("6h")
    assert pipeline.drift == (Watch("score", "feature.temperature", detector="psi", confirm=2), Watch("loss"))
    assert pipeline.retrain == Retrain(
        "rules:train", on=["loss", "feature.*"], min_labels=50, cooldown="14d", max_age="60d"
    )
    assert pipeline.rollout == Rollout(100, margin=0.01, keep_first=True)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("blocks: {every: 6h}", "blocks: 6h", "blocks: write a mapping (name: value)"),
        ("every: 6h", "evry: 6h", "blocks: unknown 'evry'; did you mean 'every'?"),
        ("cooldown: 14d", "cooldwn: 14d", "retrain: unknown 'cooldwn'; did you mean 'cooldown'?"),
        ("min_labels: 50", "min_labels: many", "retrain: min_labels is a whole number from 1 on, not 'many'"),
        (
            "on: [loss, feature.*]",
            "on: loss",
            'retrain: on is a list of signals: on=["loss", "feature.*"], not \'loss\'',
        ),
        ("on: [loss,", "on: [los,", "retrain: on: no signal is called 'los'; did you mean 'loss'?"),
        ("margin: 0.01", "margin: none", "rollout: margin is a number from 0 to 1, not 'none'"),
        ("signals: loss", "signal: loss", "drift[1]: signals is missing"),
        ("signals: loss", "signals: [loss, 3]", "drift[1].signals[1]: 3 is not a text; write it in quotes"),
        (
            "    confirm: 2",
            "    confirm: 0",
            "drift[0]: watch score, feature.temperature: confirm=0: give a whole number from 1 on",
        ),
        (
            "feature.temperature",
            "feature.temp",
            "drift: watch score, feature.temp: signals='feature.temp': did you mean 'feature.temperature'?",
        ),
    ],
)
def test_a_mistake_in_the_loop_is_named_with_its_place(old: str, new: str, expected: str) -> None:
    assert LOOP.count(old) == 1
    with pytest.raises(UsageError) as caught:
        load(WHOLE.replace("retrain: rules:train\n", LOOP.replace(old, new)))
    assert str(caught.value) == f"p.yaml: {expected}"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("model: flights-delay\n", "", "model is missing"),
        ("retrain:", "retrian:", "unknown 'retrian'; did you mean 'retrain'?"),
        (
            "score: requests",
            "score: request",
            "score: 'request' is not among the sources; did you mean 'requests'?",
        ),
        ("learn: [arrivals]", "learn: arrivals", "learn: write a list ([a, b])"),
        (
            "hour: int",
            "hour: integer",
            "sources.requests.event.hour: 'integer' is not a type; "
            "write int, float, bool or str, with | None where null may come",
        ),
        (
            "key: origin\n    id",
            "kee: origin\n    id",
            "sources.requests: unknown 'kee'; did you mean 'key'?",
        ),
        ("max_skew: 10m", "max_skew: 10", "sources.requests.max_skew: 10 is not a text; write it in quotes"),
        (
            "values: [AA, UA]",
            "values: [AA, NO]",
            "features[1].values[1]: False is not a text; write it in quotes",
        ),
        (
            "    values: [AA, UA]\n",
            "",
            "features[1]: give one of values: [..], buckets: n or frequencies: {text: share}",
        ),
        (
            "field: temp\n",
            "field: tmp\n",
            "features[0]: feature temperature: requests has no field 'tmp'; did you mean 'temp'?",
        ),
        (
            "field: temp\n",
            "fild: temp\n",
            "features[0]: a feature begins with one of field, category, calendar, compute, ratio, by",
        ),
        (
            "[1h, 7d]",
            "[1h, 61m]",
            f"features[4].mean.arr_delay: feature landed_mean_arr_delay_61m: {window_error('61m')}",
        ),
        (
            "mean: {arr_delay:",
            "mean: {arr_dely:",
            "features[4].mean.arr_dely: feature landed_mean_arr_dely_1h: "
            "arrivals has no field 'arr_dely'; did you mean 'arr_delay'?",
        ),
        (
            "by: origin",
            "by: late",
            "features[4].by: entity landed: late of arrivals must be a str or an int to group by",
        ),
        (
            "source: arrivals",
            "source: arrival",
            "features[4].source: 'arrival' is not among the sources; did you mean 'arrivals'?",
        ),
        ("rules:night", "rules:nigth", "features[3].function: rules has no 'nigth'; did you mean 'night'?"),
        (
            "rules:is_late",
            "lateness",
            "labels: value='lateness': Arrivals has no field 'lateness'; did you mean 'late'?",
        ),
        (
            "topic: arrivals",
            "topic: landings",
            "labels: landings is none of the sources; describe its event: labels.event",
        ),
        (
            "learn: [arrivals]\n",
            "",
            "feature landed_count_1h: its source arrivals is not in the pipeline; add it to learn=[…]",
        ),
    ],
)
def test_an_error_names_the_file_the_path_in_it_and_the_mend(old: str, new: str, expected: str) -> None:
    assert old in WHOLE
    with pytest.raises(UsageError) as caught:
        load(WHOLE.replace(old, new, 1))
    assert str(caught.value) == f"p.yaml: {expected}"


def test_a_key_written_twice_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^p\.yaml:3: 'model' is written twice$"):
        load(WHOLE.replace("model: flights-delay\n", "model: a\nmodel: b\n"))


def test_a_file_that_is_not_yaml_is_refused_with_its_line() -> None:
    with pytest.raises(UsageError, match=r"^p\.yaml:3: expected ',' or '\]'"):
        load("pipeline: x\nmodel: [a\n")


def test_a_file_that_is_empty_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^p\.yaml: write a mapping \(name: value\)$"):
        load("")
