"""Sawtooth windows: a length in event time, cut into panes.

The value of a window at an event covers whole panes: with p the event's pane, h the newest pane that the
entity has seen (or p, if newer) and n panes a window, the panes (h − n, p], as of just before the event.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
_UNITS = {"ms": 1, "s": 1000, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS}


class WindowError(ValueError):
    """A duration or window that cannot be; the message says the mend."""


def parse_duration(text: str) -> int:
    """Milliseconds of a duration such as "250ms", "90s", "15m", "3h" or "7d"."""
    found = re.fullmatch(r"([1-9]\d*)(ms|s|m|h|d)", text)
    if not found:
        raise WindowError(
            f'{text!r} is not a duration; write a whole number and ms, s, m, h or d, like "15m"'
        )
    return int(found[1]) * _UNITS[found[2]]


@dataclass(frozen=True)
class Window:
    """`text` as declared (it names the feature); `length_ms` = `panes` × `pane_ms`."""

    text: str
    length_ms: int
    pane_ms: int

    @property
    def panes(self) -> int:
        return self.length_ms // self.pane_ms

    @classmethod
    def parse(cls, text: str) -> Window:
        length = parse_duration(text)
        pane = _pane_ms(length)
        step = 12 if length < HOUR_MS else pane
        if length % step:
            unit = {12: "12 ms", 5 * MINUTE_MS: "5 m", HOUR_MS: "1 h", DAY_MS: "1 d"}[step]
            raise WindowError(f"window {text!r} is not a multiple of its pane ({unit}); choose one that is")
        return cls(text, length, pane)


def _pane_ms(length_ms: int) -> int:
    if length_ms < HOUR_MS:
        return length_ms // 12
    if length_ms < 12 * HOUR_MS:
        return 5 * MINUTE_MS
    if length_ms < 12 * DAY_MS:
        return HOUR_MS
    return DAY_MS
