"""What a version was made for, and how it does not fit: by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.made_for import differences, keep, misfit
from models.rollout import Version

MADE = {"amount": "aaaaaaaa", "user_count_1h": "bbbbbbbb", "night": "cccccccc"}


def version(folder: Path, spec_hash: str = "old") -> Version:
    return Version("m", "3", (folder / "model.onnx").as_uri(), "0" * 64, spec_hash)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({**MADE, "user_max_1h": "dddddddd"}, "it was trained without user_max_1h"),
        ({"amount": "aaaaaaaa", "night": "cccccccc"}, "the pipeline has no user_count_1h"),
        ({**MADE, "night": "eeeeeeee"}, "declared otherwise now: night"),
        (
            {"amount": "aaaaaaaa", "user_count_24h": "dddddddd", "night": "eeeeeeee"},
            "it was trained without user_count_24h; the pipeline has no user_count_1h; declared otherwise now: night",
        ),
        (dict(reversed(MADE.items())), "in another order: night, amount"),
        (MADE, "missing numbers have another value now"),
        (
            {**MADE, **{f"f{i}": "dddddddd" for i in range(11)}},
            "it was trained without f0, f1, f2, f3, f4, f5, f6, f7 and 3 more",
        ),
    ],
    ids=["new", "gone", "changed", "all of it", "order", "missing", "many"],
)
def test_features_that_do_not_fit_are_named(tmp_path: Path, wanted: dict[str, str], said: str) -> None:
    assert differences(MADE, wanted) == said
    keep(tmp_path, "old", MADE)
    spoken = misfit(version(tmp_path), "new", wanted)
    assert spoken == f"made for other features (spec old, the pipeline's is new): {said}"


def test_a_version_of_the_same_spec_fits_whatever_is_kept(tmp_path: Path) -> None:
    assert misfit(version(tmp_path, "new"), "new", {}) is None


def test_where_nobody_kept_what_it_was_made_for_the_hashes_are_said(tmp_path: Path) -> None:
    assert misfit(version(tmp_path), "new", MADE) == "made for other features (spec old, the pipeline's is new)"
    (tmp_path / "features-old.json").write_text("not json")
    assert misfit(version(tmp_path), "new", MADE) == "made for other features (spec old, the pipeline's is new)"


def test_what_is_kept_of_a_spec_is_written_once(tmp_path: Path) -> None:
    keep(tmp_path, "old", MADE)
    written = (tmp_path / "features-old.json").stat()
    keep(tmp_path, "old", MADE)
    assert (tmp_path / "features-old.json").stat() == written
