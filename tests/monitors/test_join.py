"""Predictions meet labels: in either order, once, within a time.

within = 3 h:   prediction at 0 ────────── label until 3 h counts ──│── later is late
"""

from __future__ import annotations

from monitors.join import Joined, LabelJoin
from tests.monitors.records import HOUR, label, prediction

WITHIN = 3 * HOUR


def test_a_label_meets_the_prediction_that_waits_for_it() -> None:
    join = LabelJoin(WITHIN)
    waiting = prediction("a")
    assert join.predictions([waiting, prediction("b", offset=1)]) == []
    assert join.labels([label("a")]) == [Joined(waiting, label("a"))]
    assert join.counts.matched == 1
    assert join.pending == (1, 0)


def test_a_prediction_meets_the_label_that_came_before_it() -> None:
    join = LabelJoin(WITHIN)
    assert join.labels([label("a"), label("b")]) == []
    assert join.pending == (0, 2)
    late_comer = prediction("a")
    assert join.predictions([late_comer]) == [Joined(late_comer, label("a"))]
    assert join.pending == (0, 1)


def test_two_records_of_one_id_both_get_the_label() -> None:
    join = LabelJoin(WITHIN)
    first, second = prediction("a", offset=1), prediction("a", offset=2)
    join.predictions([first])
    assert join.labels([label("a")]) == [Joined(first, label("a"))]
    assert join.predictions([second]) == [Joined(second, label("a"))]
    assert join.counts.matched == 2


def test_the_first_label_counts_and_the_second_is_a_duplicate() -> None:
    join = LabelJoin(WITHIN)
    join.predictions([prediction("a")])
    assert [row.label.value for row in join.labels([label("a", value=1), label("a", value=0)]) if row.label] == [1]
    assert join.labels([label("a", value=0)]) == []
    assert join.counts.duplicate == 2


def test_a_label_after_its_time_is_late_and_its_prediction_goes_without() -> None:
    join = LabelJoin(WITHIN)
    unlucky = prediction("a")
    join.predictions([unlucky])
    assert join.labels([label("a", WITHIN + 1)]) == []
    assert join.counts.late == 1
    assert join.expire(predicted_ms=0, labelled_ms=WITHIN + 1) == [Joined(unlucky, None)]
    assert (join.counts.missing, join.counts.matched) == (1, 0)


def test_a_label_exactly_at_the_end_of_its_time_counts() -> None:
    join = LabelJoin(WITHIN)
    join.predictions([prediction("a")])
    assert len(join.labels([label("a", WITHIN)])) == 1


def test_a_prediction_is_given_up_only_when_labels_have_passed_its_time() -> None:
    join = LabelJoin(WITHIN)
    join.predictions([prediction("a", 0), prediction("b", HOUR, offset=1)])
    assert join.expire(predicted_ms=100 * HOUR, labelled_ms=WITHIN) == []
    assert [row.prediction.id for row in join.expire(predicted_ms=0, labelled_ms=WITHIN + 1)] == ["a"]
    assert join.pending == (1, 0)


def test_a_label_without_a_prediction_is_forgotten_when_predictions_have_passed_its_time() -> None:
    join = LabelJoin(WITHIN)
    join.labels([label("a", HOUR)])
    join.expire(predicted_ms=HOUR + WITHIN, labelled_ms=100 * HOUR)
    assert join.counts.unmatched == 0
    join.expire(predicted_ms=HOUR + WITHIN + 1, labelled_ms=100 * HOUR)
    assert join.counts.unmatched == 1
    assert join.pending == (0, 0)


def test_a_label_that_was_used_is_forgotten_without_being_counted() -> None:
    join = LabelJoin(WITHIN)
    join.predictions([prediction("a")])
    join.labels([label("a")])
    join.expire(predicted_ms=100 * HOUR, labelled_ms=100 * HOUR)
    assert (join.counts.unmatched, join.counts.missing) == (0, 0)
    assert join.pending == (0, 0)


def test_at_the_end_all_that_waits_is_given_up() -> None:
    join = LabelJoin(WITHIN)
    join.predictions([prediction("a"), prediction("a", offset=1), prediction("b", offset=2)])
    join.labels([label("c")])
    assert sorted(row.prediction.source.offset for row in join.finish()) == [0, 1, 2]
    assert (join.counts.missing, join.counts.unmatched) == (3, 1)


def test_memory_holds_only_what_is_within_the_time() -> None:
    join = LabelJoin(WITHIN)
    for hour in range(200):
        now = hour * HOUR
        join.predictions([prediction(f"p{hour}", now, offset=hour)])
        join.labels([label(f"l{hour}", now)])
        join.expire(predicted_ms=now, labelled_ms=now)
    assert max(join.pending) <= 4
