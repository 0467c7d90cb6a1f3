"""Labels, decoded: one that is not usable is counted, and takes no other with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from monitors.join import Label
from streams import Event, Labels
from streams.labels import LabelReader

NOW = 1_750_000_000_000
HOUR = 3_600_000
YEAR_2100 = 4_102_444_800_000


class Outcome(Event):
    id: str
    bought: float
    count: int = 0
    at: int | None = NOW


class Message:
    def __init__(self, value: str, timestamp: int = NOW) -> None:
        self._value, self._timestamp = value.encode(), timestamp

    def value(self) -> bytes:
        return self._value

    def timestamp(self) -> tuple[int, int]:
        return 1, self._timestamp

    def partition(self) -> int:
        return 3


GOOD = Message('{"id": "a", "bought": 1}')


def read(*messages: Message, value: Any = "bought", time: str | None = "at") -> tuple[list[Label], int]:
    return LabelReader(Labels("outcomes", Outcome, id="id", value=value, time=time)).read(list(messages))


@pytest.mark.parametrize(
    "bad",
    [
        "not json",
        '{"id": "b"}',
        f'{{"id": "b", "bought": {"9" * 400}}}',
        f'{{"id": "b", "bought": 1, "count": {"9" * 400}}}',
        f'{{"id": "b", "bought": 1, "at": {YEAR_2100}}}',
        f'{{"id": "b", "bought": 1, "at": {NOW + HOUR + 1}}}',
        f'{{"id": "b", "bought": 1, "at": {"9" * 400}}}',
        f'{{"id": "b", "bought": 1, "at": -{"9" * 400}}}',
        '{"id": "b", "bought": 1, "at": null}',
    ],
)
def test_a_record_that_is_no_label_is_counted_alone(bad: str) -> None:
    assert read(GOOD, Message(bad), GOOD) == ([Label("a", NOW, 1.0, 3)] * 2, 1)
    assert read(Message(bad)) == ([], 1)


def test_a_label_may_be_an_hour_ahead_of_its_record() -> None:
    (found,), bad = read(Message(f'{{"id": "a", "bought": 1, "at": {NOW + HOUR}}}'))
    assert (found.time, bad) == (NOW + HOUR, 0)


def test_a_late_record_of_an_early_label_is_one() -> None:
    assert read(Message('{"id": "a", "bought": 1, "at": 5}')) == ([Label("a", 5, 1.0, 3)], 0)


def test_without_a_time_field_the_record_has_the_time() -> None:
    assert read(Message('{"id": "a", "bought": 1}', 7), time=None) == ([Label("a", 7, 1.0, 3)], 0)


def test_what_the_value_function_raises_for_is_no_label() -> None:
    def value(columns: Any) -> Any:
        if (columns["bought"] == 13).any():
            raise RuntimeError("thirteen")
        return columns["bought"] > 0

    bad = Message('{"id": "b", "bought": 13}')
    assert read(GOOD, bad, GOOD, value=value) == ([Label("a", NOW, 1.0, 3)] * 2, 1)


def test_a_value_function_of_the_wrong_length_makes_no_labels() -> None:
    def value(columns: Any) -> Any:
        bought = columns["bought"]
        return np.zeros(len(bought) + 1) if (bought == 13).any() else bought

    assert read(GOOD, Message('{"id": "b", "bought": 13}'), value=value) == ([Label("a", NOW, 1.0, 3)], 1)


def test_of_nothing_come_no_labels() -> None:
    assert read() == ([], 0)
