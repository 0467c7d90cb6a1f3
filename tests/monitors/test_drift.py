"""The fold from blocks to drift events: when it speaks, what it says, and that it says it again the same."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from monitors.block import Block, Column, Labelled, VersionLoss
from monitors.drift import DriftFold
from monitors.loop import Drift, to_json
from monitors.predictions import Kinds
from monitors.watch import DEFAULT_WATCHES, Watch
from tests.monitors.drift_blocks import DAY, EVENTS, block, category, column, number, samples

KINDS: Kinds = {"amount": "number", "city": "category"}
NEAR = {"window": 7, "reference_blocks": 21}
"""Settings that compare soon, for short tests."""


def folded(blocks: list[Block], *watches: Watch, kinds: Kinds = KINDS) -> list[Drift]:
    fold = DriftFold("p", watches or DEFAULT_WATCHES, kinds)
    return [drift for one in blocks for drift in fold.update(one)]


def year(days: int = 200, change: int | None = 120, seed: int = 0) -> list[Block]:
    """Blocks whose amount changes at a day; all else is calm."""
    amounts = samples("number", days, seed)
    if change is not None:
        amounts[change:] = samples("number", days - change, seed + 1, changed=True)
    cities = samples("category", days, seed + 2)
    scores = samples("number", days, seed + 3)
    rates = samples("rate", days, seed + 4)
    return [
        block(
            at,
            features={"amount": column(amounts[at]), "city": column(cities[at])},
            score=column(scores[at]),
            label=Labelled(n=EVENTS, value=rates[at].value),
            versions={"1": VersionLoss(EVENTS, EVENTS, loss=0.5 + scores[at].value / 100, errors=rates[at].value)},
            served={"1": EVENTS},
        )
        for at in range(days)
    ]


def test_a_change_of_one_feature_brings_one_drift_of_it_and_nothing_else() -> None:
    (drift,) = folded(year())
    assert (drift.pipeline, drift.signal, drift.detector) == ("p", "feature.amount", "psi")
    assert 120 <= drift.first < drift.last < 150
    assert drift.time == (drift.last + 1) * DAY
    assert drift.statistic > drift.threshold
    assert drift.after.mean > drift.before.mean + 0.3
    assert 0 < drift.severity < 1


def test_a_calm_year_brings_none() -> None:
    assert folded(year(change=None)) == []


def test_a_replay_brings_the_same_bytes_and_another_declaration_other_ids() -> None:
    blocks = year()
    once, again = folded(blocks), folded(blocks)
    assert [to_json(one) for one in once] == [to_json(one) for one in again]
    other = folded(blocks, *DEFAULT_WATCHES[1:], Watch("feature.*", detector="psi", confirm=7, classes=11))
    assert once
    assert other
    assert {one.id for one in once}.isdisjoint(one.id for one in other)


@pytest.mark.parametrize("stopped", [1, 60, 121, 140, 199])
def test_a_restart_by_replay_goes_on_as_if_there_had_been_none(stopped: int) -> None:
    blocks = year()
    whole = DriftFold("p", DEFAULT_WATCHES, KINDS)
    for one in blocks[:stopped]:
        whole.update(one)
    again = DriftFold("p", DEFAULT_WATCHES, KINDS)
    for one in blocks[:stopped]:
        again.update(one)
    assert again.statistics() == whole.statistics()
    for one in blocks[stopped:]:
        assert again.update(one) == whole.update(one)
        assert again.statistics() == whole.statistics()


def test_a_block_that_comes_again_brings_nothing() -> None:
    blocks = year()
    doubled = [one for at, each in enumerate(blocks) for one in (each, blocks[max(at - 5, 0)])]
    assert folded(doubled) == folded(blocks)


def test_what_lasts_less_than_confirm_blocks_is_none() -> None:
    calm = [number(np.arange(100.0) + at % 2) for at in range(60)]
    burst = [*calm[:40], *[number(np.arange(100.0) + 900)] * 2, *calm[42:]]
    blocks = [block(at, features={"amount": column(one)}) for at, one in enumerate(burst)]
    own: Kinds = {"amount": "number"}
    for confirm, events in ((5, 1), (9, 0)):
        # The window holds the two blocks for eight days.
        found = folded(blocks, Watch("feature.amount", confirm=confirm, times=3.0, cooldown=60, **NEAR), kinds=own)
        assert len(found) == events, confirm
    assert [drift.last - drift.first for drift in folded(blocks, Watch("feature.*", confirm=4, **NEAR), kinds=own)] == [
        3
    ]


def test_warm_up_and_cooldown_are_silent() -> None:
    levels = [at // 40 for at in range(240)]  # a step every 40 days
    draw = np.random.default_rng(0)
    blocks = [block(at, features={"amount": column(number(draw.normal(one, 1, 100)))}) for at, one in enumerate(levels)]
    own: Kinds = {"amount": "number"}
    told = folded(blocks, Watch("feature.amount", cooldown=0, **NEAR), kinds=own)
    assert [40 * (at + 1) <= one.last < 40 * (at + 1) + 10 for at, one in enumerate(told)] == [True] * 5
    late = folded(blocks, Watch("feature.amount", cooldown=0, warm_up=100, **NEAR), kinds=own)
    assert min(one.last for one in late) >= 100
    rare = folded(blocks, Watch("feature.amount", cooldown=60, **NEAR), kinds=own)
    assert len(rare) < 5
    assert all(b.last - a.last > 60 for a, b in pairwise(rare))


def test_blocks_with_few_events_are_passed_over() -> None:
    blocks = year()
    few = [
        block(1000 * at + 1, features={"amount": Column(9, mean=1e9, bins={"1300": 9})}, score=Column(0))
        for at in range(len(blocks))
    ]
    spread = [
        Block(one.id, "p", 1000 * at, one.start, one.end, served=one.served, features=one.features)
        for at, one in enumerate(blocks)
    ]
    mixed = [one for pair in zip(spread, few, strict=True) for one in pair]
    assert folded(mixed) == folded(spread) != []


def test_what_is_not_finite_and_what_is_missing_bring_nothing() -> None:
    odd = [
        block(at, features={"amount": Column(EVENTS, mean=value, bins={})}, score=Column(0, nulls=EVENTS))
        for at, value in enumerate([float("nan"), float("inf"), -float("inf")] * 60)
    ]
    everything = [Watch("*", detector=name) for name in ("shift", "psi", "ks", "wasserstein", "adwin", "kswin", "ddm")]
    assert folded(odd, *everything) == []
    assert folded([block(at) for at in range(200)], *everything) == []


def test_a_feature_that_turns_null_is_told_by_its_nulls() -> None:
    blocks = year(change=None)
    for at in range(120, 200):
        gone = {**blocks[at].features, "amount": Column(0, nulls=EVENTS)}
        blocks[at] = block(at, features=gone, score=blocks[at].score)
    (drift,) = folded(blocks)
    assert drift.signal == "null.amount"
    assert drift.last < 127
    assert (drift.before.mean, drift.after.n) == (0.0, 28 * EVENTS)


def test_a_feature_that_is_constant_brings_nothing_and_a_hundred_times_the_traffic_neither() -> None:
    busy = 100 * EVENTS
    blocks = [
        block(
            at,
            features={
                "amount": Column(busy if at == 130 else EVENTS, mean=0.1, bins={"988": busy if at == 130 else EVENTS}),
                "city": column(category([busy if at == 130 else EVENTS])),
            },
        )
        for at in range(200)
    ]
    assert folded(blocks, Watch("*"), Watch("*", detector="psi"), Watch("*", detector="wasserstein")) == []


def test_a_month_without_labels_is_no_drift_of_the_loss() -> None:
    blocks = year(change=None)
    for at in range(100, 130):
        blocks[at] = block(at, features=blocks[at].features, score=blocks[at].score, served=blocks[at].served)
    assert folded(blocks, *DEFAULT_WATCHES, Watch("errors", detector="ddm")) == []


def losses(old: float, new: float, promoted: int, days: int = 200, shadow: int = 10) -> list[Block]:
    """Version 1 is replaced by 2, which ran as its shadow for some days; then 1 is the shadow for some."""
    draw = np.random.default_rng(5)
    found = []
    for at in range(days):
        weather = draw.normal(0, 0.01)
        versions = {}
        for name, level, there in (("1", old, at < promoted + shadow), ("2", new, at >= promoted - shadow)):
            if there:
                served = EVENTS if (name == "1") == (at < promoted) else 0
                versions[name] = VersionLoss(EVENTS, served, loss=level + weather, errors=level / 2 + weather)
        found.append(block(at, versions=versions, served={"1" if at < promoted else "2": EVENTS}))
    return found


LOSS = (DEFAULT_WATCHES[-1], Watch("errors", detector="adwin"), Watch("errors", detector="shift"))


@pytest.mark.parametrize("shadow", [0, 1, 10])
def test_another_champion_is_no_drift_of_the_loss(shadow: int) -> None:
    for new in (0.3, 0.7):
        assert folded(losses(0.5, new, 120, shadow=shadow), *LOSS) == []


def test_the_loss_of_another_champion_that_becomes_worse_is_told() -> None:
    blocks = losses(0.5, 0.3, 120)
    for at in range(135, 200):
        old = blocks[at].versions["2"]
        worse = VersionLoss(old.n, old.served, loss=old.loss + 0.2, errors=old.errors)
        blocks[at] = block(at, versions={"2": worse}, served={"2": EVENTS})
    (drift,) = folded(blocks, LOSS[0])
    assert drift.signal == "loss"
    assert 135 < drift.last < 150


def test_the_score_of_another_champion_is_no_drift() -> None:
    scores = samples("number", 100, 1) + samples("number", 100, 2, changed=True)
    watch = Watch("score", detector="psi")
    told = [block(at, score=column(one), served={"1": EVENTS}) for at, one in enumerate(scores)]
    assert len(folded(told, watch)) == 1
    new = [block(at, score=column(one), served={"1" if at < 100 else "2": EVENTS}) for at, one in enumerate(scores)]
    assert folded(new, watch) == []


def test_features_are_compared_with_those_before_the_promotion() -> None:
    """A slow trend is told where the reference stays, and less soon where a model was trained on the newer blocks."""
    draw = np.random.default_rng(2)
    trend = [column(number(draw.normal(at / 60 + draw.normal(0, 0.25), 1, EVENTS))) for at in range(150)]
    own: Kinds = {"amount": "number"}

    def days(promoted: int) -> list[int]:
        blocks = [
            block(at, features={"amount": one}, served={"1" if at < promoted else "2": EVENTS})
            for at, one in enumerate(trend)
        ]
        return [drift.last for drift in folded(blocks, Watch("feature.*", window=14, times=2.0), kinds=own)]

    kept, renewed = days(1000), days(95)
    assert kept
    assert renewed[0] > kept[0] or kept[0] < 95


def test_statistics_are_there_once_a_detector_can_compare() -> None:
    fold = DriftFold("p", DEFAULT_WATCHES, KINDS)
    assert fold.statistics() == {}
    for one in year():
        fold.update(one)
    found = fold.statistics()
    assert found["score", "psi"].statistic < found["score", "psi"].threshold
    assert {signal for signal, _ in found} >= {"score", "label", "loss", "feature.city", "null.amount"}
