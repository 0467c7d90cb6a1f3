"""The fixed bins of numbers: where values fall, what stands for them, and that they merge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors import histogram

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
ALL = np.arange(-histogram.LAST, histogram.LAST + 1)


def of(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


@given(FLOATS)
def test_a_value_lies_between_the_edges_of_its_bin(value: float) -> None:
    number = histogram.bins(of(value))
    low, high = histogram.lower(number)[0], histogram.upper(number)[0]
    assert low <= value < high if value > 0 else low < value <= high if value < 0 else number[0] == 0


@given(FLOATS)
def test_the_middle_of_a_bin_is_within_a_sixteenth_of_its_values(value: float) -> None:
    found = histogram.middle(histogram.bins(of(value)))[0]
    assert abs(found - value) <= max(abs(value) / 16, 2.0**-126)


@given(st.lists(FLOATS, min_size=2))
def test_bins_rise_with_the_value(values: list[float]) -> None:
    ordered = of(*sorted(values))
    assert (np.diff(histogram.bins(ordered)) >= 0).all()


def test_the_bins_lie_edge_to_edge_from_the_least_to_the_greatest_float32() -> None:
    low, high, middle = histogram.lower(ALL), histogram.upper(ALL), histogram.middle(ALL)
    inner = (np.abs(ALL) >= 8) | (ALL == 0)  # 1 to 7 are never used: they are in bin 0
    assert (low[inner][1:] == high[inner][:-1]).all()
    assert (high[-1], low[0]) == (2.0**128, -(2.0**128))
    assert (histogram.bins(middle[inner].astype(np.float32)) == ALL[inner]).all()
    width = (high - low)[ALL >= 8]
    assert (width <= low[ALL >= 8] / 8).all()
    assert histogram.bins(np.finfo(np.float32).max) == histogram.LAST


def test_zero_and_what_is_next_to_nothing_are_in_bin_0() -> None:
    assert histogram.bins(of(0.0, -0.0, 1e-45, -1e-45, 1e-38)).tolist() == [0] * 5
    assert histogram.middle(np.array([0])) == 0


def test_counts_add_up_to_what_is_finite() -> None:
    assert histogram.counts(of(1.0, 1.1, 2.0, -1.0, np.nan, np.inf)) == {"-1016": 1, "1016": 2, "1024": 1}
    assert histogram.counts(np.array([1e300, 3.0])) == {"1028": 1}  # beyond float32
    assert histogram.counts(of()) == {}


@given(st.lists(FLOATS), st.lists(FLOATS))
def test_the_counts_of_two_parts_merge_to_those_of_the_whole(one: list[float], other: list[float]) -> None:
    merged = histogram.merged(histogram.counts(of(*one)), histogram.counts(of(*other)))
    assert merged == histogram.counts(of(*one, *other))


def test_a_histogram_is_read_in_the_order_of_its_bins() -> None:
    numbers, amounts = histogram.arrays({"10": 1, "-9": 2, "9": 3})
    assert (numbers.tolist(), amounts.tolist()) == ([-9, 9, 10], [2, 3, 1])
    assert [len(part) for part in histogram.arrays({})] == [0, 0]


@pytest.mark.parametrize("key", ["Rome", "2040", "-2040", ""])
def test_what_is_no_bin_is_refused(key: str) -> None:
    with pytest.raises(ValueError):
        histogram.arrays({key: 1})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_what_is_not_finite_has_no_bin(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        histogram.bins(np.array([1.0, value]))
