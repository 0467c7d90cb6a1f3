"""What the gate lets through and what it refuses, on rows drawn here and with real models."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.gate import BATCH, Gate, bootstrap, calibration_error, judge, latency, losses
from models.metrics import log_loss
from models.runner import Runner
from tests.models.graphs import constant_score

GATE = Gate()
N = 4000


def drawn(seed: int = 0, n: int = N) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, true probabilities and labels of n rows."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1.2, 1.0, n)
    truth = 1 / (1 + np.exp(-logit))
    return logit, truth, (rng.random(n) < truth).astype(float)


def noisy(logit: np.ndarray, by: float, seed: int = 1) -> np.ndarray:
    return 1 / (1 + np.exp(-(logit + np.random.default_rng(seed).normal(0, by, len(logit)))))


LOGIT, TRUTH, LABELS = drawn()


def test_a_better_model_passes_and_the_reason_says_its_numbers() -> None:
    verdict = judge(GATE, TRUTH, noisy(LOGIT, 0.8), LABELS, latency_s=0.01)
    assert verdict.passed
    e = verdict.evidence
    assert e["loss"] == round(log_loss(TRUTH, LABELS), 6)
    assert e["difference"] == pytest.approx(e["loss"] - e["other_loss"], abs=2e-6)
    assert e["low"] < e["difference"] < e["high"] < 0
    assert verdict.reasons[0].startswith(f"log loss {e['loss']:.4f} against {e['other_loss']:.4f} of the champion")
    assert verdict.measured == {"latency_s": 0.01}
    assert "latency_s" not in e  # what the machine's load changes stays out of the deployment's id


def test_the_same_model_again_passes_within_the_margin_and_fails_where_it_must_be_better() -> None:
    assert judge(GATE, TRUTH, TRUTH, LABELS).passed
    verdict = judge(Gate(margin=0.0), TRUTH, TRUTH, LABELS)
    assert not verdict.passed
    assert "it must lie below +0.0000" in verdict.reasons[0]


def test_a_worse_model_is_refused() -> None:
    verdict = judge(GATE, noisy(LOGIT, 1.5), TRUTH, LABELS)
    assert not verdict.passed
    assert verdict.reasons[0].startswith("worse: log loss 0.")


def test_what_too_few_rows_cannot_show_is_refused_as_uncertain() -> None:
    logit, _, labels = drawn(2, 150)
    verdict = judge(GATE, noisy(logit, 0.5, 1), noisy(logit, 0.5, 2), labels)
    assert not verdict.passed
    assert verdict.reasons[0].startswith("not surely as good: ")


@pytest.mark.parametrize("seed", range(5))
def test_a_model_trained_on_shuffled_labels_is_refused_with_and_without_a_champion(seed: int) -> None:
    _, truth, labels = drawn(seed)
    shuffled = np.clip(labels.mean() + np.random.default_rng(seed + 100).normal(0, 0.02, N), 0, 1)
    assert not judge(GATE, shuffled, truth, labels).passed
    verdict = judge(GATE, shuffled, None, labels)
    assert not verdict.passed
    assert "of the base rate" in verdict.reasons[0]


def test_without_a_champion_a_model_must_be_surely_better_than_the_base_rate() -> None:
    verdict = judge(GATE, noisy(LOGIT, 0.8), None, LABELS)
    assert verdict.passed
    assert (verdict.evidence["against"], verdict.evidence["margin"]) == ("base rate", 0.0)
    y = LABELS.mean()
    assert verdict.evidence["other_loss"] == pytest.approx(-(y * np.log(y) + (1 - y) * np.log(1 - y)), abs=1e-6)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        (np.full(N, 0.23), "every row gets about the same score (0.2300): the output is constant"),
        (np.where(np.arange(N) % 10, TRUTH, np.nan), "10.0% of the rows have no finite score; 2.0% are borne"),
        (np.where(np.arange(N) % 10, TRUTH, np.inf), "10.0% of the rows have no finite score"),
        (np.full(N, np.nan), "only 0 rows have all scores to compare; 100 are needed"),
        (LOGIT, "they are not probabilities"),
        (np.clip(TRUTH + 0.25, 0, 1), "badly calibrated: expected calibration error 0.2"),
    ],
)
@pytest.mark.parametrize("champion", [TRUTH, None])
def test_broken_output_is_refused_in_words(scores: np.ndarray, said: str, champion: np.ndarray | None) -> None:
    verdict = judge(GATE, scores, champion, LABELS)
    assert not verdict.passed
    assert any(said in reason for reason in verdict.reasons)


def test_a_few_rows_without_a_score_are_left_out_of_the_comparison() -> None:
    ours, theirs = TRUTH.copy(), noisy(LOGIT, 0.8)
    ours[:20], theirs[10:40] = np.nan, np.nan
    verdict = judge(GATE, ours, theirs, LABELS)
    assert verdict.passed
    assert verdict.evidence["compared"] == N - 40
    assert verdict.evidence["loss"] == round(log_loss(TRUTH[40:], LABELS[40:]), 6)


def test_bad_calibration_is_borne_where_the_champions_is_worse() -> None:
    ours, theirs = np.clip(TRUTH + 0.15, 0, 1), np.clip(TRUTH + 0.3, 0, 1)
    assert judge(GATE, ours, theirs, LABELS).passed
    assert not judge(GATE, ours, TRUTH, LABELS).passed


def test_a_model_that_is_too_slow_is_refused() -> None:
    verdict = judge(GATE, TRUTH, None, LABELS, latency_s=0.0801)
    assert verdict.reasons == ("a batch of 512 rows takes 80.1 ms, the budget is 50 ms",)
    assert not judge(GATE, TRUTH, None, LABELS, latency_s=float("nan")).passed


@pytest.mark.parametrize(
    ("scores", "champion", "labels", "said"),
    [
        (np.ones((200, 3)), None, np.ones(200), "one score a row"),
        (np.ones(200), np.ones((200, 1)), np.ones(200), "one score a row"),
        (np.ones(99), None, np.ones(99), "99 labelled rows are too few"),
        ([], None, [], "0 labelled rows are too few"),
        (np.ones(200), None, np.full(200, 2.0), "labels 0 and 1 alone"),
        (np.ones(200), None, np.full(200, np.nan), "labels 0 and 1 alone"),
    ],
)
def test_what_cannot_be_judged_does_not_pass(scores, champion, labels, said: str) -> None:
    verdict = judge(GATE, scores, champion, labels)
    assert not verdict.passed
    assert said in verdict.reasons[0]


def test_scores_for_other_rows_than_the_labels_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="199 scores for 200 labels"):
        judge(GATE, np.ones(199), None, np.ones(200))


def test_labels_of_one_class_are_judged_without_an_area() -> None:
    scores = np.random.default_rng(0).uniform(0.001, 0.01, 500)
    verdict = judge(GATE, scores, None, np.zeros(500))
    assert "auc" not in verdict.evidence
    assert not verdict.passed  # never better than a base rate of nothing


def test_the_same_rows_give_the_same_verdict() -> None:
    theirs, days = noisy(LOGIT, 0.8), np.arange(N) // 100
    assert judge(GATE, TRUTH, theirs, LABELS, groups=days) == judge(GATE, TRUTH, theirs, LABELS, groups=days)


def test_the_bootstrap_is_the_normal_interval_for_rows_that_know_nothing_of_each_other() -> None:
    d = np.random.default_rng(5).normal(0.1, 1.0, 20_000)
    low, high = bootstrap(d, None, 0.95, 4000, 7)
    half = 1.96 / np.sqrt(20_000)
    assert low == pytest.approx(d.mean() - half, abs=half / 5)
    assert high == pytest.approx(d.mean() + half, abs=half / 5)


def test_days_that_are_alike_within_widen_the_interval() -> None:
    rng = np.random.default_rng(6)
    days = np.repeat(np.arange(50), 200)
    d = rng.normal(0, 0.3, 10_000) + np.repeat(rng.normal(0, 0.2, 50), 200)
    low, high = bootstrap(d, days, 0.95, 2000, 7)
    assert high - low == pytest.approx(2 * 1.96 * 0.2 / np.sqrt(50), rel=0.25)
    assert high - low > 4 * 2 * 1.96 * d.std() / np.sqrt(10_000) / 2


def test_few_days_are_not_resampled_as_days() -> None:
    d = np.random.default_rng(8).normal(0, 1, 1000)
    assert bootstrap(d, np.arange(1000) // 200, 0.9, 500, 1) == bootstrap(d, None, 0.9, 500, 1)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=300))
def test_the_calibration_error_is_that_of_its_definition(rows: list[tuple[float, bool]]) -> None:
    scores, labels = np.array([r[0] for r in rows]), np.array([float(r[1]) for r in rows])
    ordered = sorted(zip(scores, labels, range(len(rows)), strict=True), key=lambda r: (r[0], r[2]))
    bins = max(1, min(10, len(rows) // 50))
    size, more = divmod(len(rows), bins)
    expected, at = 0.0, 0
    for b in range(bins):
        part = ordered[at : at + size + (b < more)]
        at += len(part)
        mean_score = sum(r[0] for r in part) / len(part)
        mean_label = sum(r[1] for r in part) / len(part)
        expected += len(part) / len(rows) * abs(mean_score - mean_label)
    assert calibration_error(scores, labels) == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_the_mean_of_the_losses_is_the_log_loss(rows: list[tuple[float, bool]]) -> None:
    scores, labels = np.array([r[0] for r in rows]), np.array([float(r[1]) for r in rows])
    assert losses(scores, labels).mean() == pytest.approx(log_loss(scores, labels))


def test_the_latency_is_the_median_of_calls_with_real_rows() -> None:
    seen: list[np.ndarray] = []
    ticks = iter([0.0, 1.0, 5.0, 7.0, 10.0, 110.0])  # 1, 2 and 100 s
    matrix = np.arange(700, dtype=np.float32)[:, None]

    def run(rows: np.ndarray) -> np.ndarray:
        seen.append(rows)
        return rows[:, 0]

    assert latency(run, matrix, repeats=3, clock=lambda: next(ticks)) == 2.0
    assert [rows.shape for rows in seen] == [(BATCH, 1)] * 3
    assert (seen[1][:, 0] == np.arange(BATCH, 2 * BATCH) % 700).all()


def test_the_latency_of_a_real_model_is_within_the_budget() -> None:
    runner = Runner(constant_score(0.5), ["a", "b"])
    assert 0 < latency(runner.run, np.zeros((10, 2), dtype=np.float32)) < GATE.latency_s
