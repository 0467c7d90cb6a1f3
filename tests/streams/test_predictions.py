"""The prediction record: whatever the event holds, the line parses to exactly what went in."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from models import rollout
from models.rollout import Deployment, Version, promote
from models.scorer import Scores
from streams.predictions import DEGRADED, PredictionEncoder
from streams.rounds import ScoredRows

# What JSON's own marks could be confused with is likelier here than in plain text.
TEXTS = st.text(st.sampled_from('",\\[]{}:%\n\x00\x1fé😀a')) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=8
)
FLOATS = npst.arrays(np.float32, st.integers(1, 8), elements=st.floats(width=32, allow_nan=True, allow_infinity=True))


def rows_of(ids: Sequence[str], keys: Sequence[bytes | None] | None = None) -> ScoredRows:
    n = len(ids)
    return ScoredRows(
        ids=list(ids),
        keys=list(keys) if keys is not None else [b"k"] * n,
        times=np.arange(n) + 1_760_000_000_000,
        partitions=np.arange(n) % 3,
        offsets=np.arange(n) + 2**40,
        headers=None,
    )


def unscored(encoder: PredictionEncoder, rows: ScoredRows, logged: dict[str, Any]) -> list[bytes]:
    return encoder.of_round(rows, logged, None, None)


def deployed(version: str = "3") -> Deployment:
    return promote(rollout.unscored("fraud"), Version("fraud", version, "file:///m.onnx", "0" * 64, "spec"))


def scored(score: np.ndarray, **more: Any) -> Scores:
    return Scores(score, (("champion", "3"),), np.zeros(len(score), np.uint8), **more)


def test_a_scored_record_is_the_documented_one() -> None:
    rows = ScoredRows(["p-1"], [b"u-1"], np.array([5]), np.array([2]), np.array([77]), None)
    encoder, deployment = PredictionEncoder("payments", ["amount", "country", "user_id_mean_amount_1h"]), deployed()
    logged: dict[str, Any] = {
        "amount": np.array([0.1], np.float32),
        "country": ["at"],
        "user_id_mean_amount_1h": np.array([math.nan], np.float32),
    }
    scores = scored(np.array([0.25], np.float32), shadows={"4": np.array([0.5], np.float32)})
    (line,) = encoder.of_round(rows, logged, scores, deployment)
    assert json.loads(line) == {
        "id": "p-1",
        "key": "u-1",
        "time": 5,
        "source": {"topic": "payments", "partition": 2, "offset": 77},
        "model": "fraud",
        "version": "3",
        "arm": "champion",
        "deployment": deployment.id,
        "score": 0.25,
        "shadows": {"4": 0.5},
        "features": {"amount": 0.1, "country": "at", "user_id_mean_amount_1h": None},
    }
    assert list(json.loads(line)) == [
        "id",
        "key",
        "time",
        "source",
        "model",
        "version",
        "arm",
        "deployment",
        "score",
        "shadows",
        "features",
    ]


@given(st.lists(st.tuples(TEXTS, st.none() | TEXTS, st.none() | TEXTS), min_size=1, max_size=6))
@example([('",', "k", "a"), ("b", '","', '\\",')])
def test_ids_keys_and_categories_come_back_as_they_were(events: list[tuple[str, str | None, str | None]]) -> None:
    ids, keys, categories = zip(*events, strict=True)
    rows = rows_of(ids, [None if k is None else k.encode() for k in keys])
    lines = unscored(PredictionEncoder("t", ["c"]), rows, {"c": list(categories)})
    found = [msgspec.json.decode(line) for line in lines]
    assert [(f["id"], f["key"], f["features"]["c"]) for f in found] == events
    assert [f["source"] for f in found] == [
        {"topic": "t", "partition": i % 3, "offset": 2**40 + i} for i in range(len(events))
    ]
    assert [f["time"] for f in found] == rows.times.tolist()
    assert {(f["model"], f["version"], f["arm"], f["deployment"], f["score"]) for f in found} == {(None,) * 5}
    assert all(f["shadows"] == {} for f in found)


def test_a_key_that_is_no_text_keeps_the_record_readable() -> None:
    (line,) = unscored(PredictionEncoder("t", []), rows_of(["a"], [b"\xff\x00k"]), {})
    assert json.loads(line)["key"] == "�\x00k"


@given(FLOATS)
def test_float32_values_come_back_bit_for_bit_and_null_where_they_are_no_numbers(values: np.ndarray) -> None:
    lines = unscored(PredictionEncoder("t", ["x"]), rows_of([str(i) for i in range(len(values))]), {"x": values})
    for value, line in zip(values, lines, strict=True):
        found = json.loads(line)["features"]["x"]
        if np.isfinite(value):
            assert np.float32(found).tobytes() == value.tobytes()
        else:
            assert found is None


@given(FLOATS, st.integers(1, 3))
def test_a_score_of_several_numbers_is_a_list_and_null_where_one_is_no_number(values: np.ndarray, width: int) -> None:
    matrix, n = np.repeat(values[:, None], width, axis=1), len(values)
    wrong = ~np.isfinite(matrix)
    finite = np.where(wrong, np.float32(np.nan), matrix)
    scores = scored(finite, shadows={"4": finite, "5": finite[:, 0]}, invalid=int(wrong.any(axis=1).sum()))
    found = [
        json.loads(line)
        for line in PredictionEncoder("t", []).of_round(rows_of(["a"] * n), {}, scores, deployed())
    ]
    for row, value in zip(found, values, strict=True):
        single = float(value) if np.isfinite(value) else None
        as_float32 = [None if v is None else np.float32(v) for v in row["shadows"]["4"]]
        assert as_float32 == [None if single is None else value] * width
        assert (row["shadows"]["5"] is None) == (single is None)
        if single is None:
            assert (row["score"], row["model"], row["version"], row["arm"]) == (None,) * 4
        else:
            assert [np.float32(v) for v in row["score"]] == [value] * width
            assert (row["model"], row["version"], row["arm"]) == ("fraud", "3", "champion")


@given(st.lists(st.booleans(), min_size=1, max_size=8))
def test_each_row_names_its_arm(tried: list[bool]) -> None:
    n = len(tried)
    scores = Scores(np.arange(n, dtype=np.float32), (("champion", "3"), ("canary", "4")), np.array(tried, np.uint8))
    found = [
        json.loads(line)
        for line in PredictionEncoder("t", []).of_round(rows_of(["a"] * n), {}, scores, deployed())
    ]
    assert [(f["arm"], f["version"]) for f in found] == [("canary", "4") if t else ("champion", "3") for t in tried]
    assert [f["score"] for f in found] == list(range(n))


def test_shadows_score_where_no_champion_does() -> None:
    scores = Scores(None, (), np.zeros(1, np.uint8), {'a"%b': np.array([1], np.float32)})
    (line,) = PredictionEncoder("t", []).of_round(rows_of(["a"]), {}, scores, deployed())
    assert (json.loads(line)["score"], json.loads(line)["shadows"]) == (None, {'a"%b': 1.0})


def test_a_mark_stands_behind_the_features_of_its_own_row() -> None:
    found = PredictionEncoder("t", []).of_round(rows_of(["a", "b"]), {}, None, None, [b"", DEGRADED])
    assert [json.loads(line).get("degraded") for line in found] == [None, "store"]


def test_numbers_and_categories_stand_in_the_order_of_the_features() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(3, 2)
    logged: dict[str, Any] = {"x": matrix[:, 0], "c": ["a", None, '"]'], "y": matrix[:, 1]}
    found = PredictionEncoder("t", ["y", "c", "x"]).of_round(rows_of(["1", "2", "3"]), logged, None, None)
    assert [json.loads(line)["features"] for line in found] == [
        {"y": 1.0, "c": "a", "x": 0.0},
        {"y": 3.0, "c": None, "x": 2.0},
        {"y": 5.0, "c": '"]', "x": 4.0},
    ]


def test_nothing_is_encoded_as_nothing() -> None:
    assert unscored(PredictionEncoder("t", ["x"]), rows_of([]), {"x": np.empty(0, np.float32)}) == []


@pytest.mark.parametrize("name", ["100%", "%d%b", 'quo"te', "größe", "back\\slash"])
def test_names_are_names_whatever_they_hold(name: str) -> None:
    (line,) = unscored(PredictionEncoder(name, [name]), rows_of(["a"]), {name: np.array([1], np.float32)})
    found = json.loads(line)
    assert (found["source"]["topic"], found["features"]) == (name, {name: 1.0})
