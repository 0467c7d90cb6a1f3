"""The shop as a crowd visits it: a few users bring most of the events, in bursts with silence between them."""

from __future__ import annotations

import json
import random
from itertools import accumulate
from pathlib import Path

from examples.flights.replay import CLOSED
from features.windows import HOUR_MS, MINUTE_MS
from tests.integration.shop import marks, wide
from tests.integration.tape import Record, Tape, partition_of

STEP_MS, LATE_MS = 500, 45 * MINUTE_MS
GAPS_MS = (12 * MINUTE_MS, 40 * MINUTE_MS, 2 * HOUR_MS, 8 * HOUR_MS)
SECONDS = (0.0, 5.0, 30.0)
"""Of many visits: so that some values are frequent, and come in a row."""


def crowded(folder: Path, name: str, n: int, *, users: int = 2000, burst: int = 5000) -> Tape:
    """`n` events, an order for two visits, with the features of `wide_named`; a burst is about so many events long.

    One in ten comes at the instant of the one before it, one in fifty up to 45 minutes late: too late for some windows.
    The silence between bursts is longer than some windows, or than all.
    """
    draw, now = random.Random(users), 1_700_000_000_000
    chances = list(accumulate(1 / (2 + i) for i in range(users)))
    made = marks(now - LATE_MS, now)
    for i in range(n):
        if draw.random() < 1 / burst:
            now += draw.choice(GAPS_MS)
        now += 0 if draw.random() < 0.1 else round(draw.expovariate(1 / STEP_MS))
        user = f"u{draw.choices(range(users), cum_weights=chances)[0]}"
        ts = now - (draw.randrange(LATE_MS) if draw.random() < 0.02 else 0)
        seconds = draw.choice(SECONDS) if draw.random() < 0.3 else round(draw.expovariate(0.01), 3)
        value = {"order": f"o{i}", "user": user, "amount": round(draw.lognormvariate(3, 1), 2), "ts": ts}
        if i % 3:
            value = {"user": user, "seconds": None if draw.random() < 0.1 else seconds, "ts": ts}
        key = user.encode()
        made.append(Record(int(i % 3 != 0), partition_of(key), key, json.dumps(value).encode(), now))
        if i % 500 == 499:
            made += marks(now - LATE_MS, now)
    return wide(folder, name, [*made, *marks(CLOSED, now)])
