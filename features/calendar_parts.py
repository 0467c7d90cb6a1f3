"""Parts of the calendar at an event's time, in a time zone: hour, weekday …, over whole columns."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import numpy as np

_DAY_S, _FIRST, _LAST = 86_400, 0, 84_000
"""Days since 1970 between which changes of a zone's offset are looked up: until the end of 2199. Before and after, the
offset of that border holds."""


def _months(local_s: np.ndarray) -> np.ndarray:
    return local_s.astype("datetime64[s]").astype("datetime64[M]")


PARTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "minute": lambda s: s // 60 % 60,
    "hour": lambda s: s // 3600 % 24,
    "minute_of_day": lambda s: s // 60 % 1440,
    "weekday": lambda s: (s // _DAY_S + 3) % 7,
    "weekend": lambda s: (s // _DAY_S + 3) % 7 >= 5,
    "day": lambda s: (s // _DAY_S - _months(s).astype("datetime64[D]").astype(np.int64)) + 1,
    "month": lambda s: _months(s).astype(np.int64) % 12 + 1,
}
"""By name, of local seconds since 1970 int64 [n]. weekday: 0 is Monday; weekend: 1 on Saturday and Sunday."""


def part_of(part: str, zone: str, times_ms: np.ndarray) -> np.ndarray:
    """The part float64 [n] at event times int64 [n]."""
    seconds = times_ms // 1000
    changes, offsets = _offsets(zone)
    local = seconds + offsets[np.searchsorted(changes, seconds, side="right")]
    return PARTS[part](local).astype(np.float64)


@cache
def _offsets(zone: str) -> tuple[np.ndarray, np.ndarray]:
    """When the zone's offset changes, int64 [k] seconds since 1970, and the offsets int64 [k + 1] before and after.

    It is asked at every midnight, and where it differs from the day before, the second is found by halving.
    """
    info = ZoneInfo(zone)
    changes: list[int] = []
    offsets = [_offset(info, _FIRST)]
    for day in range(_FIRST, _LAST):
        low, high = day * _DAY_S, (day + 1) * _DAY_S
        after = _offset(info, high)
        if after == offsets[-1]:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            if _offset(info, middle) == offsets[-1]:
                low = middle
            else:
                high = middle
        changes.append(high)
        offsets.append(after)
    return np.array(changes, dtype=np.int64), np.array(offsets, dtype=np.int64)


def _offset(zone: ZoneInfo, seconds: int) -> int:
    found = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).astimezone(zone).utcoffset()
    return 0 if found is None else int(found.total_seconds())
