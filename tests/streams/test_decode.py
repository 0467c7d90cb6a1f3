"""Typed decode: what is usable becomes columns, all else is a dead letter with its reason, in its place."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.payments.pipeline import payments
from monitors.rules import Rule
from streams import Event, Source
from streams.batches import RecordBatch
from streams.contract import Contract
from streams.decode import MAX_KEY_CHARS, Decoder
from streams.decoded import Decoded
from streams.errors import DeclarationError
from streams.event import make_event
from tests.streams.records import NOW, Record, batch, watermark

YEAR_2100 = 4_102_444_800_000


class Flat(Event):
    """Of a type that compiled code reads."""

    payment_id: str
    user_id: str
    amount: float
    ts: int
    items: int = 0
    score: float | None = None
    country: str | None = None


class Payment(Flat):
    country: Literal["at", "de"] | None = None


SOURCE = Source("payments", Payment, key="user_id", id="payment_id", time="ts")
GOOD: dict[str, Any] = {"payment_id": "p", "user_id": "u", "amount": 2.5, "ts": NOW}


def decoder(source: Source = SOURCE, stream: int = 0) -> Decoder:
    return Decoder(source, stream, numbers={"amount", "items", "score"}, texts={"user_id", "country"})


def payment(**fields: Any) -> bytes:
    return json.dumps(GOOD | fields).encode()


def raw(**fields: str) -> bytes:
    """A payment with fields as they are to stand in the JSON text."""
    texts = {name: json.dumps(value) for name, value in GOOD.items()} | fields
    return ("{" + ",".join(f'"{name}":{text}' for name, text in texts.items()) + "}").encode()


NESTED = "[" * 10_000 + "]" * 10_000
BAD: dict[str, tuple[Record, tuple[str, str, str, str]]] = {
    "malformed JSON": (Record(b'{"payment_id": "p",'), ("decode", "malformed", "truncated", "")),
    "garbage of 2 MB": (Record(b"x" * 2_000_000), ("decode", "malformed", "invalid character", "")),
    "a zero byte": (Record(payment()[:-1] + b"\0}"), ("decode", "malformed", "expected", "")),
    "zero bytes": (Record(b"\0\0"), ("decode", "malformed", "invalid character", "")),
    "no JSON at all": (Record(b"hello"), ("decode", "malformed", "invalid character", "")),
    "two objects": (Record(payment() + payment()), ("decode", "malformed", "trailing characters", "")),
    "null": (Record(b"null"), ("decode", "invalid", "Expected `object`, got `null`", "")),
    "an array": (Record(b"[]"), ("decode", "invalid", "Expected `object`, got `array`", "")),
    "a text": (Record(b'"p"'), ("decode", "invalid", "Expected `object`, got `str`", "")),
    "an empty object": (Record(b"{}"), ("decode", "invalid", "missing required field `payment_id`", "payment_id")),
    "a missing field": (
        Record({k: v for k, v in GOOD.items() if k != "amount"}),
        ("decode", "invalid", "missing required field `amount`", "amount"),
    ),
    "a number for a text": (Record(payment(user_id=7)), ("decode", "invalid", "Expected `str`, got `int`", "user_id")),
    "a text for a number": (
        Record(payment(amount="2.5")),
        ("decode", "invalid", "Expected `float`, got `str`", "amount"),
    ),
    "a fraction for an integer": (Record(payment(ts=1.5)), ("decode", "invalid", "Expected `int`, got `float`", "ts")),
    "a null": (Record(payment(amount=None)), ("decode", "invalid", "Expected `float`, got `null`", "amount")),
    "a value that is not listed": (
        Record(payment(country="x - at `$.amount`")),
        ("decode", "invalid", "Invalid enum value 'x - at `$.amount`'", "country"),
    ),
    "NaN": (Record(payment(amount=math.nan)), ("decode", "malformed", "invalid character", "")),
    "Infinity": (Record(payment(amount=math.inf)), ("decode", "malformed", "invalid character", "")),
    "minus Infinity": (Record(payment(amount=-math.inf)), ("decode", "malformed", "", "")),
    "1e999": (Record(raw(amount="1e999")), ("decode", "invalid", "Number out of range", "amount")),
    "-1e999": (Record(raw(score="-1e999")), ("decode", "invalid", "Number out of range", "score")),
    "400 digits in a number": (
        Record(raw(items="1" * 400)),
        ("decode", "out_of_range", "an integer that float64 does not hold", "items"),
    ),
    "5,000 digits": (Record(raw(items="1" * 5000)), ("decode", "invalid", "out of range", "items")),
    "invalid UTF-8": (
        Record(payment().replace(b'"p"', b'"\xff"')),
        ("decode", "malformed", "'utf-8' codec can't decode byte 0xff", ""),
    ),
    "a lone surrogate": (Record(raw(payment_id='"\\ud800"')), ("decode", "malformed", "surrogate", "")),
    "a byte order mark": (Record(b"\xef\xbb\xbf" + payment()), ("decode", "malformed", "invalid character", "")),
    "10,000 deep": (Record(raw(x=NESTED)), ("decode", "too_deep", "nested too deep", "")),
    "an empty value": (Record(b""), ("decode", "empty", "empty value", "")),
    "a null value": (Record(None), ("decode", "empty", "empty value", "")),
    "a null key": (
        Record(payment(), key=None),
        ("key", "null", "null record key; produce with user_id as the key", "user_id"),
    ),
    "a key of 10 kB": (Record(payment(), key=b"k" * 10_240), ("key", "too_long", "10240 long", "user_id")),
    "an id of 10 kB": (
        Record(payment(payment_id="i" * 10_240)),
        ("key", "too_long", "10240 long; at most 1024", "payment_id"),
    ),
    "an entity of 10 kB": (Record(payment(user_id="u" * 10_240)), ("key", "too_long", "10240 long", "user_id")),
    "a negative time": (Record(payment(ts=-1)), ("time", "negative", "event time -1 is before 1970", "ts")),
    "the year 2100": (
        Record(payment(ts=YEAR_2100)),
        ("time", "ahead", f"event time {YEAR_2100} is 2342444800 s ahead of the record's timestamp", "ts"),
    ),
    "30 digits in the time": (Record(raw(ts="1" * 30)), ("time", "out_of_range", "out of range", "ts")),
    "400 digits in the time": (Record(raw(ts="1" * 400)), ("time", "out_of_range", "out of range", "ts")),
    "400 digits before 1970": (Record(raw(ts="-" + "1" * 400)), ("time", "negative", "before 1970", "ts")),
    "a watermark that is no number": (watermark(b"soon"), ("decode", "empty", "empty value", "")),
    "a watermark without a time": (watermark(None), ("decode", "empty", "empty value", "")),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_is_a_dead_letter_with_its_reason_and_its_neighbours_are_unharmed(name: str) -> None:
    record, (stage, code, reason, field) = BAD[name]
    neighbours = [Record(payment(payment_id=i, amount=a)) for i, a in (("a", 1), ("b", 2), ("c", 3))]
    records = [*neighbours[:2], record, neighbours[2]]
    found = decoder(stream=1).decode(batch(records, first=10, stream=1, partition=3))
    assert found.ids == ["a", "b", "c"]
    assert found.offsets.tolist() == [10, 11, 13]
    assert found.fields["amount"].tolist() == [1, 2, 3]
    assert found.next_offset == 14
    (letter,) = found.dead
    assert (letter.stream, letter.partition, letter.offset) == (1, 3, 12)
    assert (letter.key, letter.value) == (record.key, record.value)
    assert (letter.stage, letter.code, letter.field) == (stage, code, field)
    assert reason in letter.reason


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_alone_leaves_no_usable_one(name: str) -> None:
    found = decoder().decode(batch([BAD[name][0]]))
    assert (len(found), len(found.dead), found.next_offset) == (0, 1, 1)
    assert set(found.fields) == {"amount", "items", "score", "user_id", "country"}


ODD_BUT_GOOD: dict[str, tuple[Record, str, Any]] = {
    "unknown fields": (Record(payment(more={"a": [1]})), "amount", 2.5),
    "2 MB of unknown fields": (Record(payment(more="x" * 2_000_000)), "amount", 2.5),
    "nested 500 deep in an unknown field": (Record(raw(more="[" * 500 + "]" * 500)), "amount", 2.5),
    "a duplicate key, of which the last counts": (Record(payment()[:-1] + b',"amount":7}'), "amount", 7.0),
    "30 digits in an int": (Record(raw(items="1" * 30)), "items", float("1" * 30)),
    "30 digits in a float": (Record(raw(amount="1" * 30)), "amount", float("1" * 30)),
    "an integer in a float": (Record(payment(amount=3)), "amount", 3.0),
    "a null that may be": (Record(payment(score=None)), "score", None),
    "1970": (Record(payment(ts=0)), "amount", 2.5),
    "a key that is not the field": (Record(payment(), key=b"\xff\x00"), "amount", 2.5),
    "an empty key": (Record(payment(), key=b""), "amount", 2.5),
    "as long a key as may be": (Record(payment(), key=b"k" * MAX_KEY_CHARS), "amount", 2.5),
    "as far ahead as may be": (Record(payment(ts=NOW + 3_600_000)), "amount", 2.5),
}


@pytest.mark.parametrize("name", ODD_BUT_GOOD)
@pytest.mark.parametrize("beside", ["good", "bad"])
def test_an_odd_record_is_usable_beside(name: str, beside: str) -> None:
    record, field, value = ODD_BUT_GOOD[name]
    found = decoder().decode(batch([record, Record(payment() if beside == "good" else b"bad")]))
    assert found.offsets.tolist()[0] == 0
    first = found.fields[field][0]
    assert math.isnan(first) if value is None else first == value


def test_columns_are_float64_with_nan_for_null_and_lists_of_texts() -> None:
    records = [Record(payment(score=0.5, country="at", items=3)), Record(payment(payment_id="q"))]
    found = decoder().decode(batch(records))
    assert found.ids == ["p", "q"]
    assert found.times.tolist() == [NOW, NOW]
    assert found.fields["items"].dtype == found.fields["score"].dtype == np.float64
    np.testing.assert_array_equal(found.fields["score"], [0.5, math.nan])
    assert found.fields["country"] == ["at", None]
    assert found.fields["user_id"] == ["u", "u"]


def test_an_event_without_id_is_named_by_its_place() -> None:
    source = Source("some.payments", Payment, key="user_id", time="ts")
    found = decoder(source).decode(batch([Record(payment()), Record(b"bad"), Record(payment())], first=5, partition=2))
    assert found.ids == ["some.payments-2-5", "some.payments-2-7"]


def test_an_integer_id_is_its_digits() -> None:
    event = make_event("Numbered", {"n": int, "user": str, "ts": int})
    source = Source("t", event, key="user", id="n", time="ts")
    records = [Record({"n": 2**70 + 1, "user": "u", "ts": NOW}), Record({"n": 7, "user": "u", "ts": NOW})]
    assert Decoder(source, 0, numbers=set(), texts=set()).decode(batch(records)).ids == [str(2**70 + 1), "7"]


class Account(Event):
    account: int
    branch: int | None
    amount: int
    ts: int


ACCOUNTS = Source("accounts", Account, key="account", time="ts")


def accounts(*rows: dict[str, Any]) -> Decoded:
    decode = Decoder(
        ACCOUNTS, 0, numbers={"account", "branch", "amount"}, texts=set(), naming={"account", "branch"}
    ).decode
    good = {"account": 1, "branch": 1, "amount": 1, "ts": NOW}
    return decode(batch([Record(good | row) for row in rows]))


def test_neighbouring_large_integers_that_name_entities_stay_apart() -> None:
    found = accounts({"account": 2**53}, {"account": 2**53 + 1}, {"account": -(2**63)}, {"account": 2**63 - 1})
    assert found.fields["account"].dtype == np.int64
    assert found.fields["account"].tolist() == [2**53, 2**53 + 1, -(2**63), 2**63 - 1]
    assert found.fields["branch"].dtype == found.fields["amount"].dtype == np.float64


def test_an_integer_that_names_an_entity_and_is_not_kept_exactly_is_a_dead_letter() -> None:
    found = accounts({"account": 2**63}, {"account": 7}, {"branch": 2**53 + 1}, {"branch": None}, {"amount": 2**70})
    assert found.fields["account"].tolist() == [7, 1, 1]
    assert found.fields["amount"].tolist() == [1, 1, 2**70]
    assert [(d.offset, d.code, d.field) for d in found.dead] == [
        (0, "out_of_range", "account"),
        (2, "out_of_range", "branch"),
    ]
    assert "must be a text" in found.dead[1].reason
    assert accounts({"branch": 2**53 + 1}).dead
    assert accounts({"branch": -(2**53) + 1}).fields["branch"].tolist() == [-(2**53) + 1]


def test_integers_of_no_events_are_integers_too() -> None:
    found = accounts({"account": "bad"})
    assert (len(found), found.fields["account"].dtype) == (0, np.int64)


class Checked(Event):
    user: str
    ts: int
    rate: float

    def __post_init__(self) -> None:
        if self.rate > 1:
            raise ValueError("rate is above 1")
        1 / self.rate


def test_an_event_type_that_refuses_an_event_makes_a_dead_letter() -> None:
    decode = Decoder(Source("t", Checked, key="user", time="ts"), 0, numbers={"rate"}, texts=set()).decode
    found = decode(batch([Record({"user": "u", "ts": NOW, "rate": rate}) for rate in (2.0, 0.5, 0.0)]))
    assert found.fields["rate"].tolist() == [0.5]
    assert [(d.offset, d.code, d.reason) for d in found.dead] == [
        (0, "invalid", "rate is above 1"),
        (2, "invalid", "ZeroDivisionError: float division by zero"),
    ]


def test_watermarks_are_marks_in_their_places_and_count_as_read() -> None:
    records = [watermark(5), Record(payment()), watermark(-1), Record(None), watermark(10**30), watermark(8)]
    found = decoder().decode(batch(records, first=100))
    assert found.marks == [(100, 5), (102, -1), (104, 2**63 - 1), (105, 8)]
    assert found.offsets.tolist() == [101]
    assert [d.offset for d in found.dead] == [103]
    assert found.next_offset == 106


def test_a_record_with_a_value_is_no_watermark() -> None:
    found = decoder().decode(batch([watermark(5, value=payment())]))
    assert (found.marks, found.ids) == ([], ["p"])


def test_headers_stay_with_their_records() -> None:
    parent = [("traceparent", b"00-1")]
    records = [watermark(5), Record(payment(), headers=parent), Record(b"bad", headers=[("x", b"")]), Record(payment())]
    assert decoder().decode(batch(records)).headers == [parent, None]
    assert decoder().decode(batch(records[3:])).headers is None


def test_a_batch_of_nothing_is_decoded() -> None:
    found = decoder().decode(batch([watermark(5)]))
    assert (len(found), found.keys, found.ids, found.next_offset) == (0, [], [], 1)


def test_dead_letters_of_all_kinds_come_in_the_order_of_their_offsets() -> None:
    records = [Record(b"bad"), Record(None), Record(payment()), Record(payment(), key=None), Record(None)]
    assert [d.offset for d in decoder().decode(batch(records)).dead] == [0, 1, 3, 4]


def test_a_cut_holds_its_records_and_no_letters() -> None:
    records = [watermark(5), *(Record(payment(payment_id=i), headers=[("i", i.encode())]) for i in "abcd"), Record(b"")]
    found = decoder().decode(batch(records))
    part = found.cut(1, 3)
    assert (part.ids, part.offsets.tolist(), part.fields["user_id"]) == (["b", "c"], [2, 3], ["u", "u"])
    assert part.headers == [[("i", b"b")], [("i", b"c")]]
    assert (part.dead, part.marks, part.next_offset) == ([], [], 6)
    assert len(found.dead) == len(found.marks) == 1


def _values() -> Iterator[st.SearchStrategy[Any]]:
    yield st.binary(max_size=30)
    yield st.none()
    yield st.fixed_dictionaries(
        {},
        optional={
            "payment_id": st.text(max_size=3) | st.integers(),
            "user_id": st.text(max_size=3),
            "amount": st.floats(allow_nan=False) | st.none(),
            "ts": st.integers() | st.integers(0, NOW),
            "items": st.integers() | st.just(10**400),
            "country": st.sampled_from(["at", "xx", None]),
        },
    ).map(lambda fields: json.dumps(fields).encode())
    yield st.just(payment())


ROWS = st.lists(st.tuples(st.one_of(*_values()), st.none() | st.binary(max_size=5)), min_size=2, max_size=12)


@settings(deadline=None)
@given(ROWS, st.integers(1, 11))
def test_every_record_is_usable_or_dead_whatever_it_is_and_whatever_stands_beside_it(
    rows: list[tuple[bytes | None, bytes | None]], at: int
) -> None:
    records = [Record(value, key) for value, key in rows]
    found = decoder().decode(batch(records))
    assert sorted([*found.offsets.tolist(), *(d.offset for d in found.dead)]) == list(range(len(records)))
    at = min(at, len(records) - 1)
    pieces = [decoder().decode(batch(records[:at])), decoder().decode(batch(records[at:], first=at))]
    assert found.ids == [i for piece in pieces for i in piece.ids]
    assert found.dead == [d for piece in pieces for d in piece.dead]
    for name, column in found.fields.items():
        parts = [piece.fields[name] for piece in pieces]
        np.testing.assert_array_equal(column, [v for part in parts for v in part])


def assert_same(found: Decoded, wanted: Decoded) -> None:
    for name in ("stream", "partition", "keys", "ids", "next_offset", "polled_ns", "dead", "marks"):
        assert getattr(found, name) == getattr(wanted, name), name
    assert (found.headers or [None] * len(found)) == (wanted.headers or [None] * len(wanted))
    np.testing.assert_array_equal(found.offsets, wanted.offsets)
    np.testing.assert_array_equal(found.times, wanted.times)
    assert found.fields.keys() == wanted.fields.keys()
    for name, column in wanted.fields.items():
        np.testing.assert_array_equal(found.fields[name], column)
        assert getattr(found.fields[name], "dtype", None) == getattr(column, "dtype", None)
    np.testing.assert_array_equal(found.bits, wanted.bits)


RULED = replace(SOURCE, rules=[Rule("amount", le=100.0), Rule("items", ge=0, on_violation="dead_letter")])


class Numbered(Flat):
    """Its id is a number."""

    payment_id: int  # type: ignore[assignment]


def flat(**source: Any) -> Decoder:
    given = {"event": Flat, "key": "user_id", "id": "payment_id", "time": "ts"} | source
    made = decoder(Source("payments", **given))
    assert made._flat is not None
    return made


KINDS = {
    "plain": decoder(),
    "flat": flat(),
    "flat, without an id": flat(id=None),
    "without an id": decoder(Source("payments", Payment, key="user_id", time="ts")),
    "with rules": Decoder(
        RULED, 0, numbers={"amount", "items"}, texts={"user_id"}, contract=Contract(RULED.conditions), hidden=["items"]
    ),
}
GOOD_ROWS = st.lists(
    st.builds(
        lambda amount, items, parent: Record(payment(amount=amount, items=items), b"u", parent),
        st.floats(0, 200), st.integers(-1, 3), st.none() | st.just([("traceparent", b"p")]),
    ),
    max_size=4,
)  # fmt: skip
ANY_ROWS = st.lists(
    st.builds(Record, st.one_of(*_values()), st.none() | st.binary(max_size=5)) | st.just(watermark(5)), max_size=4
)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(st.lists(GOOD_ROWS | ANY_ROWS, max_size=4))
def test_batches_decoded_together_are_as_each_of_them_alone(kind: str, rows: list[list[Record]]) -> None:
    batches = [
        replace(batch(records, first=7 * p, partition=p), polled_ns=100 + p)
        for p, records in enumerate(rows) if records
    ]  # fmt: skip
    for found, one in zip(KINDS[kind].decode_all(batches), batches, strict=True):
        assert_same(found, KINDS[kind].decode(one))


@pytest.mark.parametrize("kind", KINDS)
def test_batches_without_a_bad_record_are_decoded_at_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [batch([Record(payment())] * 3, partition=p) for p in range(3)]
    monkeypatch.setattr(Decoder, "decode", None)
    assert [len(found) for found in KINDS[kind].decode_all(batches)] == [3, 3, 3]


FLAT_ROWS = st.builds(
    lambda fields, name, as_ascii: Record(
        json.dumps(GOOD | {"payment_id": name} | fields, ensure_ascii=as_ascii).encode()
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "amount": st.floats(-1e39, 1e39) | st.integers(-(10**20), 10**20),
            "score": st.none() | st.floats(0, 1),
            "country": st.none() | st.text(max_size=3) | st.just("x" * (MAX_KEY_CHARS + 1)),
            "ts": st.integers(NOW - 10, NOW + 10) | st.sampled_from([-1, YEAR_2100]),
            "more": st.booleans() | st.lists(st.integers(), max_size=1),
        },
    ),
    st.text(max_size=4) | st.integers(-5, 5) | st.just(2**63),
    st.booleans(),
)  # fmt: skip


@pytest.mark.parametrize("event", [Flat, Numbered])
@settings(deadline=None)
@given(st.lists(FLAT_ROWS | st.builds(Record, st.one_of(*_values())), min_size=1, max_size=6))
def test_what_compiled_code_reads_is_what_msgspec_would_give(event: type[Event], rows: list[Record]) -> None:
    by_code, by_msgspec = flat(event=event), flat(event=event)
    by_msgspec._flat = None
    given = batch(rows)
    assert_same(by_code.decode(given), by_msgspec.decode(given))


def test_most_of_a_batch_is_read_by_compiled_code_also_where_some_records_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, seen = flat(), list[bytes]()
    decode = made._decode
    monkeypatch.setattr(made, "_decode", lambda value: seen.append(value) or decode(value))
    odd = payment(payment_id="größe")
    found = made.decode(batch([Record(payment(payment_id=f"p{i}")) for i in range(3)] + [Record(odd)]))
    assert (found.ids, seen, found.dead) == (["p0", "p1", "p2", "größe"], [odd], [])


class Loose(Event):
    user: str
    ts: int | float


def test_a_time_that_may_have_fractions_is_refused_when_declared() -> None:
    with pytest.raises(DeclarationError, match="time='ts' must be an int"):
        Source("t", Loose, key="user", time="ts")


@pytest.mark.parametrize("amount", [b"1e300", b"-1e39"])
def test_a_number_beyond_float32_is_a_dead_letter_that_names_its_field(amount: bytes) -> None:
    value = b'{"payment_id":"p","user_id":"u","merchant":"m","amount":' + amount + b',"ts":1}'
    decoder = Decoder(payments, 0, numbers={"amount"}, texts={"user_id"})
    batch = RecordBatch(0, 0, [b"u"], [value], np.array([7]), np.array([1]), None, 0, 1)
    (letter,) = decoder.decode(batch).dead
    assert (letter.offset, letter.stage, letter.code, letter.field) == (7, "decode", "out_of_range", "amount")
