"""Flat JSON: whatever is not called odd means what msgspec says, bit by bit; and what is plain is not odd."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams import Event
from streams.flat_json import FlatJson, Read, flat_json


class Sale(Event):
    shop: str
    count: int
    price: float
    open: bool
    note: str | None = None
    items: int | None = None
    weight: float | None = 1.5
    either: int | float = 0
    named: float = msgspec.field(default=0.0, name="as-named")
    unread: float = 0.0


NUMBERS = {"count": np.int64} | dict.fromkeys(["price", "open", "items", "weight", "either", "named"], np.float64)
DECODE = msgspec.json.Decoder(Sale).decode
PLAIN: dict[str, Any] = {"shop": "s1", "count": 3, "price": 2.5, "open": True}


def flat(event: type[Event] = Sale, **wanted: Any) -> FlatJson | None:
    return flat_json(event, **({"numbers": NUMBERS, "texts": ["shop", "note"]} | wanted))


READER = flat()
assert READER is not None


def read(values: Sequence[bytes]) -> Read:
    found = READER.read(values)
    assert found is not None
    return found


def agreed(values: Sequence[bytes]) -> list[int]:
    """The odd ones; all the others are as msgspec reads them. All are odd where some hold a zero byte."""
    found = READER.read(values)
    assert (found is None) == any(b"\0" in value for value in values)
    if found is None:
        return list(range(len(values)))
    assert found.longest == max(map(len, values), default=0)
    odd = found.odd.tolist()
    for row in set(range(len(values))) - set(odd):
        event = DECODE(values[row])
        for name, column in found.numbers.items():
            value = getattr(event, name)
            expected = np.array([value], dtype=column.dtype)
            assert column[row].tobytes() == expected[0].tobytes() or (value is None and math.isnan(column[row]))
        for name, texts in found.texts.items():
            assert texts[row] == getattr(event, name)
    return odd


def raw(**fields: str) -> bytes:
    """A sale with fields as they are to stand in the JSON text."""
    texts = {name: json.dumps(value) for name, value in PLAIN.items()} | fields
    return ("{" + ",".join(f'"{name}":{text}' for name, text in texts.items()) + "}").encode()


plain_texts = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters='"\\'), max_size=12)
whole = st.integers(-(10**18) + 1, 10**18 - 1)
plain_sales = st.fixed_dictionaries(
    {
        "shop": plain_texts,
        "count": whole,
        "price": st.floats(allow_nan=False, allow_infinity=False),
        "open": st.booleans(),
    },
    optional={
        "note": st.none() | plain_texts,
        "items": st.none() | whole,
        "weight": st.none() | st.floats(-1e6, 1e6),
        "either": whole | st.floats(-1e6, 1e6),
        "as-named": st.floats(-1e6, 1e6),
        "else": st.none() | st.booleans() | plain_texts | st.decimals(-1000, 1000, places=9).map(float),
    },
)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)
any_sales = st.dictionaries(st.sampled_from([*Sale.__struct_fields__, "as-named", "x", "größe"]), jsons, max_size=8)
spaced = st.sampled_from([(",", ":"), (", ", ": "), ("\n , \t", " :\r")])


@given(st.lists(plain_sales, max_size=5), spaced)
def test_plain_records_are_read_and_mean_what_msgspec_says(
    sales: list[dict[str, Any]], marks: tuple[str, str]
) -> None:
    assert agreed([json.dumps(sale, separators=marks).encode() for sale in sales]) == []


@given(st.lists(plain_sales | any_sales, max_size=4), st.data())
def test_whatever_stands_in_a_record_it_means_what_msgspec_says_or_is_odd(
    sales: list[dict[str, Any]], data: st.DataObject
) -> None:
    as_ascii = data.draw(st.booleans())
    values = [json.dumps(sale, ensure_ascii=as_ascii).encode("utf-8", "surrogatepass") for sale in sales]
    for row, value in enumerate(values):
        at = data.draw(st.integers(0, len(value)))
        how = data.draw(st.sampled_from(["whole", "cut", "one byte else", "one byte more"]))
        if how == "cut":
            values[row] = value[:at]
        elif how != "whole":
            some = data.draw(st.sampled_from(b'0-.e"\\,:{} \0')).to_bytes()
            values[row] = value[:at] + some + value[at + (how == "one byte else") :]
        if data.draw(st.booleans()):  # a value less
            values[row] = re.sub(rb':[^,}]*(?=[,}])', b":", values[row], count=data.draw(st.integers(1, 3)))
    agreed(values)


@given(st.integers(1, 10**18 - 1), st.integers(0, 18), st.booleans())
@example(9007199254740993, 0, False)
@example(9007199254740993, 17, False)
@example(10**17 + 1, 18, True)
def test_a_decimal_fraction_is_the_nearest_float(mantissa: int, places: int, negative: bool) -> None:
    text = f"{Decimal(mantissa).scaleb(-places):f}"
    value = raw(price=("-" if negative else "") + text)
    found = read([value])
    assert found.numbers["price"].tolist() == [float(("-" if negative else "") + text)]
    assert not agreed([value])


@pytest.mark.parametrize(
    "value",
    [
        raw(price="1e3"),
        raw(price="-2.5E-7"),
        raw(price="0.1234567890123456789012345"),
        raw(price="123456789012345678901234567890"),
        raw(price="-0.0"),
        raw(unread="-1.5e-09", other="2E+5"),
        raw(weight="null", items="null", note="null"),
        raw(other='"x"', more="null", last="-1.5"),
        b"\n {" + raw()[1:-1] + b"\t} \r",
    ],
)
def test_what_is_rare_and_flat_is_read(value: bytes) -> None:
    assert agreed([raw(), value, raw()]) == []


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{}",
        b"null",
        b"[]",
        raw(shop='"a\\n"'),
        raw(shop='"größe"'),
        raw(shop='"a\x7fb"'),
        raw(shop="7"),
        raw(price='"7"'),
        raw(price="null"),
        raw(price="01"),
        raw(price="1."),
        raw(price=".5"),
        raw(price="+1"),
        raw(price="1e"),
        raw(price="1e999"),
        raw(price="NaN"),
        raw(price="-"),
        raw(count="1.0"),
        raw(count="1234567890123456789"),
        raw(count="-0"),
        raw(price=""),
        raw(shop=""),
        raw(open=""),
        raw(other=""),
        raw(open="tru"),
        raw(open="1"),
        raw(other="[1]"),
        raw(other="{}"),
        raw(other="1e999"),
        raw(unread="1e999"),
        raw()[:-1] + b',"shop":"again"}',
        raw()[:-1] + b",}",
        raw()[:-1],
        raw() + b"x",
        raw() + raw(),
        raw().replace(b'"count":3,', b""),
    ],
)
def test_what_is_odd_is_left_to_msgspec_and_leaves_its_neighbours_alone(value: bytes) -> None:
    assert agreed([raw(count="1"), value, raw(count="2")]) == [1]


@pytest.mark.parametrize(
    "value", [raw()[:-1] + b" " * 1_000_000 + b"}", raw() + b" \n" * 500_000, b" " * 1_000_000 + raw()]
)
def test_white_space_is_read_once(value: bytes) -> None:
    began = time.thread_time()
    assert agreed([value]) == []
    agreed([b" " * 1000] * 1000)
    assert time.thread_time() - began < 1, "at its square it would be minutes"


@pytest.mark.parametrize(
    "values",
    [[b"\0"], [b"", b"\0", raw()], [raw()[:-1] + b"\0}", raw()], [raw() + b"\0" + raw()], [raw(), b"\0\0"]],
)
def test_records_with_zero_bytes_are_not_taken_for_others(values: list[bytes]) -> None:
    assert READER.read(values) is None
    assert READER.read([value.replace(b"\0", b"") for value in values]) is not None


def test_no_records_are_no_rows() -> None:
    found = read([])
    assert (found.odd.tolist(), found.texts, found.numbers["price"].tolist()) == ([], {"shop": [], "note": []}, [])


class Limited(Event):
    shop: Annotated[str, msgspec.Meta(max_length=3)]
    ts: int


class Listed(Event):
    shop: Literal["a", "b"]
    ts: int


class Closed(Event, forbid_unknown_fields=True):
    shop: str
    ts: int


class Judged(Event):
    shop: str
    ts: int

    def __post_init__(self) -> None:
        if self.ts < 0:
            raise ValueError("before 1970")


class Foreign(Event):
    shop: str = msgspec.field(name="größe")
    ts: int = 0


class Defaulted(Event):
    shop: str
    ts: int = 7
    note: str = ""
    other: str = None  # type: ignore[assignment]


@pytest.mark.parametrize("event", [Limited, Listed, Closed, Judged, Foreign])
def test_a_type_that_says_more_than_the_types_of_its_fields_is_left_to_msgspec(event: type[Event]) -> None:
    assert flat(event, numbers={"ts": np.int64}, texts=["shop"]) is None


def test_an_absent_number_is_its_default() -> None:
    reader = flat(Defaulted, numbers={"ts": np.int64}, texts=["shop"])
    assert reader is not None
    value = b'{"shop":"a"}'
    found = reader.read([value])
    assert (found.numbers["ts"].tolist(), found.texts["shop"], len(found.odd)) == ([7], ["a"], 0)


@pytest.mark.parametrize("name", ["note", "other"])
def test_an_absent_text_is_null_where_that_is_its_default_and_else_odd(name: str) -> None:
    reader = flat(Defaulted, numbers={}, texts=["shop", name])
    assert reader is not None
    value = b'{"shop":"a"}'
    assert reader.read([value]).odd.tolist() == [0]
