"""What rounds add to the metrics."""

from __future__ import annotations

import time

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


def lane_of(times: list[int], *, committed: int = 0, dead: list[int] | None = None) -> Lane:
    """A lane that has read these events from the start."""
    lane = Lane(0, [0], [Position(committed)], 1)
    lane.add(decoded(times, dead=dead or ()))
    return lane


def work_of(times: list[int]) -> Work:
    """A round of one partition's scored events."""
    take = lane_of(times).take()
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


def test_records_that_restore_state_are_counted_by_entity_also_where_there_are_none() -> None:
    metrics = Metrics()
    tally = Tally(metrics, ["orders"])
    for _ in range(2):
        tally.replayed({"user": 0, "user_shop": 3})
    assert metrics.value("weir_restored_records_total", entity="user_shop") == 6
    assert 'weir_restored_records_total{entity="user"} 0.0' in metrics.render()[0].decode()


def test_latency_is_that_of_each_prediction_from_the_poll_to_the_producer() -> None:
    metrics = Metrics()
    tally = Tally(metrics, ["orders"])
    tally.sent(0, time.monotonic_ns())
    tally.sent(3, time.monotonic_ns() - 5_000_000_000)
    assert metrics.value("weir_latency_seconds") == 3
    page = metrics.render()[0].decode()
    (total,) = (float(line.split()[-1]) for line in page.splitlines() if line.startswith("weir_latency_seconds_sum"))
    assert 15 <= total < 60


def test_what_is_replayed_counts_as_replayed_and_nothing_else() -> None:
    metrics = Metrics()
    tally = Tally(metrics, ["orders"])
    lane = lane_of([1, 2, 3], committed=2, dead=[3])
    late = Features(NOTHING.matrix, {}, NOTHING.aggregates, {"user_count_1h": 1}, {})
    for _ in range(2):
        take = lane.take()
        assert take is not None
        take = take.replay() or take
        work = assemble([take], 1)
        lane.drop(take)
        tally.acknowledged(work)
        tally.round(work, late, None, None)
    assert lane.take() is None
    assert metrics.value("weir_replayed_records_total", source="orders") == 2
    assert metrics.value("weir_events_total", source="orders") == 2  # one scored, one dead
    assert metrics.total("weir_dead_letters_total") == 1
    assert metrics.value("weir_late_total", window="user_count_1h") == 1
    assert metrics.value("weir_unscored_total", reason="no_model") == 1
