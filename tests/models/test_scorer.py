from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from models import rollout
from models.errors import ModelFailed, ModelRefused, ModelUnavailable
from models.files import sha256_of
from models.rollout import Deployment, Version
from models.scorer import Scorer
from tests.models.graphs import constant_score, graph_of, linear, mlp

NAMES = ["a", "b"]
SPEC = "0123456789abcdef"
ROWS = np.array([[0, 0], [1, 2], [3, 4]], dtype=np.float32)
KEYS = [b"x", b"y", b"z"]
NONE = rollout.unscored("m")


@pytest.fixture
def deployed(tmp_path: Path):
    """Writes an ONNX file and gives the version that names it."""

    def make(number: int, model: bytes, **changes) -> Version:
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(model)
        fields = {"uri": str(path), "sha256": sha256_of(model), "spec_hash": SPEC}
        return Version("m", str(number), **(fields | changes))

    return make


@pytest.fixture
def load(tmp_path: Path):
    def make(deployment: Deployment, previous: Scorer | None = None) -> Scorer:
        return Scorer.load(deployment, NAMES, SPEC, cache_dir=tmp_path / "cache", previous=previous)

    return make


def picky() -> bytes:
    """Raises unless the first feature is 0 or 1."""
    return graph_of(
        [
            helper.make_node("Gather", ["x", "zero"], ["first"], axis=1),
            helper.make_node("Cast", ["first"], ["i"], to=TensorProto.INT64),
            helper.make_node("Gather", ["table", "i"], ["y"]),
        ],
        [("x", TensorProto.FLOAT, ["n", 2])],
        [("y", TensorProto.FLOAT, ["n"])],
        {"zero": np.int64(0), "table": np.array([0.25, 0.75], dtype=np.float32)},
    ).SerializeToString()


def reciprocal() -> bytes:
    """1 / first feature: infinite at 0."""
    return graph_of(
        [
            helper.make_node("Gather", ["x", "zero"], ["first"], axis=1),
            helper.make_node("Reciprocal", ["first"], ["y"]),
        ],
        [("x", TensorProto.FLOAT, ["n", 2])],
        [("y", TensorProto.FLOAT, ["n"])],
        {"zero": np.int64(0)},
    ).SerializeToString()


def test_without_a_champion_rows_are_unscored(load) -> None:
    scores = load(NONE).score(ROWS, KEYS)
    assert (scores.score, scores.arms, scores.shadows) == (None, (), {})
    assert len(scores.arm) == 3


def test_the_champion_scores_every_row(load, deployed) -> None:
    scorer = load(rollout.promote(NONE, deployed(1, linear([1, -1]).SerializeToString())))
    scores = scorer.score(ROWS, KEYS)
    assert scores.score is not None
    np.testing.assert_allclose(scores.score, 1 / (1 + np.exp([0, 1, 1])), rtol=1e-6)
    assert scores.arms == (("champion", "1"),)
    assert scorer.provider is not None


def test_the_canary_scores_its_keys_and_the_champion_the_others(load, deployed) -> None:
    champion = rollout.promote(NONE, deployed(1, constant_score(0.25)))
    deployment = rollout.add_canary(champion, deployed(2, constant_score(0.75)), 0.3)
    keys = [f"k{i}".encode() for i in range(1000)]
    scores = load(deployment).score(np.zeros((1000, 2), dtype=np.float32), keys)
    assert scores.arms == (("champion", "1"), ("canary", "2"))
    assert (scores.arm == rollout.arms(deployment, keys)).all()
    assert 200 < scores.arm.sum() < 400
    np.testing.assert_allclose(scores.score, np.where(scores.arm == 1, 0.75, 0.25), rtol=1e-6)


def test_shadows_score_every_row_beside_the_champion_and_without_one(load, deployed) -> None:
    shadow = deployed(2, constant_score(0.75))
    beside = load(rollout.add_shadow(rollout.promote(NONE, deployed(1, constant_score(0.25))), shadow))
    alone = load(rollout.add_shadow(NONE, shadow))
    for scorer in (beside, alone):
        np.testing.assert_allclose(scorer.score(ROWS, KEYS).shadows["2"], [0.75] * 3, rtol=1e-6)
    assert alone.score(ROWS, KEYS).score is None


def test_a_shadow_that_raises_costs_no_row_its_score(load, deployed) -> None:
    champion = rollout.promote(NONE, deployed(1, constant_score(0.25)))
    scores = load(rollout.add_shadow(champion, deployed(2, picky()))).score(ROWS, KEYS)
    assert scores.score is not None
    assert scores.shadows == {}
    assert "version 2 of m: inference failed" in scores.failed["2"]


