from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from models.dataset import Dataset
from models.errors import TrainingFailed
from models.metrics import auc
from models.network import Inputs
from models.runner import Runner
from models.trainer import Epoch, Recipe, train_mlp

torch = pytest.importorskip("torch", reason="training needs the extra train (torch)")

NAMES = ("amount", "kind", "delay")
QUICK = Recipe(epochs=3)


def dataset(n: int = 4000, seed: int = 0) -> Dataset:
    """Positives come with a high amount, kind 3, and where the delay is missing."""
    rng = np.random.default_rng(seed)
    amount, kind = rng.lognormal(3, 1, n), rng.integers(0, 6, n)
    delay = np.where(rng.random(n) < 0.2, np.nan, rng.normal(10, 30, n))
    logit = np.log(amount) - 3 + 1.5 * (kind == 3) + 1.5 * np.isnan(delay) - 1
    labels = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(np.float64)
    matrix = np.stack([amount, kind, delay], axis=1).astype(np.float32)
    return Dataset(matrix, labels, np.arange(n), tuple(map(str, range(n))), NAMES, {"kind": 8}, "digest")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return dataset()


@pytest.fixture(scope="module")
def runner(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    trained = train_mlp(data, tmp_path_factory.mktemp("trained") / "model.onnx")
    return Runner(trained.path.read_bytes(), NAMES)


def test_the_trained_file_scores_raw_features_well(runner: Runner) -> None:
    later = dataset(seed=1)
    scores = runner.run(later.matrix)
    assert scores.shape == (4000,)
    assert ((scores > 0) & (scores < 1)).all()
    assert auc(scores, later.labels) > 0.75


def test_every_feature_was_learned_from(runner: Runner) -> None:
    low, high, kind, missing = runner.run(
        np.array([[5, 1, 10], [100, 1, 10], [5, 3, 10], [5, 1, np.nan]], dtype=np.float32)
    )
    assert low < min(high, kind, missing)


def test_values_never_seen_score_like_their_neighbours(runner: Runner) -> None:
    rows = np.array(
        [[1e30, 1, 10], [np.inf, 1, 10], [50, 7, 10], [50, np.nan, 10], [50, -1, 10], [50, 99, 10]],
        dtype=np.float32,
    )
    extreme, infinite, *unknown = runner.run(rows)
    assert np.isfinite(extreme)
    assert extreme == infinite
    assert len(set(unknown)) == 1, "codes outside the table, and missing ones, are the unknown one"
    by_kind = runner.run(np.array([[50, kind, 10] for kind in range(6)], dtype=np.float32))
    assert by_kind.min() < unknown[0] < by_kind.max(), "a kind never seen is an average one"


def test_the_graph_computes_what_training_saw(data: Dataset, tmp_path: Path) -> None:
    trained = train_mlp(data, tmp_path / "model.onnx", recipe=QUICK)
    last = slice(len(data) - int(trained.metrics["validation_rows"]), None)
    scores = Runner(trained.path.read_bytes(), NAMES).run(data.matrix[last])
    assert auc(scores, data.labels[last]) == pytest.approx(trained.metrics["auc"], abs=1e-6)


def test_two_trainings_with_one_seed_are_equal_to_the_byte(data: Dataset, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    first = train_mlp(data, tmp_path / "a.onnx", recipe=QUICK)
    torch.rand(100)
    torch.set_num_threads(2)
    try:
        second = train_mlp(data, tmp_path / "b.onnx", recipe=QUICK)
        other = train_mlp(data, tmp_path / "c.onnx", recipe=QUICK, seed=8)
        assert torch.get_num_threads() == 2, "the caller's setting is given back"
    finally:
        torch.set_num_threads(threads)
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.metrics == second.metrics
    assert first.path.read_bytes() != other.path.read_bytes()


def test_progress_is_told_epoch_by_epoch_and_training_stops_when_it_gets_worse(
    data: Dataset, tmp_path: Path
) -> None:
    told: list[Epoch] = []
    noise = dataclasses.replace(data, labels=np.random.default_rng(5).integers(0, 2, len(data)).astype(float))
    recipe = Recipe(epochs=50, patience=2, dropout=0, weight_decay=0)
    trained = train_mlp(noise, tmp_path / "model.onnx", recipe=recipe, on_epoch=told.append)
    assert [epoch.number for epoch in told] == list(range(1, len(told) + 1))
    assert len(told) == trained.metrics["epochs"] + 2 < 50
    assert min(epoch.validation_loss for epoch in told) == trained.metrics["log_loss"]


def test_the_latest_rows_are_held_out(data: Dataset, tmp_path: Path) -> None:
    metrics = train_mlp(data, tmp_path / "model.onnx", recipe=QUICK).metrics
    assert (metrics["rows"], metrics["validation_rows"]) == (3400, 600)
    assert metrics["positive_share"] == pytest.approx(data.labels.mean())


def test_of_many_rows_no_more_are_held_out_than_tell_two_epochs_apart(tmp_path: Path) -> None:
    metrics = train_mlp(dataset(60_000), tmp_path / "model.onnx", recipe=Recipe(epochs=1)).metrics
    assert (metrics["rows"], metrics["validation_rows"]) == (52_000, 8_000)


def test_numbers_alone_and_categories_alone_can_be_learned(data: Dataset, tmp_path: Path) -> None:
    for columns in ([0, 2], [1]):
        names = tuple(NAMES[c] for c in columns)
        sizes = {name: 8 for name in names if name == "kind"}
        part = dataclasses.replace(data, matrix=data.matrix[:, columns], names=names, sizes=sizes)
        trained = train_mlp(part, tmp_path / "model.onnx", recipe=QUICK)
        scores = Runner(trained.path.read_bytes(), names).run(np.ascontiguousarray(part.matrix))
        assert auc(scores, data.labels) > 0.55


def test_a_feature_that_is_constant_or_never_there_does_no_harm(data: Dataset, tmp_path: Path) -> None:
    matrix = np.concatenate([data.matrix, np.full((len(data), 2), [np.nan, 3], np.float32)], axis=1)
    names = (*NAMES, "never", "always")
    trained = train_mlp(
        dataclasses.replace(data, matrix=matrix, names=names), tmp_path / "model.onnx", recipe=QUICK
    )
    runner = Runner(trained.path.read_bytes(), names)
    usual, came = runner.run(np.array([[20, 1, 5, np.nan, 3], [20, 1, 5, 1e6, 4]], dtype=np.float32))
    assert np.isfinite([usual, came]).all()


def test_a_flag_that_is_rarely_set_is_not_cut_away() -> None:
    matrix = np.zeros((1000, 1), dtype=np.float32)
    matrix[:5] = 1
    inputs = Inputs.fit(matrix, ["flag"], {}, 0.02)
    numbers, _ = inputs.apply(np.array([[0], [1]], dtype=np.float32))
    assert numbers[1, 0] > numbers[0, 0]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.zeros(4000), "every label of the 3400 training rows is 0"),
        (np.full(4000, 2.0), "learns labels 0 and 1, not 2"),
    ],
)
def test_labels_that_teach_nothing_are_an_error_with_the_mend(
    data, labels, said: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingFailed, match=said):
        train_mlp(dataclasses.replace(data, labels=labels), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_too_few_rows_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="50 labelled rows are too few"):
        train_mlp(dataset(50), tmp_path / "model.onnx")


def test_an_infinite_value_is_an_error_that_names_the_feature(data: Dataset, tmp_path: Path) -> None:
    matrix = data.matrix.copy()
    matrix[3, 2] = np.inf
    with pytest.raises(TrainingFailed, match="feature delay is infinite"):
        train_mlp(dataclasses.replace(data, matrix=matrix), tmp_path / "model.onnx")


def test_a_loss_that_is_not_finite_is_an_error(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingFailed, match="loss is not finite"):
        train_mlp(data, tmp_path / "model.onnx", recipe=Recipe(learning_rate=1e30))
