"""How far a topic has been read: the slowest partition says, unless it has nothing to say."""

from __future__ import annotations

from streams.clocks import Clock


class Hands:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_slowest_partition_says_how_late_it_is() -> None:
    clock = Clock(2)
    assert clock.now() == -1
    clock.advance(0, 50)
    assert clock.now() == -1
    clock.advance(1, 30)
    clock.advance(1, 20)  # late
    assert clock.now() == 30


def test_a_partition_without_records_holds_nobody_up() -> None:
    clock = Clock(2)
    clock.advance(0, 50)
    clock.at_end(1)
    assert clock.now() == 50
    clock.advance(1, 10)
    assert clock.now() == 10


def test_a_partition_at_its_end_holds_the_others_up_for_a_while() -> None:
    hands = Hands()
    clock = Clock(2, idle_s=5, monotonic=hands)
    clock.advance(0, 50)
    clock.advance(1, 10)
    clock.at_end(1)
    assert clock.now() == 10
    hands.now += 4
    clock.at_end(1)  # said again: it has been there all the time
    hands.now += 1
    assert clock.now() == 50
    clock.advance(1, 11)
    assert clock.now() == 11


def test_after_a_time_in_which_nothing_was_read_who_was_at_its_end_is_waited_for_anew() -> None:
    hands = Hands()
    clock = Clock(2, idle_s=5, monotonic=hands)
    clock.advance(0, 50)
    clock.advance(1, 10)
    clock.at_end(1)
    hands.now += 60
    clock.went_on()
    assert clock.now() == 10
    hands.now += 5
    assert clock.now() == 50


def test_when_all_are_idle_the_newest_says() -> None:
    hands = Hands()
    clock = Clock(2, idle_s=5, monotonic=hands)
    for partition, time_ms in ((0, 50), (1, 10)):
        clock.advance(partition, time_ms)
        clock.at_end(partition)
    hands.now += 6
    assert clock.now() == 50


def test_it_is_taken_up_again() -> None:
    before = Clock(2)
    before.advance(0, 50)
    before.advance(1, 30)
    after = Clock(2)
    after.restore(before.times)
    assert after.now() == 30


def test_a_partition_whose_events_wait_for_a_worker_is_not_idle() -> None:
    hands, waiting = Hands(), {0: False, 1: True}
    clock = Clock(2, idle_s=5, waits=waiting.__getitem__, monotonic=hands)
    clock.advance(0, 50)
    clock.at_end(1)
    assert clock.now() == -1
    clock.advance(1, 10)
    clock.at_end(1)
    hands.now += 20
    assert clock.now() == 10
    waiting[1] = False
    assert clock.now() == 50
    waiting[1] = True
    hands.now += 45  # a minute: whatever waits there is waited for no longer
    assert clock.now() == 50
