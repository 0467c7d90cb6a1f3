"""The study of known drifts: what it counts, and that its streams drift where it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monitors import known_drift
from monitors.archive import Archive
from monitors.evaluate import main
from monitors.join import Joined
from monitors.known_drift import CHANGE, EVENTS, FITTED, GRADUAL, Outcome, Stream, blocks, on_blocks, outcome, stream
from monitors.shuffled import DAY_MS
from tests.monitors.records import KINDS, prediction

AT = CHANGE * EVENTS


def test_delays_misses_and_false_alarms_are_counted() -> None:
    empty = Stream("sea", "sudden", 0, *(None, None))  # type: ignore[arg-type]
    begins = AT - EVENTS // 2
    alarms = [[begins + 500], [100, begins, begins + 300, begins + 900], []]
    assert outcome("x", [empty] * 3, alarms) == Outcome("x", "sea", "sudden", 400.0, 1, 2 * 10_000 / (3 * begins))


def test_without_a_drift_every_alarm_is_false() -> None:
    calm = Stream("sea", "none", 0, *(None, None))  # type: ignore[arg-type]
    found = outcome("x", [calm, calm], [[AT + 1], []])
    assert (found.delay, found.missed) == (None, 0)
    assert found.false == pytest.approx(10_000 / (2 * known_drift.BLOCKS * EVENTS))


@pytest.mark.parametrize("family", ["sea", "sine"])
def test_a_model_errs_more_after_the_drift_and_not_before(family: str) -> None:
    made = stream(family, "sudden", 0)
    fitted, before = made.wrong[: FITTED * EVENTS].mean(), made.wrong[FITTED * EVENTS : AT - EVENTS].mean()
    assert before == pytest.approx(fitted, abs=0.05)
    assert made.wrong[AT + EVENTS :].mean() > before + 0.05
    assert (made.wrong == stream(family, "sudden", 0).wrong).all()
    mixed = stream(family, "gradual", 0).wrong[AT - GRADUAL * EVENTS // 4 : AT + GRADUAL * EVENTS // 4].mean()
    assert before < mixed < made.wrong[AT + EVENTS :].mean()


def test_a_detector_is_told_blocks_of_its_events() -> None:
    made = stream("rbf", "sudden", 0)
    first = next(blocks(made))
    assert first.features["x0"].mean == pytest.approx(made.features[:EVENTS, 0].mean())
    assert first.versions["1"].errors == pytest.approx(made.wrong[:EVENTS].mean())
    assert all(alarm % EVENTS == 0 for alarm in on_blocks("ks", made))


def test_the_shuffled_study_prints_a_table_or_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = Archive(tmp_path, KINDS)
    archive.add(Joined(prediction(f"p{at}", at * DAY_MS // 60, offset=at), None) for at in range(60 * 22))
    archive.flush("0", 1)
    assert main(["shuffled", str(tmp_path), "--only", "default", "--shuffles", "2"]) == 0
    assert "| default | 0 | 0 |" in capsys.readouterr().out
    assert main(["shuffled", str(tmp_path), "--only", "default", "--shuffles", "2", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["real"], row["each"]) == (0, [0, 0])


def test_the_shuffled_study_wants_a_folder() -> None:
    with pytest.raises(SystemExit):
        main(["shuffled"])
