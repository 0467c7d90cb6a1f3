"""What every detector of the table does, on everything that it takes."""

from __future__ import annotations

import math

import pytest

from monitors.detectors import DETECTORS
from monitors.detectors.base import Detector, Sample, Takes, Verdict
from tests.monitors.drift_blocks import EVENTS, PAIRS, category, samples

WITHIN = 70
"""Blocks after a change of four standard deviations in which it is told."""
YEARS = 8

each = pytest.mark.parametrize(("name", "takes"), PAIRS)


def detector(name: str, takes: Takes) -> Detector:
    return DETECTORS[name]().build(takes == "category")


def replayed(name: str, takes: Takes, blocks: list[Sample]) -> list[Verdict | None]:
    state = detector(name, takes)
    return [state.update(one) for one in blocks]


def alarms(name: str, takes: Takes, blocks: list[Sample]) -> list[int]:
    """Blocks at which a change is told for the third time in a row; the detector goes on from there."""
    state, row, found = detector(name, takes), 0, []
    for at, sample in enumerate(blocks):
        verdict = state.update(sample)
        row = row + 1 if verdict is not None and verdict.beyond else 0
        if row == 3:
            found.append(at)
            state.restart()
            row = 0
    return found


@each
def test_noise_without_memory_brings_at_most_one_alarm_in_two_years(name: str, takes: Takes) -> None:
    found = [len(alarms(name, takes, samples(takes, 365, seed))) for seed in range(YEARS)]
    assert sum(found) <= YEARS / 2, found


@each
@pytest.mark.parametrize("seed", range(3))
def test_a_large_change_is_told_soon_and_once(name: str, takes: Takes, seed: int) -> None:
    blocks = samples(takes, 112, seed) + samples(takes, 112, seed + 100, changed=True)
    found = alarms(name, takes, blocks)
    assert [at for at in found if at < 112] == []
    assert found, "missed"
    assert found[0] < 112 + WITHIN


@each
def test_before_and_after_tell_the_change(name: str, takes: Takes) -> None:
    state = detector(name, takes)
    told = [state.update(one) for one in samples(takes, 112, 1) + samples(takes, 60, 2, changed=True)]
    first = next(one for one in told if one is not None and one.beyond)
    assert first.before.n == first.before.blocks * EVENTS
    assert first.after.n == first.after.blocks * EVENTS
    assert takes == "category" or first.after.mean > first.before.mean


@each
def test_the_same_blocks_bring_the_same_verdicts(name: str, takes: Takes) -> None:
    blocks = samples(takes, 100, 3) + samples(takes, 40, 4, changed=True)
    assert repr(replayed(name, takes, blocks)) == repr(replayed(name, takes, blocks))


@each
def test_two_states_of_one_declaration_share_nothing(name: str, takes: Takes) -> None:
    settings, blocks = DETECTORS[name](), samples(takes, 150, 5)
    alone = replayed(name, takes, blocks)
    one, two = (settings.build(takes == "category") for _ in range(2))
    found = []
    for sample, other in zip(blocks, samples(takes, 150, 6, changed=True), strict=True):
        found.append(one.update(sample))
        two.update(other)
    assert repr(found) == repr(alone)


@each
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_what_never_changes_brings_no_alarm(name: str, takes: Takes, value: float) -> None:
    ones = round(value * EVENTS)
    bins = {"rate": {"0": EVENTS - ones, "1016": ones}, "number": {"1002": EVENTS}, "mean": {}}
    same = category([EVENTS]) if takes == "category" else Sample(value, EVENTS, bins[takes])
    told = replayed(name, takes, [same] * 300)
    assert not any(one.beyond for one in told if one is not None)


@each
def test_a_step_of_what_never_changed_is_told(name: str, takes: Takes) -> None:
    if takes == "category":
        before, after = category([EVENTS]), category([0, EVENTS])
    else:
        before, after = Sample(0.0, EVENTS, {"0": EVENTS}), Sample(0.5, EVENTS, {"1008": EVENTS})
        if takes == "rate":
            after = Sample(0.5, EVENTS, {"0": EVENTS // 2, "1016": EVENTS // 2})
    told = replayed(name, takes, [before] * 120 + [after] * 40)
    assert any(one.beyond for one in told if one is not None)


@each
def test_extreme_values_are_taken(name: str, takes: Takes) -> None:
    if takes == "category":
        far = category([1] * 5000)
    elif takes == "rate":
        far = Sample(1.0, 10**12, {"1016": 10**12})
    else:
        far = Sample(3.4e38, 10**12, {"2039": 10**12})
    low = far if takes in ("category", "rate") else Sample(-3.4e38, 1, {"-2039": 1})
    told = replayed(name, takes, [*samples(takes, 80, 7), far, low, *samples(takes, 80, 8)] + [far, low] * 40)
    assert all(math.isfinite(x) for one in told if one is not None for x in one[:2])


@each
def test_each_block_counts_once_whatever_its_traffic(name: str, takes: Takes) -> None:
    """A hundred times the traffic for a block moves no detector that the block's level does not."""
    blocks = samples(takes, 140, 9)
    busy = [
        one._replace(n=one.n * 100, bins={key: n * 100 for key, n in one.bins.items()}) if at % 10 == 0 else one
        for at, one in enumerate(blocks)
    ]
    calm, crowded = replayed(name, takes, blocks), replayed(name, takes, busy)
    assert [None if one is None else one.statistic for one in crowded] == pytest.approx(
        [None if one is None else one.statistic for one in calm], nan_ok=False
    )
