"""Calendar parts against zoneinfo, one event at a time."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from features.calendar_parts import PARTS, part_of

SPOKEN = {
    "minute": lambda t: t.minute,
    "hour": lambda t: t.hour,
    "minute_of_day": lambda t: 60 * t.hour + t.minute,
    "weekday": lambda t: t.weekday(),
    "weekend": lambda t: t.weekday() >= 5,
    "day": lambda t: t.day,
    "month": lambda t: t.month,
}


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu"])
def test_parts_are_those_of_zoneinfo(zone: str) -> None:
    random = np.random.default_rng(1)
    seconds = random.integers(0, 84_000 * 86_400, 2000)
    # Around each change of 2024's clocks, second by second.
    for month, day in ((3, 10), (3, 31), (4, 7), (10, 6), (10, 27), (11, 3)):
        midnight = int(datetime(2024, month, day, tzinfo=UTC).timestamp())
        seconds = np.concatenate([seconds, midnight + np.arange(-86_400, 86_400, 449)])
    spoken = [datetime.fromtimestamp(s, ZoneInfo(zone)) for s in seconds.tolist()]
    assert set(SPOKEN) == set(PARTS)
    for part, of in SPOKEN.items():
        found = part_of(part, zone, seconds * 1000 + 999)
        np.testing.assert_array_equal(found, [float(of(time)) for time in spoken], err_msg=part)
