"""A source's rules and a pipeline's, on the stream: dead letters, marks in predictions, scores withheld, counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import pytest

from features.engine import Features
from models import rollout
from models.rollout import Version
from models.scorer import Scores
from monitors.metrics import Metrics
from streams import DeclarationError, Event, Pipeline, Rule, Source
from streams.contract import Marks
from streams.decode import decoder_of
from streams.decoded import Decoded
from streams.lane import Lane, Position
from streams.loading import load_pipeline
from streams.predictions import PredictionEncoder
from streams.rounds import assemble
from streams.tally import Tally
from streams.violations import STRETCH, Violations
from tests.streams.records import NOW, Record, batch


class Payment(Event):
    payment_id: str
    user: str
    ts: int
    amount: float | None = None
    country: str | None = None
    unused: float = 0.0


RULES = [
    Rule("amount", ge=0, on_violation="dead_letter"),
    Rule("amount", le=100),
    Rule("country", among=["at", "de"]),
    Rule("ts", behind="10m", on_violation="dead_letter"),
    Rule("unused", le=5),
]


def source(*rules: Rule) -> Source:
    return Source("payments", Payment, key="user", id="payment_id", time="ts", rules=list(rules))


def pipeline(*rules: Rule, features: Any = None, of_features: Any = ()) -> Pipeline:
    payments = source(*rules)
    declared = features(payments) if features else [payments.field("amount"), payments.by("user").count("1h")]
    return Pipeline("p", score=payments, features=declared, model="m", rules=of_features)


def event(**fields: Any) -> dict[str, Any]:
    return {"payment_id": "p", "user": "u", "ts": NOW, "amount": 1.0, "country": "at"} | fields


def decode(declared: Pipeline, *events: Any) -> Decoded:
    records = [Record(e) for e in events]
    return decoder_of(declared.lead, 0, declared.spec).decode(batch(records, first=10))


def test_records_that_break_a_rule_go_to_the_dead_letters_or_are_marked_as_declared() -> None:
    found = decode(
        pipeline(*RULES),
        event(),
        event(amount=-2.5),
        event(amount=250, country="fr"),
        event(amount=None, country=None),
        event(ts=NOW - 600_001, amount=-1),
        b"no JSON",
        event(unused=7),
    )
    assert found.offsets.tolist() == [10, 12, 13, 16]
    assert found.bits is not None
    assert found.bits.tolist() == [0, 0b110, 0, 0b10000]
    assert found.next_offset == 17
    letters = [(d.offset, d.stage, d.code, d.field) for d in found.dead]
    assert letters == [
        (11, "contract", "ge", "amount"),
        (14, "contract", "ge", "amount"),
        (15, "decode", "malformed", ""),
    ]
    assert found.dead[0].reason == "amount must be at least 0, and is -2.5"
    assert found.dead[1].reason == (
        "amount must be at least 0, and is -1; ts may be 600 s behind its record's timestamp, and is 600 s"
    )
    assert found.dead[0].value == msgspec.json.encode(event(amount=-2.5))


def test_only_what_features_read_goes_on_to_them_whatever_the_rules_look_at() -> None:
    with_rules, without = decode(pipeline(*RULES), event()), decode(pipeline(), event())
    assert with_rules.fields.keys() == without.fields.keys() == {"amount", "user"}
    assert without.bits is None


def test_a_bound_in_the_event_type_itself_is_a_dead_letter_of_decode_that_names_the_field() -> None:
    class Bounded(Event):
        user: str
        amount: Annotated[float, msgspec.Meta(ge=0, le=10)]
        ts: int

    declared = Source("t", Bounded, key="user", time="ts")
    spec = Pipeline("p", score=declared, features=[declared.field("amount")], model="m").spec
    record = Record({"user": "u", "amount": 11, "ts": NOW})
    (letter,) = decoder_of(declared, 0, spec).decode(batch([record])).dead
    assert (letter.stage, letter.code, letter.field) == ("decode", "invalid", "amount")
    assert letter.reason == "Expected `float` <= 10.0"


def test_a_source_with_rules_is_a_value_like_any_other() -> None:
    assert source(*RULES) == source(*RULES)
    assert source(*RULES) in {source(*RULES): 1}
    assert source(*RULES) != source()


def test_rules_of_sources_and_of_features_are_refused_by_name() -> None:
    with pytest.raises(DeclarationError, match=r"source payments: rule amont: payments has no 'amont'; did you mean"):
        source(Rule("amont", ge=0))
    with pytest.raises(DeclarationError, match=r"source payments: rule user: user is never null"):
        source(Rule("user", not_null=True))
    with pytest.raises(DeclarationError, match=r"pipeline p: rule user_count_1h: on_violation='dead_letter' comes too"):
        pipeline(of_features=[Rule("user_count_1h", le=5, on_violation="dead_letter")])
    with pytest.raises(DeclarationError, match=r"pipeline p: rule user_count: pipeline p has no 'user_count'; did"):
        pipeline(of_features=[Rule("user_count", le=5)])
    with pytest.raises(DeclarationError, match=r"pipeline p: rules is a list"):
        pipeline(of_features=Rule("user_count_1h", le=5))


def prediction(bits: list[int], feature_bits: list[int] | None, rules: list[Rule], scores: Scores | None) -> list[Any]:
    declared = pipeline(*RULES, of_features=rules)
    found = decode(declared, *[event()] * len(bits))
    found.bits = np.array(bits)
    lane = Lane(0, [10], [Position(10)], 1)
    lane.add(found)
    take = lane.take()
    assert take is not None
    rows = assemble([take], 1).rows
    marks = Marks(declared.lead.conditions, declared.rules).of_rows(
        rows.bits, None if feature_bits is None else np.array(feature_bits), len(rows)
    )
    encoder = PredictionEncoder("payments", declared.spec.names)
    logged = {"amount": np.ones(len(rows), np.float32), "user_count_1h": np.ones(len(rows), np.float32)}
    deployment = rollout.promote(rollout.unscored("m"), Version("m", "1", "file:///x", "0" * 64, "s"))
    lines = encoder.of_round(rows, logged, scores, deployment, marks)
    return [json.loads(line) for line in lines]


def test_a_prediction_names_the_rules_that_its_event_and_its_features_break_and_else_nothing() -> None:
    rules = [Rule("user_count_1h", le=5, on_violation="withhold"), Rule("amount", lt=3)]
    clean, flagged, both = prediction([0, 0b110, 0b010], [0, 0, 0b11], rules, None)
    assert "violations" not in clean
    assert flagged["violations"] == ["amount:le", "country:among"]
    assert both["violations"] == ["amount:le", "user_count_1h:le", "amount:lt"]
    assert all("violations" not in p for p in prediction([0, 0], None, [], None))


def test_a_score_that_is_withheld_is_null_and_is_counted_apart_from_those_that_are_not_finite() -> None:
    score = np.array([0.25, np.nan, 0.5, 0.75], np.float32)
    scores = Scores(score, (("champion", "1"),), np.zeros(4, np.uint8), invalid=1).without(np.array([2]))
    assert score[2] == 0.5  # who holds the first one is not surprised
    found = prediction([0] * 4, None, [], scores)
    assert [p["score"] for p in found] == [0.25, None, None, 0.75]
    assert [p["version"] for p in found] == ["1", None, None, "1"]
    metrics = Metrics()
    lane = Lane(0, [10], [Position(10)], 1)
    lane.add(decode(pipeline(), *[event()] * 4))
    take = lane.take()
    assert take is not None
    deployment = rollout.promote(rollout.unscored("m"), Version("m", "1", "file:///x", "0" * 64, "s"))
    nothing = Features(np.empty((0, 1), np.float32), {}, np.empty((0, 0)), {}, {})
    Tally(metrics, ["payments"]).round(assemble([take], 1), nothing, scores, deployment)
    assert metrics.value("weir_unscored_total", reason="contract") == 1
    assert metrics.value("weir_unscored_total", reason="non_finite") == 1
    assert metrics.value("weir_nonfinite_scores_total", version="1") == 1
    assert metrics.value("weir_predictions_total", model="m", version="1", arm="champion") == 2


def test_what_is_replayed_is_not_counted_again() -> None:
    declared = pipeline(*RULES)
    metrics = Metrics()
    violations = Violations(metrics, ["payments"], [declared.lead.conditions], ())
    tally = Tally(metrics, ["payments"], violations)
    lane = Lane(0, [10], [Position(12)], 1)
    lane.add(decode(declared, event(amount=500), event(amount=-1), event(amount=600), event(amount=-1), event()))
    for _ in range(2):
        take = lane.take()
        assert take is not None
        work = assemble([take.replay() or take], 1)
        lane.drop(work.takes[0])
        tally.acknowledged(work)
    labels = {"source": "payments", "field": "amount"}
    assert metrics.value("weir_contract_violations_total", **labels, rule="le", action="flagged") == 1
    assert metrics.value("weir_contract_violations_total", **labels, rule="ge", action="dead_letter") == 1
    assert metrics.value("weir_dead_letters_total", source="payments", stage="contract", reason="ge") == 1


def test_a_share_of_nulls_is_taken_over_stretches_and_is_no_records_fault() -> None:
    declared = pipeline(Rule("amount", nulls=0.25))
    metrics = Metrics()
    violations = Violations(metrics, ["payments"], [declared.lead.conditions], ())

    def work_off(nulls: int, records: int) -> float:
        found = decode(declared, *[event(amount=None)] * nulls, *[event()] * (records - nulls))
        assert not found.dead
        violations.worked_off([[found]])
        return metrics.total("weir_contract_violations_total")

    assert work_off(STRETCH // 2, STRETCH - 1) == 0
    assert work_off(1, 1) == 1
    assert metrics.value("weir_contract_null_ratio", source="payments", field="amount") == 0.501
    assert work_off(STRETCH // 4, STRETCH) == 1
    assert metrics.value("weir_contract_null_ratio", source="payments", field="amount") == 0.25


def test_a_silence_is_counted_once_and_only_while_there_is_nothing_to_read() -> None:
    declared = pipeline(Rule("ts", silence="1m"))
    metrics = Metrics()
    violations = Violations(metrics, ["payments"], [declared.lead.conditions], ())
    for now_s, listening, expected in [
        (0, True, 0), (60, True, 0), (61, True, 1), (500, True, 1), (501, False, 1), (561, True, 1), (562, True, 2),
        (900, True, 2),
    ]:  # fmt: skip
        violations.look(now_s, listening=listening)
        assert metrics.total("weir_contract_violations_total") == expected, now_s
    violations.worked_off([[decode(declared, event())]])
    violations.look(700, listening=True)
    assert metrics.value("weir_contract_silence_seconds", source="payments") == 0
    violations.look(761, listening=True)
    assert metrics.total("weir_contract_violations_total") == 3


YAML = """
pipeline: p
model: m
score: payments
sources:
  payments:
    event: {payment_id: str, user: str, amount: float | None, country: str | None, ts: int}
    key: user
    id: payment_id
    time: ts
    rules:
      - {of: amount, ge: 0, on_violation: dead_letter}
      - {of: country, among: ["NO", DE]}
      - {of: ts, behind: 10m, silence: 1h}
features:
  - field: amount
rules:
  - {of: amount, le: 100, nulls: 0.5}
"""


def test_a_yaml_file_declares_the_same_rules(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(YAML)
    loaded = load_pipeline(str(path))
    in_python = source(
        Rule("amount", ge=0, on_violation="dead_letter"),
        Rule("country", among=["NO", "DE"]),
        Rule("ts", behind="10m", silence="1h"),
    )
    assert loaded.lead.conditions == in_python.conditions
    assert [(c.of, c.name, c.limit) for c in loaded.rules] == [("amount", "le", 100), ("amount", "nulls", 0.5)]
    path.write_text(YAML.replace("of: country", "of: contry"))
    with pytest.raises(DeclarationError, match=r"sources.payments: source payments: rule contry: .* did you mean"):
        load_pipeline(str(path))
    path.write_text(YAML.replace("ge: 0", "least: 0"))
    with pytest.raises(DeclarationError, match=r"sources.payments.rules\[0\]: unknown 'least'"):
        load_pipeline(str(path))
