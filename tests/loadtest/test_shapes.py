"""Loads: how many payments are due when, and what is unusual about them, in figures."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.payments.generate import BLOCK, Payments, Record
from examples.payments.pipeline import pipeline
from loadtest.shapes import (
    CONTENTS,
    DRIFT_TIMES,
    LATE_SHARE,
    LATEST_MS,
    POISON_SHARE,
    SCHEDULES,
    ZIPF,
    Load,
    due_s,
    spoilt,
)
from streams.batches import RecordBatch
from streams.decode import decoder_of
from streams.errors import UsageError

N = 20_000
START_MS = 1_735_689_600_000
TIMES_MS = START_MS + np.arange(N) * 10
PAYMENTS = Payments(users=1000)


def rate_at(due: np.ndarray, second: float, width: float = 1.0) -> float:
    """Payments a second around a moment."""
    return float(np.count_nonzero((due >= second - width / 2) & (due < second + width / 2)) / width)


def decoded(records: list[Record]) -> list[dict[str, Any]]:
    return [msgspec.json.decode(record.value) for record in records]


def records_of(shape: str, payments: Payments = PAYMENTS) -> list[Record]:
    return list(Load.parse(shape).records(payments, TIMES_MS))


def test_a_steady_load_is_due_evenly() -> None:
    np.testing.assert_allclose(due_s("steady", 400, 5), np.arange(2000) / 400, atol=1e-9)


def test_a_ramp_rises_from_a_tenth_of_the_rate_to_the_rate() -> None:
    due = due_s("ramp", 1000, 100)
    assert len(due) == 55_000  # the mean of a tenth and the whole
    assert [rate_at(due, s) for s in (0.5, 50, 99.5)] == pytest.approx([104.5, 550, 995.5], abs=2)


def test_a_spike_is_four_times_the_rate_for_a_tenth_of_the_time() -> None:
    due = due_s("spike", 1000, 100)
    assert len(due) == pytest.approx(130_000, abs=5)
    assert [rate_at(due, s) for s in (20, 39, 41, 45, 49, 51, 90)] == pytest.approx(
        [1000, 1000, 4000, 4000, 4000, 1000, 1000], abs=3
    )


def test_a_day_is_quiet_at_night_and_busy_at_noon_and_has_the_rate_on_average() -> None:
    due = due_s("diurnal", 1000, 240)
    assert len(due) == pytest.approx(240_000, abs=2)
    assert [rate_at(due, s) for s in (0.5, 60, 120, 180, 239.5)] == pytest.approx([200, 1000, 1800, 1000, 200], abs=3)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SCHEDULES)), st.floats(1, 50_000), st.floats(0.1, 20))
def test_intended_times_rise_within_the_time_and_none_is_owed(schedule: str, rate: float, seconds: float) -> None:
    due = due_s(schedule, rate, seconds)
    assert (np.diff(due) >= 0).all()
    assert len(due) == 0 or (due[0] == 0 and due[-1] <= seconds)
    # by any moment, as many have left as the rate's integral says: here at the end, by its closed form
    mean = {"steady": 1.0, "ramp": 0.55, "spike": 1.3, "diurnal": 1.0}[schedule]
    assert abs(len(due) - rate * seconds * mean) <= 0.51 + 1e-4 * rate * seconds


def test_a_load_without_contents_is_the_stream_at_other_times() -> None:
    (first, *_), plain = records_of("steady"), list(PAYMENTS.records(N))
    assert [p["payment_id"] for p in decoded(records_of("ramp"))] == [p["payment_id"] for p in decoded(plain)]
    assert (first.time_ms, decoded([first])[0]["ts"]) == (START_MS, START_MS)
    assert [r.time_ms for r in records_of("spike")] == TIMES_MS.tolist()


def test_hot_users_pay_in_proportion_to_their_rank() -> None:
    users = np.array([int(r.key[1:]) for r in records_of("hot")])
    weights = np.arange(1, 1001) ** -ZIPF
    for rank in (1, 2, 10):
        share, expected = np.mean(users == rank - 1), weights[rank - 1] / weights.sum()
        assert share == pytest.approx(expected, abs=4 * (expected / N) ** 0.5)
    assert users.min() == 0
    assert users.max() < 1000


def test_a_share_of_the_events_is_late_by_up_to_two_hours_of_its_record() -> None:
    records = records_of("late")
    late_ms = np.array([r.time_ms - p["ts"] for r, p in zip(records, decoded(records), strict=True)])
    assert [r.time_ms for r in records] == TIMES_MS.tolist()
    assert np.mean(late_ms > 0) == pytest.approx(LATE_SHARE, abs=0.01)
    assert late_ms.min() == 0
    assert LATEST_MS * 0.95 < late_ms.max() <= LATEST_MS


def test_amounts_drift_from_the_half_on() -> None:
    amounts = np.array([p["amount"] for p in decoded(records_of("drift"))])
    plain = np.array([p["amount"] for p in decoded(records_of("steady"))])
    np.testing.assert_array_equal(amounts[: N // 2], plain[: N // 2])
    np.testing.assert_allclose(amounts[N // 2 :], plain[N // 2 :] * DRIFT_TIMES, atol=0.02)
    assert amounts[N // 2 :].mean() / amounts[: N // 2].mean() == pytest.approx(DRIFT_TIMES, rel=0.1)


def test_every_poisoned_record_and_no_other_is_a_dead_letter_of_the_product() -> None:
    load, records = Load.parse("poison"), records_of("poison")
    batch = RecordBatch(
        0,
        0,
        [r.key for r in records],
        [r.value for r in records],
        np.arange(N),
        np.array([r.time_ms for r in records]),
        None,
        0,
        0,
    )
    found = decoder_of(pipeline.lead, 0, pipeline.spec).decode(batch)
    assert [letter.offset for letter in found.dead] == np.flatnonzero(load.bad(PAYMENTS, N)).tolist()
    assert len(found.dead) / N == pytest.approx(POISON_SHARE, rel=0.3)
    assert {letter.code for letter in found.dead} == {"malformed", "empty", "invalid", "ahead"}


def test_a_record_that_is_not_chosen_is_left_as_it_is() -> None:
    (record,) = PAYMENTS.records(1)
    assert spoilt(record, 0) == record
    assert len({spoilt(record, how).value for how in range(6)}) == 6


@settings(max_examples=15, deadline=None)
@given(
    st.sets(st.sampled_from(sorted(CONTENTS))),
    st.integers(0, BLOCK + 300),
    st.integers(1, 400),
)
def test_a_stream_is_the_same_however_it_is_cut(contents: set[str], start: int, n: int) -> None:
    load = Load("steady", tuple(sorted(contents)))
    times_ms = START_MS + np.arange(start + n) * 10
    whole = list(load.records(PAYMENTS, times_ms))
    assert list(load.records(PAYMENTS, times_ms[start:], start)) == whole[start:]
    assert len(load.bad(PAYMENTS, start + n)) == start + n


def test_a_load_is_written_as_its_names() -> None:
    assert Load.parse("") == Load.parse("steady") == Load()
    assert Load.parse(" spike + hot+hot ") == Load("spike", ("hot",))
    assert str(Load.parse("poison+late")) == "steady+poison+late"
    assert Load.parse(str(Load.parse("late+diurnal"))) == Load("diurnal", ("late",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("spikes", "there is no 'spikes'; did you mean 'spike'"),
        ("ramp+spike", "ramp and spike both say when; take one of steady, ramp, spike, diurnal"),
        ("hot+cold", "there is no 'cold'"),
    ],
)
def test_a_load_that_there_is_not_is_wrong_use(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Load.parse(text)
