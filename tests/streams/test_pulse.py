"""Noticing that the process stood still."""

from __future__ import annotations

from streams.pulse import Pulse


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_longest_gap_of_the_last_minute_is_how_long_it_stood_still() -> None:
    clock = Clock()
    pulse = Pulse(clock)
    pulse.beat()
    for _ in range(10):
        clock.now += 0.5
        pulse.beat()
    assert pulse.stood_still_s() == 0.5
    clock.now += 8.0
    assert pulse.stood_still_s() == 8.0, "a gap counts before the next beat, too"
    for _ in range(100):
        clock.now += 0.5
        pulse.beat()
    assert pulse.stood_still_s() == 8.0
    for _ in range(40):
        clock.now += 0.5
        pulse.beat()
    assert pulse.stood_still_s() == 0.5, "it is over"


def test_a_long_start_is_no_standstill() -> None:
    clock = Clock()
    pulse = Pulse(clock)
    clock.now += 20.0
    assert pulse.stood_still_s() == 0.0
    clock.now += 0.5
    pulse.beat()
    assert pulse.stood_still_s() == 0.5
