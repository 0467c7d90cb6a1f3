"""Rules of a data contract: those that cannot be are refused by name; the others are checked as a loop would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors.conditions import MOST_CONDITIONS, Condition, bits_of, count, mask_of
from monitors.rules import Rule, RuleError, Subject, conditions_of

SUBJECTS = {
    "amount": Subject("number", nullable=True),
    "items": Subject("number", nullable=False),
    "country": Subject("string", nullable=True),
    "ts": Subject("number", nullable=False, times=True),
}


def conditions(*rules: Any) -> tuple[Condition, ...]:
    return conditions_of(list(rules), SUBJECTS, "payments", ("flag", "dead_letter"), "is for features; take another")


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"of": "amont", "ge": 0}, "rule amont: payments has no 'amont'; did you mean 'amount'?"),
    ({"of": "amount"}, "rule amount: it asks for nothing; give ge"),
    ({"of": "", "ge": 0}, "begin with a name"),
    ({"of": "country", "ge": 0}, "rule country: ge=0 bounds a number, country is a text; list its values: among=[…]"),
    ({"of": "amount", "ge": "0"}, "rule amount: ge='0' is not a number"),
    ({"of": "amount", "ge": True}, "rule amount: ge=True is not a number"),
    ({"of": "amount", "le": float("nan")}, "rule amount: le=nan is not a number"),
    ({"of": "amount", "ge": 10, "le": 5}, "rule amount: no number is ge=10 and le=5; swap or mend them"),
    ({"of": "amount", "gt": 5, "le": 5}, "rule amount: no number is gt=5 and le=5"),
    ({"of": "amount", "ge": 5, "gt": 5}, "rule amount: ge and gt say two things; keep one"),
    ({"of": "country", "among": []}, "rule country: among is empty"),
    ({"of": "country", "among": "DE"}, "rule country: among is a list of values, not 'DE'"),
    ({"of": "country", "among": ["DE", 7]}, "rule country: country is a text, among lists 7"),
    ({"of": "amount", "among": ["1"]}, "rule amount: amount is a number, among lists '1'"),
    ({"of": "amount", "among": [1], "ge": 0}, "rule amount: among lists the values; take ge away"),
    ({"of": "items", "not_null": True}, "rule items: items is never null"),
    ({"of": "items", "nulls": 0.1}, "rule items: items is never null"),
    ({"of": "amount", "nulls": 1.0}, "rule amount: nulls=1.0 is a share: from 0 to below 1"),
    ({"of": "amount", "nulls": 0.1, "not_null": True}, "rule amount: not_null allows no null at all"),
    ({"of": "amount", "nulls": 0.1, "on_violation": "dead_letter"}, "rule amount: nulls is about no single record"),
    ({"of": "amount", "behind": "1h"}, "rule amount: behind is about a source's time"),
    ({"of": "ts", "behind": "an hour"}, "rule ts: behind='an hour' is no duration"),
    ({"of": "ts", "silence": "0m"}, "rule ts: silence='0m' is no duration"),
    ({"of": "amount", "ge": 0, "on_violation": "withhold"}, "on_violation='withhold' is for features; take another"),
    ({"of": "amount", "ge": 0, "on_violation": "drop"}, "must be one of 'flag', 'dead_letter', 'withhold'"),
]


@pytest.mark.parametrize(("declared", "message"), IMPOSSIBLE, ids=[m for _, m in IMPOSSIBLE])
def test_a_rule_that_cannot_be_is_refused_by_name_and_with_the_mend(declared: dict[str, Any], message: str) -> None:
    with pytest.raises(RuleError) as error:
        conditions(Rule(**declared))
    assert message in str(error.value)


def test_two_rules_may_differ_in_what_they_do_but_not_contradict_each_other() -> None:
    assert len(conditions(Rule("amount", le=10), Rule("amount", le=99, on_violation="dead_letter"))) == 2
    with pytest.raises(RuleError, match="rule amount: le is given twice"):
        conditions(Rule("amount", le=10), Rule("amount", le=99))
    with pytest.raises(RuleError, match="rule amount: no number is ge=20 and le=10; mend one"):
        conditions(Rule("amount", le=10), Rule("amount", ge=20, on_violation="dead_letter"))
    with pytest.raises(RuleError, match=r"rules is a list of Rule"):
        conditions_of(Rule("amount", ge=0), SUBJECTS, "payments", ("flag",), "")
    many = [Rule(name, ge=-i) for i, name in enumerate(f"f{i}" for i in range(MOST_CONDITIONS + 1))]
    with pytest.raises(RuleError, match="at most 63"):
        conditions_of(many, {rule.of: SUBJECTS["amount"] for rule in many}, "p", ("flag",), "")


numbers = st.none() | st.floats(-20, 20, width=32) | st.sampled_from([0.0, -5.0, 5.0])
texts = st.none() | st.sampled_from(["DE", "FR", "", "at"])


def meets(name: str, limit: Any, value: Any) -> bool:
    """What one condition says of one value, as plainly as it can be said."""
    if name == "not_null":
        return value is not None
    if value is None:
        return True
    if name == "among":
        return value in limit
    return {"ge": value >= limit, "gt": value > limit, "le": value <= limit, "lt": value < limit}[name]


@given(st.lists(st.tuples(numbers, texts), max_size=40), st.sampled_from([np.float32, np.float64]))
def test_the_bits_of_columns_are_what_a_loop_over_the_values_finds(
    values: Sequence[tuple[float | None, str | None]], dtype: Any
) -> None:
    found = conditions(
        Rule("amount", gt=-5, le=5),
        Rule("amount", ge=-10, lt=10, on_violation="dead_letter"),
        Rule("amount", not_null=True),
        Rule("country", among=["DE", "FR"]),
        Rule("country", not_null=True),
    )
    columns = {
        "amount": np.array([np.nan if amount is None else amount for amount, _ in values], dtype=dtype),
        "country": [country for _, country in values],
    }
    bits = bits_of(found, columns, len(values), None)
    for row, pair in enumerate(values):
        value = dict(zip(("amount", "country"), pair, strict=True))
        expected = {i for i, c in enumerate(found) if not meets(c.name, c.limit, value[c.of])}
        assert {i for i in range(len(found)) if bits[row] >> i & 1} == expected
    assert [count(bits, i) for i in range(len(found))] == [
        sum(not meets(c.name, c.limit, dict(zip(("amount", "country"), pair, strict=True))[c.of]) for pair in values)
        for c in found
    ]


def test_a_listed_number_is_found_in_float32_columns_too() -> None:
    found = conditions(Rule("amount", among=[0.1, 7]))
    column = np.array([0.1, 7, 8, np.nan], dtype=np.float32)
    assert bits_of(found, {"amount": column}, 4, None).tolist() == [0, 0, 1, 0]
    whole = np.array([0, 7, 8], dtype=np.int64)
    assert bits_of(found, {"amount": whole}, 3, None).tolist() == [1, 0, 1]


def test_how_far_behind_a_record_is_goes_by_its_own_timestamp() -> None:
    (found,) = conditions(Rule("ts", behind="10m"))
    times = np.zeros(3)
    assert found.broken(times, np.array([600_000, 600_001, -5])).tolist() == [False, True, False]
    assert found.broken(times, None).tolist() == [False, False, False]


def test_the_last_of_63_conditions_is_a_bit_like_the_first() -> None:
    subjects = {f"f{i}": SUBJECTS["amount"] for i in range(MOST_CONDITIONS)}
    found = conditions_of([Rule(name, ge=0) for name in subjects], subjects, "p", ("flag",), "")
    bits = bits_of(found, dict.fromkeys(subjects, np.array([-1.0, 1.0])), 2, None)
    assert bits.tolist() == [2**63 - 1, 0]
    assert count(bits, 62) == 1
    assert mask_of(found, "flag") == 2**63 - 1
