"""What rounds add to the metrics."""

from __future__ import annotations

import numpy as np

from features.engine import Features
from models import rollout
from models.rollout import Version
from models.scorer import Scores
from monitors.metrics import Metrics
from streams.lane import Lane, Position
from streams.rounds import Work, assemble
from streams.tally import Tally
from tests.streams.records import decoded

NOTHING = Features(np.empty((0, 1), np.float32), {}, np.empty((0, 0)), {}, {})


def work_of(times: list[int]) -> Work:
    """A round of one partition's scored events."""
    lane = Lane(0, [0], [Position(0)], 1)
    lane.add(decoded(times))
    take = lane.take()
    assert take is not None
    return assemble([take], 1)


def version(number: str) -> Version:
    return Version("m", number, "file:///nowhere", "0" * 64, "s")


def test_a_score_that_is_not_finite_is_counted_for_the_version_that_gave_it() -> None:
    champion = rollout.promote(rollout.unscored("m"), version("1"))
    deployment = rollout.add_canary(champion, version("2"), 0.5)
    score = np.array([0.5, np.nan, 0.5, 0.5], np.float32)
    arm = np.array([0, 1, 1, 0], np.uint8)
    scores = Scores(score, (("champion", "1"), ("canary", "2")), arm, invalid=1)
    metrics = Metrics()
    Tally(metrics, ["orders"]).round(work_of([1, 2, 3, 4]), NOTHING, scores, deployment)
    assert metrics.value("weir_nonfinite_scores_total", version="1") == 0
    assert metrics.value("weir_nonfinite_scores_total", version="2") == 1
    assert metrics.value("weir_predictions_total", model="m", version="1", arm="champion") == 2
    assert metrics.value("weir_predictions_total", model="m", version="2", arm="canary") == 1
    assert metrics.value("weir_unscored_total", reason="non_finite") == 1
