"""Windows: a length in event time cut into panes (sawtooth), the latest events, or all events.

The value of a sawtooth window at an event covers whole panes: with p the event's pane, h the newest pane that the
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


@dataclass(frozen=True)
class LastEvents:
    """The `events` latest events by event time; of equal times, the later to arrive is the later."""

    events: int

    @property
    def text(self) -> str:
        return f"last{self.events}"


@dataclass(frozen=True)
class Forever:
    """All events, until there has been none for a while."""

    @property
    def text(self) -> str:
        return "forever"


AnyWindow = Window | LastEvents | Forever

MOST_EVENTS = 1000
"""Of a window of latest events, and of a lag: each is 16 bytes of an entity's state."""


def parse_window(text: str) -> AnyWindow:
    """The window of "1h", "last 5" or "forever"."""
    if text == "forever":
        return Forever()
    if found := re.fullmatch(r"last ?(\d+)", text):
        return LastEvents(check_events(int(found[1])))
    try:
        return Window.parse(text)
    except WindowError as error:
        if re.match(r"[0-9]", text):
            raise
        raise WindowError(f'{text!r} is not a window; write a duration like "1h", "last 5" or "forever"') from error


def check_events(events: int) -> int:
    """`events`, if a window may be so many."""
    if not 1 <= events <= MOST_EVENTS:
        raise WindowError(f"{events} events: choose 1 to {MOST_EVENTS}; each is kept")
    return events
