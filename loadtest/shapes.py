"""Shapes of a load: when payments are due, and what is unusual about them.

A load is written as names joined by +, such as `spike+hot+poison`: at most one of SCHEDULES (steady if none), and
any of CONTENTS. All of it is drawn from the seed of the stream: the same load twice is the same payments twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from examples.payments.generate import BLOCK, Columns, Payments, Record, encode
from streams.errors import UsageError, did_you_mean

RAMP_FROM = 0.1
SPIKE_TIMES, SPIKE_FROM, SPIKE_TO = 4.0, 0.4, 0.5
DIURNAL_SWING = 0.8
ZIPF = 1.1
LATE_SHARE, LATEST_MS = 0.05, 2 * 3_600_000
POISON_SHARE = 0.01
DRIFT_FROM, DRIFT_TIMES = 0.5, 3.0
_GRID = 100_001

Profile = Callable[[np.ndarray], np.ndarray]
"""Multiples of the rate at shares of the time: float64 [n] → float64 [n]."""


def _steady(share: np.ndarray) -> np.ndarray:
    return np.ones_like(share)


def _ramp(share: np.ndarray) -> np.ndarray:
    return RAMP_FROM + (1 - RAMP_FROM) * share


def _spike(share: np.ndarray) -> np.ndarray:
    return np.where((share >= SPIKE_FROM) & (share < SPIKE_TO), SPIKE_TIMES, 1.0)


def _diurnal(share: np.ndarray) -> np.ndarray:
    return 1 - DIURNAL_SWING * np.cos(2 * np.pi * share)


SCHEDULES: dict[str, tuple[Profile, str]] = {
    "steady": (_steady, "the rate, all the time"),
    "ramp": (_ramp, f"from {RAMP_FROM:g} of the rate to the rate"),
    "spike": (
        _spike,
        f"the rate, and {SPIKE_TIMES:g} times the rate from {SPIKE_FROM:.0%} to {SPIKE_TO:.0%} of the time",
    ),
    "diurnal": (
        _diurnal,
        f"one day: {1 - DIURNAL_SWING:.1f} of the rate at its ends, {1 + DIURNAL_SWING:.1f} of it at noon",
    ),
}
"""When payments are due: the profile of the rate, and what it is in words."""


def due_s(schedule: str, rate: float, seconds: float) -> np.ndarray:
    """float64 [n], rising: seconds from the start to each payment's intended time, for `seconds` at `rate` a second.

    Payment i is due when the integral of the rate has come to i.
    """
    shares = np.linspace(0.0, 1.0, _GRID)
    multiples = SCHEDULES[schedule][0](shares)
    # by the middles of the grid's cells: the mean of a cell's two ends
    owed = np.concatenate([[0.0], np.cumsum((multiples[1:] + multiples[:-1]) / 2)]) / (_GRID - 1)
    count = round(float(rate * seconds * owed[-1]))
    return np.interp(np.arange(count) / (rate * seconds), owed, shares) * seconds


def hot(columns: Columns, draw: np.random.Generator, users: int, exponent: float = ZIPF) -> Columns:
    """Hot keys: the k-th of the users pays with a probability ∝ 1 / k^exponent (Zipf)."""
    weights = np.arange(1, users + 1, dtype=np.float64) ** -exponent
    ends = np.cumsum(weights / weights.sum())
    found = np.searchsorted(ends, draw.random(len(columns.users)), side="right")
    return columns._replace(users=np.minimum(found, users - 1))


def late(
    columns: Columns, draw: np.random.Generator, share: float = LATE_SHARE, latest_ms: int = LATEST_MS
) -> Columns:
    """Late data: event times of `share` of the payments lie up to `latest_ms` before their records' timestamps."""
    chosen = draw.random(len(columns.times)) < share
    delays = draw.integers(1, latest_ms, len(columns.times), endpoint=True)
    return columns._replace(times=columns.times - np.where(chosen, delays, 0))


def drift(columns: Columns, total: int, start: float = DRIFT_FROM, times: float = DRIFT_TIMES) -> Columns:
    """Drift: from `start` (a share of the `total` payments) on, amounts are `times` as high."""
    return columns._replace(amounts=np.where(columns.numbers >= start * total, times, 1.0) * columns.amounts)


def poisoned(n: int, draw: np.random.Generator, share: float = POISON_SHARE) -> np.ndarray:
    """int64 [n]: 0, and in `share` of the places how the record is spoilt, from 1 on (see `spoilt`)."""
    return np.where(draw.random(n) < share, draw.integers(1, len(_SPOILT), n, endpoint=True), 0)


