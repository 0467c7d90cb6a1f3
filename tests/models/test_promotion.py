"""Candidates and new champions, judged by blocks whose rows are drawn here."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t as student_t

from models import rollout
from models.gate import losses
from models.paired import Bias, Sums, student
from models.promotion import Decision, RolloutFold, Rules, decide, guard
from models.rollout import Deployment
from monitors.block import Block, Column, Paired, VersionLoss
from tests.models.test_rollout import CHAMPION, version

RULES = Rules(rows=1000, most_rows=4000, guard_rows=3000, margin=0.005)
SHADOWED = rollout.add_candidate(CHAMPION, version(2), cause="retrain-1")
PROMOTED = rollout.promote_candidate(SHADOWED, evidence={"block": 10})


@dataclass
class World:
    """Rows with a true probability; each version has its own idea of it."""

    seed: int = 0
    rate: float = 0.25
    number: int = 0
    rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def block(
        self, served: str, shadows: dict[str, str], ideas: dict[str, str], rows: int = 200, unscored: int = 0
    ) -> Block:
        """A block of `rows` labelled rows; ideas: by version, `good`, `fair` or `shuffled`."""
        logit = self.rng.normal(np.log(self.rate / (1 - self.rate)), 1.0, rows)
        truth = 1 / (1 + np.exp(-logit))
        y = (self.rng.random(rows) < truth).astype(float)
        noise = self.rng.normal(0, 0.1, rows)
        scores = {
            "good": truth,
            "fair": 1 / (1 + np.exp(-(logit + noise))),
            # trained on shuffled labels: about the mean, whatever the row
            "shuffled": np.clip(truth.mean() + self.rng.normal(0, 0.02, rows), 0.01, 0.99),
            "high": np.clip(truth + 0.3, 0.01, 0.99),
        }
        found = {name: scores[idea] for name, idea in ideas.items()}
        paired = []
        for shadow in shadows:
            d = losses(found[shadow], y) - losses(found[served], y)
            paired.append(Paired(shadow, served, rows, float(d.sum()), float((d * d).sum())))
        self.number += 1
        score = found[served]
        return Block(
            f"p-{self.number}",
            "p",
            self.number,
            self.number * 1000,
            self.number * 1000 + 1000,
            predictions=rows + unscored,
            unscored=unscored,
            served={served: rows},
            score=Column(rows, least=float(score.min()), most=float(score.max())),
            versions={
                name: VersionLoss(rows, rows, score=float(s.mean()), label=float(y.mean())) for name, s in found.items()
            },
            paired=tuple(paired),
        )


def blocks(ideas: dict[str, str], served: str, n: int, seed: int = 0, **options) -> list[Block]:
    world = World(seed)
    shadows = {name: idea for name, idea in ideas.items() if name != served}
    return [world.block(served, shadows, ideas, **options) for _ in range(n)]


def first(deployment: Deployment, seen: list[Block], rules: Rules = RULES) -> tuple[int, Decision] | None:
    """The first decision, with how many rows had been seen."""
    fold = RolloutFold(rules, deployment, since=0)
    for i, block in enumerate(seen, start=1):
        decision = fold.update(block)
        if decision is not None:
            return i * 200, decision
    return None


def test_a_candidate_that_is_as_good_becomes_champion_after_its_rows_and_not_before() -> None:
    rows, decision = first(SHADOWED, blocks({"1": "fair", "2": "good"}, "1", 20)) or pytest.fail("no decision")
    assert (decision.action, decision.version) == ("promote", "2")
    assert 1000 <= rows < 4000
    assert decision.evidence["rows"] == rows
    assert decision.evidence["high"] < 0.005
    assert decision.evidence["block"] == rows // 200
    assert f"on {rows} rows" in decision.reasons[0]


def test_a_candidate_that_is_worse_is_rejected_with_the_numbers() -> None:
    rows, decision = first(SHADOWED, blocks({"1": "good", "2": "shuffled"}, "1", 20)) or pytest.fail("no decision")
    assert (rows, decision.action) == (1000, "reject")
    assert decision.reasons[0].startswith("worse: log loss +0.")
    assert decision.evidence["low"] >= 0.005


@pytest.mark.parametrize(("mean", "action"), [(0.001, "promote"), (0.008, "reject")])
def test_what_stays_uncertain_the_mean_decides_after_the_most_rows(mean: float, action: str) -> None:
    # the rows differ by far more than the margin
    fold, number = RolloutFold(RULES, SHADOWED), 0
    found = None
    while found is None:
        number += 1
        pair = Paired("2", "1", 200, 200 * mean, 200.0)
        found = fold.update(Block(f"p-{number}", "p", number, 0, 1, paired=(pair,)))
    assert (found.action, found.evidence["rows"]) == (action, 4000)
    assert found.reasons[0].startswith("by the mean, for it is not certain: log loss +0.00")


def test_three_bad_days_do_not_reject_where_days_differ_more_than_that() -> None:
    # as in July: after three days surely worse by the rows alone, over the month better
    sums = Sums()
    for mean in (0.05, 0.02, -0.013):
        sums = sums.add(900, 900 * mean, 900 * 0.04)
    assert sums.mean - 1.96 * np.sqrt(sums.row_variance) > 0.005
    assert decide(RULES, "2", sums).action == "wait"


def test_a_candidate_whose_scores_lie_off_the_labels_is_rejected() -> None:
    lenient = Rules(rows=1000, margin=1.0)
    _, decision = first(SHADOWED, blocks({"1": "good", "2": "high"}, "1", 9), lenient) or pytest.fail("no decision")
    assert decision.action == "reject"
    assert "lie off the labels" in decision.reasons[0]


@pytest.mark.parametrize("seed", range(10))
def test_a_model_trained_on_shuffled_labels_is_rolled_back_within_the_guard_rows(seed: int) -> None:
    seen = blocks({"1": "good", "2": "shuffled"}, "2", 15, seed)
    rows, decision = first(PROMOTED, seen) or pytest.fail("no decision")
    assert (decision.action, decision.version) == ("roll_back", "2")
    assert rows <= RULES.guard_rows
    back = rollout.roll_back_to_previous(PROMOTED, evidence=decision.evidence)
    assert back.champion == version(1)


@pytest.mark.parametrize("seed", range(10))
def test_a_good_champion_passes_its_guard_and_the_former_one_is_retired(seed: int) -> None:
    rows, decision = first(PROMOTED, blocks({"1": "fair", "2": "good"}, "2", 20, seed)) or pytest.fail("no decision")
    assert (rows, decision.action) == (3000, "retire")
    assert rollout.retire_previous(PROMOTED, evidence=decision.evidence).shadows == ()


def test_looking_at_every_block_rolls_back_few_good_champions() -> None:
    """500 guards of 40 looks with no true difference and no margin: at most 5 % are rolled back, not 5 % a look."""
    rng = np.random.default_rng(7)
    strict = Rules(guard_rows=8001, margin=0.0)  # its end, where the mean decides, is not reached
    wrong = naive = 0
    for _ in range(500):
        sums, fell, fell_naively = Sums(), False, False
        for _ in range(40):
            d = rng.normal(0, 0.3, 200)
            sums = sums.add(200, float(d.sum()), float((d * d).sum()))
            fell |= guard(strict, "2", sums).action == "roll_back"
            fell_naively |= sums.interval(0.95)[0] > 0
        wrong += fell
        naive += fell_naively
    assert wrong <= 25
    assert naive > 50  # what the ordinary interval does when it is looked at so often


def test_a_champion_whose_rows_go_out_unscored_is_rolled_back_without_a_label() -> None:
    world = World()
    fine = world.block("2", {}, {"2": "good"}, rows=150, unscored=1)
    broken = world.block("2", {}, {"2": "good"}, rows=150, unscored=50)
    fold = RolloutFold(RULES, PROMOTED, since=0)
    assert fold.update(fine) is None
    decision = fold.update(broken)
    assert decision is not None
    assert decision.action == "roll_back"
    assert decision.reasons == ("25.0% of the 200 rows of block 2 went out unscored; 2.0% are borne",)


def test_rows_unscored_before_the_deployment_do_not_count() -> None:
    fold = RolloutFold(RULES, PROMOTED)  # its evidence says: after block 10
    for number in range(1, 11):
        block = Block(f"p-{number}", "p", number, 0, 1, predictions=500, unscored=500)
        assert fold.update(block) is None
    decision = fold.update(Block("p-11", "p", 11, 0, 1, predictions=500, unscored=500))
    assert decision is not None
    assert decision.action == "roll_back"


def test_a_champion_that_gives_every_row_the_same_score_is_rolled_back() -> None:
    fold = RolloutFold(RULES, PROMOTED, since=0)
    same = Column(300, least=0.25, most=0.25)
    mixed = Block("p-1", "p", 1, 0, 1, predictions=300, served={"1": 10, "2": 290}, score=same)
    alone = Block("p-2", "p", 2, 0, 1, predictions=300, served={"2": 300}, score=same)
    assert fold.update(mixed) is None
    decision = fold.update(alone)
    assert decision is not None
    assert decision.reasons == ("all 300 rows of block 2 got the score 0.2500",)


def test_pairs_of_other_versions_do_not_count() -> None:
    fold = RolloutFold(RULES, SHADOWED)
    others = (Paired("3", "1", 5000, -500.0, 100.0), Paired("2", "3", 5000, -500.0, 100.0))
    assert fold.update(Block("p-1", "p", 1, 0, 1, paired=others)) is None
    assert fold.progress == {"candidate": 0}


def test_after_a_decision_nothing_comes_until_the_deployment_is_known() -> None:
    fold = RolloutFold(RULES, SHADOWED)
    seen = blocks({"1": "fair", "2": "good"}, "1", 12)
    assert [decision.action for block in seen if (decision := fold.update(block))] == ["promote"]
    promoted = rollout.promote_candidate(SHADOWED, evidence={"block": 5})
    fold.deployed(promoted)
    assert fold.progress == {"guard": 0}


def test_without_a_champion_nothing_is_decided() -> None:
    cold = rollout.add_candidate(rollout.unscored("fraud"), version(2))
    assert first(cold, blocks({"1": "fair", "2": "good"}, "1", 9)) is None


def test_the_rollback_of_the_champion_comes_before_what_becomes_of_a_candidate() -> None:
    both = rollout.add_candidate(PROMOTED, version(3))
    large = World(1).block("2", {"1": "", "3": ""}, {"1": "good", "2": "shuffled", "3": "good"}, rows=5000)
    decision = RolloutFold(RULES, both, since=0).update(large)
    assert decision is not None
    assert decision.action == "roll_back"


@given(st.integers(0, 10_000), st.integers(0, 19))
def test_a_fold_made_anew_decides_the_same_at_the_same_block(seed: int, at: int) -> None:
    seen = blocks({"1": "fair", "2": "good"}, "1", 20, seed)
    one, other = RolloutFold(RULES, SHADOWED), RolloutFold(RULES, SHADOWED)
    expected = [one.update(block) for block in seen]
    found = [other.update(block) for block in seen[:at]]
    again = RolloutFold(RULES, SHADOWED)
    assert [again.update(block) for block in seen[:at]] == found
    assert found + [again.update(block) for block in seen[at:]] == expected
    assert [again.update(block) for block in seen] == [None] * 20


@given(st.lists(st.lists(st.floats(-2, 2), min_size=1, max_size=30), min_size=1, max_size=15))
def test_the_sums_say_what_numpy_says_of_all_rows(parts: list[list[float]]) -> None:
    sums = Sums()
    for part in parts:
        sums = sums.add(len(part), sum(part), sum(d * d for d in part))
    rows = np.concatenate([np.array(part) for part in parts])
    n = len(rows)
    assert sums.n == n
    assert sums.mean == pytest.approx(rows.mean(), abs=1e-9)
    if n < 2:
        assert sums.row_variance == np.inf
        return
    assert sums.row_variance == pytest.approx(rows.var(ddof=1) / n, abs=1e-9)
    blocks, by_blocks = len(parts), 0.0
    if blocks > 1:
        residuals = np.array([sum(part) - len(part) * rows.mean() for part in parts])
        by_blocks = (residuals**2).sum() / n**2 * blocks / (blocks - 1)
    assert sums.block_variance == pytest.approx(by_blocks, abs=1e-9)
    half = 1.959964 * np.sqrt(rows.var(ddof=1) / n)
    if blocks > 1:
        half = max(half, student_t.ppf(0.975, blocks - 1) * np.sqrt(by_blocks))
    low, high = sums.interval(0.95)
    assert (high - low) / 2 == pytest.approx(half, rel=0.01, abs=1e-4)
    assert sums.lasting(0.95, 500)[0] < low + 1e-9


@pytest.mark.parametrize("degrees", [1, 2, 3, 5, 10, 100])
@pytest.mark.parametrize("confidence", [0.8, 0.9, 0.95])
def test_students_quantile_is_scipys(degrees: int, confidence: float) -> None:
    p = (1 + confidence) / 2
    assert student(p, degrees) == pytest.approx(student_t.ppf(p, degrees), rel=0.01)


def test_days_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(3)
    alike, unlike = Sums(), Sums()
    for day in range(20):
        rows = rng.normal(0, 0.3, 500)
        alike = alike.add(500, float(rows.sum()), float((rows**2).sum()))
        rows = rows + (0.2 if day % 2 else -0.2)
        unlike = unlike.add(500, float(rows.sum()), float((rows**2).sum()))
    assert np.sqrt(alike.block_variance) == pytest.approx(0.3 / np.sqrt(10_000), rel=0.5)
    assert np.sqrt(unlike.block_variance) == pytest.approx(0.2 / np.sqrt(19), rel=0.2)


@pytest.mark.parametrize(("n", "action"), [(0, "wait"), (999, "wait"), (1000, "promote")])
def test_a_candidate_waits_for_its_rows(n: int, action: str) -> None:
    assert decide(RULES, "2", Sums().add(n, -0.01 * n, 0.001 * n)).action == action


@pytest.mark.parametrize(
    ("mean", "action"), [(-0.01, "retire"), (0.0, "retire"), (0.003, "retire"), (0.02, "roll_back")]
)
def test_at_the_end_of_the_guard_it_is_one_or_the_other(mean: float, action: str) -> None:
    n = RULES.guard_rows
    assert guard(RULES, "2", Sums().add(n, mean * n, 0.001 * n)).action == action


def test_no_bias_is_seen_in_few_rows_or_where_the_other_is_as_far_off() -> None:
    sums = Sums().add(1000, -10.0, 10.0)
    assert decide(RULES, "2", sums, Bias(99, 80.0, 20.0), Bias()).action == "promote"
    assert decide(RULES, "2", sums, Bias(500, 250.0, 50.0), Bias(500, 260.0, 50.0)).action == "promote"
    assert decide(RULES, "2", sums, Bias(500, 250.0, 50.0), Bias(500, 60.0, 50.0)).action == "reject"


def test_one_stormy_block_alone_takes_no_champion_back() -> None:
    """By its rows it is surely worse, but a block does not say how blocks differ; the second one does."""
    stormy, ruinous = (Sums().add(700, 700 * mean, 700 * (mean**2 + 0.01)) for mean in (0.03, 0.3))
    assert guard(RULES, "2", stormy).action == "keep"
    assert guard(RULES, "2", ruinous).action == "roll_back"
    assert guard(RULES, "2", stormy.add(700, 700 * 0.03, 700 * (0.03**2 + 0.01))).action == "roll_back"
