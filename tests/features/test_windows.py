"""Durations and panes."""

from __future__ import annotations

import pytest

from features.windows import DAY_MS, HOUR_MS, MINUTE_MS, Window, WindowError, parse_duration


@pytest.mark.parametrize(
    ("text", "length_ms", "pane_ms"),
    [
        ("12ms", 12, 1),
        ("1m", MINUTE_MS, 5000),
        ("30m", 30 * MINUTE_MS, 150_000),
        ("1h", HOUR_MS, 5 * MINUTE_MS),
        ("65m", 65 * MINUTE_MS, 5 * MINUTE_MS),
        ("12h", 12 * HOUR_MS, HOUR_MS),
        ("7d", 7 * DAY_MS, HOUR_MS),
        ("12d", 12 * DAY_MS, DAY_MS),
        ("30d", 30 * DAY_MS, DAY_MS),
    ],
)
def test_a_pane_is_a_twelfth_then_five_minutes_an_hour_a_day(text: str, length_ms: int, pane_ms: int) -> None:
    window = Window.parse(text)
    assert (window.length_ms, window.pane_ms) == (length_ms, pane_ms)
    assert window.panes * pane_ms == length_ms


@pytest.mark.parametrize(
    ("text", "unit"), [("5ms", "12 ms"), ("10s", "12 ms"), ("61m", "5 m"), ("750m", "1 h"), ("290h", "1 d")]
)
def test_a_window_that_does_not_divide_into_panes_is_an_error(text: str, unit: str) -> None:
    with pytest.raises(WindowError, match=rf"not a multiple of its pane \({unit}\); choose one that is"):
        Window.parse(text)


@pytest.mark.parametrize("text", ["", "h", "0h", "1.5h", "-1h", "1 h", "1w", "01h", "1h30m"])
def test_what_is_no_duration_is_an_error_that_says_how_to_write_one(text: str) -> None:
    with pytest.raises(WindowError, match="is not a duration; write a whole number"):
        parse_duration(text)
