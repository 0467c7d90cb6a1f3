"""The study's blocks against those of the monitor, and what shuffling keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from monitors.archive import Archive
from monitors.block import Block
from monitors.blocks import FINISHED, BlockBuilder
from monitors.join import Joined
from monitors.shuffled import DAY_MS, Examples
from tests.monitors.records import HOUR, KINDS, label, prediction

DAYS = 23
PER_DAY = 40


def rows() -> list[Joined]:
    draw = np.random.default_rng(0)
    found = []
    for at in range(DAYS * PER_DAY):
        time = at * DAY_MS // PER_DAY
        score = None if time < 5 * DAY_MS else float(draw.random())
        amount = None if draw.random() < 0.1 else float(np.float32(draw.normal(time / DAY_MS, 3)))
        city = str(draw.choice(["Rome", "Oslo", "Bonn"]))
        made = prediction(f"p{at}", time, offset=at, score=score, amount=amount, city=city)
        known = (
            None
            if draw.random() < 0.1
            else label(f"p{at}", time + int(draw.integers(0, 40)) * HOUR, float(draw.random() < 0.3))
        )
        found.append(Joined(made, known))
    return found


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    folder: Path = tmp_path_factory.mktemp("archive")
    archive = Archive(folder, KINDS)
    archive.add(rows())
    archive.flush("0", 1)
    archive.add(rows()[:50])  # a file of another incarnation holds them once more
    archive.flush("1", 1)
    return Examples.of(folder)


def test_the_blocks_are_those_that_the_monitor_builds(examples: Examples) -> None:
    builder = BlockBuilder("study", KINDS, every_ms=DAY_MS)
    builder.predictions([row.prediction for row in rows()])
    builder.joined(rows())
    expected = builder.close(FINISHED, {})
    found = list(examples.blocks())
    assert len(found) == DAYS <= len(expected)  # the last labels come later
    for ours, theirs in zip(found, expected, strict=False):
        assert (ours.number, ours.start, ours.end) == (theirs.number, theirs.start, theirs.end)
        assert (ours.predictions, ours.unscored, ours.served) == (theirs.predictions, theirs.unscored, theirs.served)
        for one, other in (
            (ours.score, theirs.score),
            *((ours.features[name], theirs.features[name]) for name in KINDS),
        ):
            assert (one.n, one.nulls, one.bins) == (other.n, other.nulls, other.bins)
            assert one.mean == pytest.approx(other.mean, rel=1e-6, abs=1e-6)
        assert ours.labels.n == theirs.labels.n
        assert ours.labels.value == pytest.approx(theirs.labels.value, abs=1e-9)
        assert set(ours.versions) == set(theirs.versions)
        for name, loss in ours.versions.items():
            assert loss.n == theirs.versions[name].n
            assert loss.loss == pytest.approx(theirs.versions[name].loss, rel=1e-6)
            assert loss.errors == pytest.approx(theirs.versions[name].errors, abs=1e-9)


def test_shuffled_weeks_hold_what_they_held_in_another_order(examples: Examples) -> None:
    real, moved = list(examples.blocks()), list(examples.blocks(np.array([2, 0, 1])))

    def features(found: list[Block], week: int) -> list[object]:
        return [(one.features, one.score) for one in found[7 * week : 7 * week + 7]]

    assert [features(moved, at) for at in range(3)] == [features(real, at) for at in (2, 0, 1)]
    assert features(moved, 3) == features(real, 3)  # no whole week
    assert [one.number for one in moved] == list(range(DAYS))
    # A label moves with its prediction, also where it was known in the week after.
    assert sum(one.labels.n for one in moved) <= sum(one.labels.n for one in real) + 20
    assert [one.labels.n for one in moved[2:7]] == [one.labels.n for one in real[16:21]]


def test_orders_are_permutations_that_a_seed_gives(examples: Examples) -> None:
    one, again = examples.orders(5, seed=1), examples.orders(5, seed=1)
    assert all(sorted(order) == [0, 1, 2] for order in one)
    assert all((a == b).all() for a, b in zip(one, again, strict=True))


def test_examples_since_a_day_are_the_same_days(examples: Examples) -> None:
    later = list(examples.since(5).blocks())
    for one, other in zip(later, list(examples.blocks())[5:], strict=True):
        assert (one.start, one.features, one.score) == (other.start, other.features, other.score)
    assert [one.labels.n for one in later[2:]] == [one.labels.n for one in list(examples.blocks())[7:]]
