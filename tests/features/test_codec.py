"""Packed rows and key texts."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.codec import (
    CodecError,
    components_of,
    entity_key,
    entity_keys,
    pack,
    unpack,
    unpack_states,
    vector_of,
)

COMPONENTS = st.one_of(st.none(), st.text("ab\\u\x1f", max_size=4), st.integers(-3, 3).map(float))


NOTHING = np.array([0, -1, np.float64(np.nan).view(np.int64)], dtype=np.int64)
"""A template: a count, a time that is not known, a value that is missing."""


@given(
    st.lists(st.text(max_size=5), max_size=5),
    st.integers(0, 2**64 - 1),
    st.integers(0, 3),
    st.integers(0, 20),
    st.data(),
)
def test_what_was_packed_unpacks(
    keys: list[str], incarnation: int, streams: int, width: int, data: st.DataObject
) -> None:
    offsets = st.lists(st.integers(0, 2**63 - 1), min_size=streams, max_size=streams)
    vectors = np.array([data.draw(offsets) for _ in keys], dtype=np.int64).reshape(len(keys), streams)
    template = np.resize(NOTHING, width)
    seen = st.lists(st.booleans(), min_size=width, max_size=width)
    some = np.array([data.draw(seen) for _ in keys], dtype=np.bool_).reshape(len(keys), width)
    drawn = np.random.default_rng(0).integers(-(2**63), 2**63, (len(keys), width))  # any bits: -0.0, NaN, integers
    rows = np.where(some, drawn, template).view(np.float64)
    packed = pack(incarnation, vectors, rows, keys, template=template)
    gone: tuple[list[bytes | None], list[str]] = ([None, *packed], ["gone", *keys])
    found = unpack(*gone, incarnation=incarnation, streams=streams, template=template)
    assert found.places.tolist() == list(range(1, len(keys) + 1))
    assert found.vectors.tobytes() == vectors.tobytes()
    assert found.rows.tobytes() == rows.tobytes()
    assert [vector_of(value) for value in packed] == [tuple(vector) for vector in vectors.tolist()]
    states = unpack_states(*gone, streams=streams, template=template)
    assert states.tobytes() == bytes(8 * width) + template.tobytes() + rows.tobytes()


def test_a_row_takes_as_much_as_it_has_seen() -> None:
    template = np.resize(NOTHING, 300)
    rows = np.repeat(template.view(np.float64)[np.newaxis], 3, axis=0)
    rows[1, [7, 250]], rows[2] = 1.0, 2.0
    packed = pack(7, np.zeros((3, 1), dtype=np.int64), rows, ["a", "b", "c"], template=template)
    fixed = 16 + 8 + 38 + 1
    assert [len(value) for value in packed] == [fixed, fixed + 2 * 8, fixed + 300 * 8]


def one(incarnation: int = 7, key: str = "ann", streams: int = 2, width: int = 3) -> bytes:
    vectors, rows = np.zeros((1, streams), dtype=np.int64), np.full((1, width), 1.5)
    (packed,) = pack(incarnation, vectors, rows, [key], template=np.resize(NOTHING, width))
    return packed


def test_a_row_of_another_incarnation_is_absent() -> None:
    found = unpack([one(6), one(7)], ["ann", "ann"], incarnation=7, streams=2, template=NOTHING)
    assert found.places.tolist() == [1]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"", "0 bytes are too few"),
        (one()[:20], "not 2 offsets and 3 numbers"),
        (one()[:40], "40 bytes are too few for the numbers that it names"),
        (one(width=4), "not 2 offsets and 3 numbers"),
        (one(streams=1), "not 2 offsets and 3 numbers"),
        (one(key="bob"), "row of 'ann': the stored row is of 'bob'"),
        (one()[:32] + b"\x0f" + one()[33:-3] + bytes(8) + b"ann", "it names a number beyond its 3"),
    ],
)
def test_a_row_that_is_not_the_one_asked_for_is_an_error(value: bytes, message: str) -> None:
    with pytest.raises(CodecError, match=message):
        unpack([value], ["ann"], incarnation=7, streams=2, template=NOTHING)
    with pytest.raises(CodecError, match="row of 'ann'"):
        unpack_states([value], ["ann"], streams=2, template=NOTHING)


def test_a_row_with_a_bit_that_is_another_is_taken_as_it_is_or_is_an_error_that_says_so() -> None:
    vectors, state = np.zeros((1, 2), dtype=np.int64), np.array([[1.5, -1.0, -2.5]])
    (packed,) = pack(7, vectors, state, ["ann"], template=NOTHING)
    for bit in range(8 * len(packed)):
        broken = bytearray(packed)
        broken[bit // 8] ^= 1 << bit % 8
        value = bytes(broken)
        with contextlib.suppress(CodecError):
            unpack([value], ["ann"], incarnation=7, streams=2, template=NOTHING)
        with contextlib.suppress(CodecError):
            unpack_states([value], ["ann"], streams=2, template=NOTHING)
        with contextlib.suppress(CodecError):
            vector_of(value)


def test_the_first_row_that_is_none_is_the_one_that_is_named() -> None:
    values, keys = [one(key="ann"), None, one(key="eve"), b"x", one(key="bob")], ["ann", "bob", "eve", "dan", "eve"]
    with pytest.raises(CodecError, match="row of 'dan': 1 bytes are too few"):
        unpack_states(values, keys, streams=2, template=NOTHING)
    values[3] = None
    with pytest.raises(CodecError, match="row of 'eve': the stored row is of 'bob'"):
        unpack_states(values, keys, streams=2, template=NOTHING)


def test_bytes_too_few_for_a_row_cover_nothing() -> None:
    for value in (b"", one()[:30]):
        with pytest.raises(CodecError, match="too few"):
            vector_of(value)


def test_numbers_name_entities_as_integers_where_they_are() -> None:
    column = np.array([7.0, -0.0, 2.5, np.nan, np.inf, 2.0**70])
    assert entity_keys([column]) == ["7", "0", "2.5", None, "inf", str(2**70)]
    assert entity_keys([np.array([2**60 + 1])]) == [str(2**60 + 1)]
    assert entity_keys([np.array([True, False])]) == ["1", "0"]


def test_a_null_component_names_no_entity() -> None:
    assert entity_keys([["JFK", "JFK", None], np.array([1.0, np.nan, 2.0])]) == ["JFK\x1f1", None, None]
    assert entity_key(["JFK", 1]) == "JFK\x1f1"
    assert entity_key([None]) is None


@given(st.lists(st.tuples(COMPONENTS, COMPONENTS), min_size=1, max_size=6))
def test_two_entities_never_share_a_key_and_a_key_does_not_depend_on_its_batch(
    entities: list[tuple[str | float | None, str | float | None]],
) -> None:
    texts = [
        tuple(None if c is None else c if isinstance(c, str) else str(int(c)) for c in e) for e in entities
    ]
    keys = entity_keys([[first for first, _ in texts], [second for _, second in texts]])
    assert keys == [entity_key(entity) for entity in entities]
    known = {(key, text) for key, text in zip(keys, texts, strict=True) if key is not None}
    assert len({key for key, _ in known}) == len({text for _, text in known}) == len(known)


@given(st.lists(st.text("ab\\u\x1f"), min_size=1, max_size=4))
def test_a_key_says_which_texts_it_was_made_of(texts: list[str]) -> None:
    key = entity_key(texts)
    assert key is not None
    assert components_of(key, len(texts)) == texts


def test_a_key_of_another_number_of_fields_is_an_error() -> None:
    with pytest.raises(CodecError, match="names 2 fields, not 3"):
        components_of("JFK\x1fAA", 3)