def test_a_champion_that_raises_is_named(load, deployed) -> None:
    scorer = load(rollout.promote(NONE, deployed(7, picky())))
    with pytest.raises(ModelFailed, match="version 7 of m: inference failed") as failed:
        scorer.score(ROWS, KEYS)
    assert failed.value.version == "7"


def test_a_canary_that_raises_is_named_and_not_its_champion(load, deployed) -> None:
    champion = rollout.promote(NONE, deployed(1, constant_score(0.25)))
    scorer = load(rollout.add_canary(champion, deployed(2, picky()), 0.5))
    with pytest.raises(ModelFailed, match="version 2 of m: inference failed") as failed:
        scorer.score(np.full((64, 2), 7, np.float32), [str(i).encode() for i in range(64)])
    assert failed.value.version == "2"


def test_scores_that_are_not_finite_are_nan_and_counted(load, deployed) -> None:
    scores = load(rollout.promote(NONE, deployed(1, reciprocal()))).score(ROWS, KEYS)
    assert scores.score is not None
    assert np.isnan(scores.score).tolist() == [True, False, False]
    assert scores.invalid == 1


def test_several_scores_a_row_keep_their_shape(load, deployed) -> None:
    champion = rollout.promote(NONE, deployed(1, mlp([2, 4, 3], seed=1)))
    deployment = rollout.add_canary(champion, deployed(2, mlp([2, 4, 3], seed=2)), 0.5)
    scores = load(deployment).score(np.ones((100, 2), np.float32), [str(i).encode() for i in range(100)])
    assert scores.score is not None
    assert scores.score.shape == (100, 3)
    assert len(np.unique(scores.score[:, 0])) == 2


def test_a_version_for_other_features_is_refused_with_both_hashes(load, deployed) -> None:
    version = deployed(3, constant_score(0.5), spec_hash="feedfeedfeedfeed")
    with pytest.raises(
        ModelRefused, match=f"version 3 of m was made for other features \\(spec feedfeedfeedfeed.*{SPEC}"
    ):
        load(rollout.promote(NONE, version))


def test_a_file_with_another_digest_is_refused_with_both(load, deployed) -> None:
    version = deployed(3, constant_score(0.5), sha256="0" * 64)
    with pytest.raises(ModelRefused, match=f"version 3 of m: .*{sha256_of(constant_score(0.5))}.*{'0' * 64}"):
        load(rollout.promote(NONE, version))


def test_a_file_that_is_not_there_is_worth_another_try(load, deployed, tmp_path: Path) -> None:
    version = deployed(3, constant_score(0.5), uri=str(tmp_path / "gone.onnx"))
    with pytest.raises(ModelUnavailable, match="version 3 of m: .*gone.onnx cannot be read"):
        load(rollout.promote(NONE, version))


def test_a_model_of_another_width_is_refused_by_version(load, deployed) -> None:
    with pytest.raises(ModelRefused, match=r"version 3 of m: input x takes 3 features, the pipeline has 2"):
        load(rollout.promote(NONE, deployed(3, linear([1, 2, 3]).SerializeToString())))


def test_a_canary_with_another_number_of_scores_is_refused(load, deployed) -> None:
    champion = rollout.promote(NONE, deployed(1, constant_score(0.5)))
    with pytest.raises(ModelRefused, match="canary 2 and champion 1 differ"):
        load(rollout.add_canary(champion, deployed(2, mlp([2, 4, 3])), 0.5))


def test_a_runner_is_shared_with_the_next_deployment_and_freed_with_the_last(load, deployed) -> None:
    first, second = deployed(1, constant_score(0.25)), deployed(2, constant_score(0.75))
    one = rollout.promote(NONE, first)
    two = rollout.add_shadow(one, second)
    old = load(one)
    new = load(two, old)
    assert old._runner(first) is new._runner(first)

    old.close()
    assert new.score(ROWS, KEYS).score is not None

    last = load(rollout.promote(two, second), new)
    kept, dropped = new._runner(second), new._runner(first)
    new.close()
    assert last._runner(second) is kept
    assert not hasattr(dropped, "_session"), "nothing holds version 1 any more"
    last.close()
    assert not hasattr(kept, "_session")


def test_a_deployment_that_cannot_be_loaded_leaves_the_one_before_as_it_is(load, deployed) -> None:
    one = rollout.promote(NONE, deployed(1, constant_score(0.25)))
    old = load(one)
    with pytest.raises(ModelRefused):
        load(rollout.add_shadow(one, deployed(2, b"no model")), old)
    assert old.score(ROWS, KEYS).score is not None
    old.close()


def test_serving_imports_neither_the_registry_nor_torch() -> None:
    code = "import sys, models.scorer; print(sorted({'mlflow', 'torch', 'polars'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
