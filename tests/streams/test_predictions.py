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

from streams.predictions import PredictionEncoder, json_numbers, json_objects, json_texts
from streams.rounds import ScoredRows

# What JSON's own marks could be confused with is likelier here than in plain text.
TEXTS = st.text(st.sampled_from('",\\[]{}:%\n\x00\x1fé😀a')) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=8
)
FLOATS = npst.arrays(np.float32, st.integers(1, 8), elements=st.floats(width=32, allow_nan=True, allow_infinity=True))
NULL = b"null"


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
    nothing, n = [NULL] * len(rows), len(rows)
    return encoder.encode(
        rows,
        logged,
        model=nothing,
        version=nothing,
        arm=nothing,
        deployment=NULL,
        scores=nothing,
        shadows=[b"{}"] * n,
        marks=[b""] * n,
    )


def test_a_scored_record_is_the_documented_one() -> None:
    rows = ScoredRows(["p-1"], [b"u-1"], np.array([5]), np.array([2]), np.array([77]), None)
    (line,) = PredictionEncoder("payments", ["amount", "country", "user_id_mean_amount_1h"]).encode(
        rows,
        {
            "amount": np.array([0.1], np.float32),
            "country": ["at"],
            "user_id_mean_amount_1h": np.array([math.nan], np.float32),
        },
        model=[b'"fraud"'],
        version=[b'"3"'],
        arm=[b'"champion"'],
        deployment=b'"d1"',
        scores=json_numbers(np.array([0.25], np.float32)),
        shadows=json_objects({"4": np.array([0.5], np.float32)}, 1),
        marks=[b""],
    )
    assert json.loads(line) == {
        "id": "p-1",
        "key": "u-1",
        "time": 5,
        "source": {"topic": "payments", "partition": 2, "offset": 77},
        "model": "fraud",
        "version": "3",
        "arm": "champion",
        "deployment": "d1",
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
def test_a_score_of_several_numbers_is_a_list(values: np.ndarray, width: int) -> None:
    matrix = np.repeat(values[:, None], width, axis=1)
    expected = [[None if not math.isfinite(v) else v for v in row] for row in matrix.tolist()]
    found = [json.loads(text) for text in json_numbers(matrix)]
    assert [[None if v is None else np.float32(v) for v in row] for row in found] == expected


def test_columns_of_a_matrix_are_encoded_as_they_stand() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert json_numbers(matrix[:, 1]) == [b"1.0", b"3.0", b"5.0"]
    assert json_numbers(np.asfortranarray(matrix)) == [b"[0.0,1.0]", b"[2.0,3.0]", b"[4.0,5.0]"]


@given(st.lists(TEXTS, max_size=8))
@example(['",', "b"])
@example(['\\",\\', '","'])
@example([""])
def test_texts_are_encoded_one_by_one_as_json(texts: list[str]) -> None:
    assert [json.loads(text) for text in json_texts(texts)] == texts


def test_nothing_is_encoded_as_nothing() -> None:
    assert json_texts([]) == json_numbers(np.empty(0, np.float32)) == json_numbers(np.empty((0, 2), np.float32)) == []
    assert unscored(PredictionEncoder("t", ["x"]), rows_of([]), {"x": np.empty(0, np.float32)}) == []


def test_shadows_are_objects_of_their_versions() -> None:
    columns = {"7": np.array([0.5, math.nan], np.float32), 'a"%b': np.array([[1, 2], [3, 4]], np.float32)}
    assert [json.loads(text) for text in json_objects(columns, 2)] == [
        {"7": 0.5, 'a"%b': [1.0, 2.0]},
        {"7": None, 'a"%b': [3.0, 4.0]},
    ]
    assert json_objects({}, 2) == [b"{}", b"{}"]


@pytest.mark.parametrize("name", ["100%", "%d%b", 'quo"te', "größe", "back\\slash"])
def test_names_are_names_whatever_they_hold(name: str) -> None:
    (line,) = unscored(PredictionEncoder(name, [name]), rows_of(["a"]), {name: np.array([1], np.float32)})
    found = json.loads(line)
    assert (found["source"]["topic"], found["features"]) == (name, {name: 1.0})
