"""A flood is payments like the example's, of the users that it says."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import msgspec
import numpy as np
import pytest

from examples.payments.pipeline import Payment
from loadtest.flood import BLOCK, Flood
from loadtest.variants import Variant


def test_the_first_payments_are_the_same_however_many_follow() -> None:
    assert list(Flood().records(BLOCK + 10))[:100] == list(Flood().records(100))


def test_every_value_is_a_payment_with_its_key_and_its_time() -> None:
    records = list(Flood(users=1_000_000, start_ms=1_700_000_000_000).records(1000))
    events = [msgspec.json.decode(record.value, type=Payment, strict=True) for record in records]
    assert [event.user_id.encode() for event in events] == [record.key for record in records]
    assert [event.ts for event in events] == [record.time_ms for record in records]
    assert [event.payment_id for event in events[:2]] == ["p00000000", "p00000001"]
    assert len({event.payment_id for event in events}) == 1000
    assert len({event.merchant for event in events}) > 300
    assert all(0.01 <= event.amount < 100_000 for event in events)
    assert np.median([event.amount for event in events]) == pytest.approx(np.exp(3.2), rel=0.2)


def test_each_user_pays_once_before_any_pays_again_and_then_all_are_drawn_evenly() -> None:
    users = np.concatenate(list(Flood(users=1000).drawn(101_000)))
    assert sorted(users[:1000]) == list(range(1000))
    assert list(users[:1000]) != list(range(1000))
    later = Counter(users[1000:].tolist())
    assert len(later) == 1000
    assert max(later.values()) < 160  # of 100, with a standard deviation of 10
    assert min(later.values()) > 50


def test_a_flood_may_draw_all_of_its_users() -> None:
    drawn = np.concatenate(list(Flood(users=1000, each_first=False).drawn(1000)))
    assert len(set(drawn.tolist())) == pytest.approx(632, abs=60)


def test_a_user_pays_once_in_the_time_between_payments() -> None:
    records = list(Flood(users=100, every_s=10.0, start_ms=0).records(1001))
    assert records[-1].time_ms == 100_000
    assert all(before.time_ms <= after.time_ms for before, after in pairwise(records))


def test_further_numbers_are_those_of_the_variant_that_reads_them() -> None:
    event = Variant("v", "t", features=50, numbers=16).event
    (record,) = Flood(numbers=16).records(1)
    decoded = msgspec.json.decode(record.value, type=event, strict=True)
    assert len({getattr(decoded, f"x{i:02d}") for i in range(1, 17)}) > 10
