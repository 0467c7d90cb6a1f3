"""The pipeline in other sizes computes what its name says, and its model fits it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples.payments import model
from examples.payments.pipeline import pipeline as example
from loadtest.growth_points import AXES
from loadtest.variants import Variant
from models.runner import Runner
from streams.loading import load_pipeline


def test_eight_features_are_the_examples() -> None:
    assert Variant("v", "payments").pipeline().spec.names == example.spec.names


@pytest.mark.parametrize("features", [8, 50, 200])
def test_a_variant_has_as_many_features_as_it_says_and_a_model_that_takes_them(features: int, tmp_path: Path) -> None:
    names = Variant("v", "t", features, numbers=16).pipeline().spec.names
    assert len(set(names)) == features
    file = model.write(tmp_path / "model.onnx", more=features - 8)
    scores = Runner(file.read_bytes(), names, sizes=(64,)).run(np.full((3, features), np.nan, np.float32))
    assert ((scores > 0) & (scores < 1)).all()


def test_the_file_of_a_variant_declares_it(tmp_path: Path) -> None:
    variant = Variant("growth-7", "growth-in", 50, 16)
    loaded = load_pipeline(variant.write(tmp_path))
    assert (loaded.name, loaded.lead.topic) == ("growth-7", "growth-in")
    assert loaded.spec.hash == variant.pipeline().spec.hash


def test_the_models_are_as_large_as_their_labels() -> None:
    for point in AXES["model"][:2]:
        size = len(model.build(hidden=point.hidden).SerializeToString())
        assert size == pytest.approx(point.size, rel=0.2)
    (one, other), inputs = AXES["model"][2].hidden, 8
    assert 4 * (inputs * one + one * other + other) == pytest.approx(AXES["model"][2].size, rel=0.05)