_SPOILT: tuple[Callable[[bytes], bytes], ...] = (
    lambda value: value[:-7],
    lambda value: b"",
    lambda value: value.replace(b'"amount":', b'"amount":"a lot","was":'),
    lambda value: value.replace(b'"user_id":', b'"user":'),
    lambda value: value.replace(b'"ts":', b'"ts":9'),  # thousands of years ahead
)
"""Cut short, empty, of the wrong type, without its key field, of the future."""


def spoilt(record: Record, how: int) -> Record:
    """The record with a value that nobody can score; `how`: 1 … number of ways, 0 = as it is."""
    return record._replace(value=_SPOILT[how - 1](record.value)) if how else record


CONTENTS = {
    "hot": f"hot keys: the k-th user pays in proportion to 1 / k^{ZIPF:g}",
    "late": f"{LATE_SHARE:.0%} of the event times lie up to {LATEST_MS // 3_600_000} h before their record's timestamp",
    "poison": f"{POISON_SHARE:.0%} of the records cannot be decoded",
    "drift": f"amounts are {DRIFT_TIMES:g} times as high from {DRIFT_FROM:.0%} of the payments on",
}
"""What may be unusual about the payments, in words."""


@dataclass(frozen=True)
class Load:
    """`schedule`: of SCHEDULES; `contents`: of CONTENTS."""

    schedule: str = "steady"
    contents: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Load:
        """Of names joined by +. UsageError for a name that there is not, or two schedules."""
        names = [name.strip() for name in text.split("+") if name.strip()]
        known = [*SCHEDULES, *CONTENTS]
        for name in names:
            if name not in known:
                raise UsageError(f"--shape: there is no {name!r}{did_you_mean(name, known)}; one of {', '.join(known)}")
        when = [name for name in names if name in SCHEDULES]
        if len(when) > 1:
            raise UsageError(f"--shape: {when[0]} and {when[1]} both say when; take one of {', '.join(SCHEDULES)}")
        return cls(when[0] if when else "steady", tuple(dict.fromkeys(n for n in names if n in CONTENTS)))

    def __str__(self) -> str:
        return "+".join((self.schedule, *self.contents))

    def due_s(self, rate: float, seconds: float) -> np.ndarray:
        """float64 [n]: seconds from the start to each payment's intended time."""
        return due_s(self.schedule, rate, seconds)

    def records(self, payments: Payments, times_ms: np.ndarray, start: int = 0) -> Iterator[Record]:
        """Payments `start` … `start` + n - 1 of the stream, with this load's contents; times_ms: int64 [n], their
        event times and timestamps.
        """
        return islice(self._spoilt(payments, times_ms, start), len(times_ms))

    def bad(self, payments: Payments, total: int) -> np.ndarray:
        """bool [total]: which of the first payments of the stream cannot be decoded, and get no prediction."""
        if "poison" not in self.contents or not total:
            return np.zeros(total, dtype=bool)
        codes = [self._poison(payments, block) for block in range(-(-total // BLOCK))]
        return np.concatenate(codes)[:total] > 0

    def _spoilt(self, payments: Payments, times_ms: np.ndarray, start: int) -> Iterator[Record]:
        total = start + len(times_ms)
        for block, columns in enumerate(payments.blocks()):
            first = block * BLOCK
            if first >= total:
                return
            if first + BLOCK <= start:
                continue
            begin, end = max(start - first, 0), min(total - first, BLOCK)
            given = times_ms[first + begin - start : first + end - start]
            changed = Columns(*(column[begin:end] for column in self._changed(payments, columns, block, total)))
            lag = changed.times - changed.stamps
            records = encode(changed._replace(times=given + lag, stamps=given))
            if "poison" not in self.contents:
                yield from records
            else:
                yield from map(spoilt, records, self._poison(payments, block)[begin:end].tolist())

    def _changed(self, payments: Payments, columns: Columns, block: int, total: int) -> Columns:
        for name in self.contents:
            if name == "hot":
                columns = hot(columns, _draw(payments, block, name), payments.users)
            elif name == "late":
                columns = late(columns, _draw(payments, block, name))
            elif name == "drift":
                columns = drift(columns, total)
        return columns

    def _poison(self, payments: Payments, block: int) -> np.ndarray:
        return poisoned(BLOCK, _draw(payments, block, "poison"))


STEADY = Load()


def _draw(payments: Payments, block: int, name: str) -> np.random.Generator:
    """A block's own, so that what is drawn does not depend on how the stream is cut."""
    return np.random.default_rng([payments.seed, block, 2 + list(CONTENTS).index(name)])
