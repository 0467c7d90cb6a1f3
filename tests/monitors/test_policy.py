"""When a retrain event comes: the policy over drawn blocks, and against an oracle that keeps everything."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitors.block import Block, Labelled
from monitors.loop import Drift, Range, RetrainEvent, Side, event_id, retrain_from_json, to_json
from monitors.policy import DAY_MS, Policy, RetrainFold, matches

OPEN = Policy(on=("*",), min_labels=10, cooldown_ms=0, budget=100)


def block(number: int, *, predictions: int = 100, unscored: int = 0, labels: int = 10, length: int = DAY_MS) -> Block:
    return Block(
        f"p-{number}",
        "p",
        number,
        number * length,
        (number + 1) * length,
        predictions=predictions,
        unscored=unscored,
        labels=Labelled(n=labels),
    )


def drift(name: str, time: int, signal: str = "loss") -> Drift:
    side = Side(0.0, 1, 1)
    return Drift(name, "p", time, signal, "psi", 1.0, 0.5, side, side, 0, 1, 1.0)


def fold(policy: Policy = OPEN, **changes) -> RetrainFold:
    return RetrainFold("p", "spec", replace(policy, **changes))


def run(made: RetrainFold, steps: list[tuple[Block, list[Drift]]]) -> list[RetrainEvent]:
    return [event for seen, drifts in steps for event in made.update(seen, drifts)]


def test_without_a_champion_the_first_event_comes_when_there_are_labels_enough() -> None:
    made = fold(min_labels=25)
    seen = [made.update(block(i, unscored=100)) for i in range(4)]
    assert [len(events) for events in seen] == [0, 0, 1, 0]
    (event,) = seen[2]
    assert (event.reason, event.drifts) == ("no_champion", ())
    assert event.range == Range(0, 3 * DAY_MS)
    assert (event.time, event.labels, event.new_labels, event.coverage) == (3 * DAY_MS, 30, 30, 0.1)
    assert (event.id, event.spec_hash) == (event_id("retrain", "p", "no_champion", 2), "spec")


def test_one_scored_row_is_a_champion_and_an_empty_block_says_nothing_of_it() -> None:
    assert fold().update(block(0, unscored=99)) == []
    made = fold(min_labels=11)
    assert made.update(block(0, unscored=100)) == []
    assert [event.reason for event in made.update(block(1, predictions=0))] == ["no_champion"]


def test_a_champion_that_did_not_come_is_asked_for_again_after_the_cooldown_with_new_labels() -> None:
    made = fold(min_labels=20, cooldown_ms=4 * DAY_MS)
    events = run(made, [(block(i, unscored=100), []) for i in range(12)])
    assert [event.time // DAY_MS for event in events] == [2, 6, 10]
    assert [event.new_labels for event in events] == [20, 40, 40]
    assert len({event.id for event in events}) == 3


def test_a_drift_brings_an_event_that_names_it_and_only_the_watched_signals_count() -> None:
    made = fold(on=("loss", "feature.a*"))
    assert run(made, [(block(0), []), (block(1), [drift("x", DAY_MS, "feature.b"), drift("y", DAY_MS, "score")])]) == []
    (event,) = made.update(block(2), [drift("d2", 3 * DAY_MS), drift("d1", 3 * DAY_MS, "feature.amount")])
    assert (event.reason, event.drifts) == ("drift", ("d2", "d1"))
    assert event.id == event_id("retrain", "p", "drift", "d2", "d1")
    assert made.update(block(3)) == []


def test_a_drift_during_the_cooldown_waits_for_its_end() -> None:
    #   block   0    1    2    3    4    5
    #   drift   a         b    c
    #   event   a                   b,c
    made = fold(cooldown_ms=4 * DAY_MS)
    drifts = {0: "a", 2: "b", 3: "c"}
    events = run(made, [(block(i), [drift(drifts[i], 0)] if i in drifts else []) for i in range(6)])
    assert [(event.time // DAY_MS, event.drifts) for event in events] == [(1, ("a",)), (5, ("b", "c"))]


def test_a_drift_waits_for_new_labels() -> None:
    made = fold(min_labels=30)
    events = run(made, [(block(i), [drift("a", 0)] if i == 0 else []) for i in range(5)])
    assert [(event.time // DAY_MS, event.new_labels) for event in events] == [(3, 30)]


def test_the_same_drift_twice_is_one_cause() -> None:
    made = fold()
    events = run(made, [(block(0), [drift("a", 0), drift("a", 0)]), (block(1), [drift("a", 0)]), (block(2), [])])
    assert [event.drifts for event in events] == [("a",)]


def test_a_block_that_came_before_changes_nothing() -> None:
    made = fold(min_labels=15)
    assert made.update(block(0)) == []
    assert made.update(block(0), [drift("a", 0)]) == []
    assert made.update(block(1)) == []
    (event,) = made.update(block(2), [drift("b", 0)])
    assert (event.labels, event.drifts) == (30, ("b",))


def test_a_model_grows_old_from_its_first_score_and_then_from_the_last_event() -> None:
    made = fold(max_age_ms=5 * DAY_MS, min_labels=21)
    steps = [(block(i, labels=0 if i < 2 else 10, unscored=100 if i < 2 else 0), []) for i in range(13)]
    events = run(made, steps)
    assert [(event.reason, event.time // DAY_MS) for event in events] == [("max_age", 7), ("max_age", 12)]


def test_a_schedule_keeps_to_its_multiples_also_where_there_are_no_blocks() -> None:
    made = fold(every_ms=7 * DAY_MS)
    events = run(made, [(block(i), []) for i in range(30) if i not in (13, 14)])
    assert [event.time // DAY_MS for event in events] == [7, 16, 21, 28]
    assert {event.reason for event in events} == {"schedule"}


def test_a_schedule_that_was_held_back_comes_once() -> None:
    made = fold(every_ms=2 * DAY_MS, min_labels=70)
    events = run(made, [(block(i), []) for i in range(14)])
    assert [event.time // DAY_MS for event in events] == [7, 14]


def test_an_event_for_a_drift_answers_the_schedule_of_that_day_too() -> None:
    made = fold(every_ms=7 * DAY_MS)
    events = run(made, [(block(i), [drift("a", 0)] if i == 6 else []) for i in range(10)])
    assert [event.reason for event in events] == ["drift"]


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_no_more_events_than_the_budget_in_any_day(budget: int) -> None:
    hour = DAY_MS // 24
    made = fold(budget=budget)
    events = run(made, [(block(i, length=hour), [drift(str(i), i * hour)]) for i in range(100)])
    for event in events:
        assert sum(0 <= event.time - other.time < DAY_MS for other in events) <= budget
    assert len(events) == 5 * budget
    named = [name for event in events for name in event.drifts]
    assert named == [str(i) for i in range(len(named))]  # each once, none forgotten


def test_a_manual_event_answers_what_was_open_and_begins_the_cooldown() -> None:
    made = fold(cooldown_ms=3 * DAY_MS, min_labels=30)
    run(made, [(block(0), [drift("a", DAY_MS)]), (block(1), [])])
    event = made.manual(time=1_000)
    assert (event.reason, event.time, event.range.to, event.labels) == ("manual", 1_000, 2 * DAY_MS, 20)
    assert made.manual(time=1_000) == event != made.manual(time=2_000)
    made.requested(event)
    events = run(made, [(block(i), [drift(f"b{i}", (i + 1) * DAY_MS)]) for i in range(2, 8)])
    assert [(e.time // DAY_MS, e.drifts, e.new_labels) for e in events] == [
        (5, ("b2", "b3", "b4"), 30),
        (8, ("b5", "b6", "b7"), 30),
    ]


def test_a_manual_event_that_is_read_late_counts_from_where_it_was_asked() -> None:
    early, late = fold(min_labels=35), fold(min_labels=35)
    for i in range(2):
        early.update(block(i)), late.update(block(i))
    event = early.manual(time=5)
    early.requested(event)
    early.update(block(2)), late.update(block(2))
    late.requested(event)
    steps = [(block(i), [drift("d", (i + 1) * DAY_MS)] if i == 3 else []) for i in range(3, 8)]
    assert run(early, steps) == run(late, steps) != []


def test_an_event_of_its_own_given_back_changes_nothing() -> None:
    steps = [(block(i), [drift(str(i), i)] if i % 3 == 0 else []) for i in range(20)]
    plain, told = fold(cooldown_ms=2 * DAY_MS), fold(cooldown_ms=2 * DAY_MS)
    found = []
    for seen, drifts in steps:
        for event in told.update(seen, drifts):
            told.requested(event)
            found.append(event)
    assert found == run(plain, steps) != []


def test_an_event_survives_the_way_through_json_and_tells_its_policy() -> None:
    (event,) = fold(max_age_ms=DAY_MS).update(block(0, unscored=100))
    assert retrain_from_json(to_json(event)) == event
    assert event.policy == {
        "on": ["*"], "min_labels": 10, "cooldown_ms": 0, "max_age_ms": DAY_MS, "every_ms": None, "budget": 100,
    }  # fmt: skip
    assert msgspec.json.decode(to_json(event))["range"] == {"from": 0, "to": DAY_MS}


@pytest.mark.parametrize(
    ("pattern", "signal", "fits"),
    [
        ("loss", "loss", True),
        ("loss", "losses", False),
        ("feature.*", "feature.a.b", True),
        ("feature.*_1h", "feature.n_1h", True),
        ("feature.*", "xfeature.a", False),
        ("*", "null.x", True),
        ("feature.[a]", "feature.a", False),
        ("feature.a?", "feature.ab", False),
    ],
)
def test_a_star_stands_for_any_part_and_nothing_else_does(pattern: str, signal: str, fits: bool) -> None:
    assert matches(pattern, signal) is fits


# Oracle: everything is kept, and asked anew at each block.
@st.composite
def years(draw: st.DrawFn) -> tuple[Policy, list[tuple[Block, list[Drift]]]]:
    length = draw(st.sampled_from([DAY_MS // 4, DAY_MS]))
    policy = Policy(
        on=draw(st.sampled_from([("*",), ("loss",), ("feature.*", "score")])),
        min_labels=draw(st.sampled_from([1, 15, 40])),
        cooldown_ms=draw(st.sampled_from([0, 2, 5])) * length,
        max_age_ms=draw(st.sampled_from([None, 6 * length])),
        every_ms=draw(st.sampled_from([None, 3 * length])),
        budget=draw(st.sampled_from([1, 2])),
    )
    steps, number = [], draw(st.integers(0, 5))
    for _ in range(draw(st.integers(1, 25))):
        predictions = draw(st.sampled_from([0, 10, 10]))
        unscored = draw(st.sampled_from([0, 0, 0, 4, 10])) if predictions else 0
        made = block(
            number, predictions=predictions, unscored=unscored, labels=draw(st.sampled_from([0, 5, 20])), length=length
        )
        signals = draw(st.lists(st.sampled_from(["loss", "score", "feature.a"]), max_size=2, unique=True))
        steps.append((made, [drift(f"{s}-{number}", made.end, s) for s in signals]))
        number += draw(st.sampled_from([1, 1, 1, 4]))
    return policy, steps


def oracle(policy: Policy, steps: list[tuple[Block, list[Drift]]]) -> list[tuple[str, int, tuple[str, ...], int]]:
    """By hand: reason, time, drifts and new labels of each event."""
    events: list[tuple[str, int, tuple[str, ...], int]] = []
    for i, (now, _) in enumerate(steps):
        past = [seen for seen, _ in steps[: i + 1]]
        last = events[-1][1] if events else None
        since = [seen for seen in past if last is None or seen.end > last]
        new = sum(seen.labels.n for seen in since)
        open_drifts = tuple(
            d.id for seen, drifts in steps[: i + 1] if seen in since for d in drifts if policy.counts(d)
        )
        spoken = [seen for seen in past if seen.predictions]
        scored = [seen.start for seen in spoken if seen.unscored < seen.predictions]
        edges = [past[0].start, *(seen.end for seen in past)]
        crossed = policy.every_ms is not None and any(
            a // policy.every_ms != b // policy.every_ms for a, b in pairwise(edges) if last is None or b > last
        )
        age = now.end - (last if last is not None else scored[0]) if last is not None or scored else None
        if spoken and spoken[-1].unscored == spoken[-1].predictions:
            reason = "no_champion"
        elif open_drifts:
            reason = "drift"
        elif policy.max_age_ms is not None and age is not None and age >= policy.max_age_ms:
            reason = "max_age"
        elif crossed:
            reason = "schedule"
        else:
            continue
        if new < policy.min_labels or (last is not None and now.end - last < policy.cooldown_ms):
            continue
        if sum(now.end - time < DAY_MS for _, time, _, _ in events) >= policy.budget:
            continue
        events.append((reason, now.end, open_drifts if reason == "drift" else (), new))
    return events


@given(years())
def test_the_fold_says_what_the_oracle_says(year: tuple[Policy, list[tuple[Block, list[Drift]]]]) -> None:
    policy, steps = year
    events = run(RetrainFold("p", "spec", policy), steps)
    assert [(e.reason, e.time, e.drifts, e.new_labels) for e in events] == oracle(policy, steps)
    assert len({event.id for event in events}) == len(events)
    assert events == run(RetrainFold("p", "spec", policy), steps)


@given(years(), st.data())
def test_a_fold_that_begins_anew_goes_on_as_the_one_that_did_not(
    year: tuple[Policy, list[tuple[Block, list[Drift]]]], data: st.DataObject
) -> None:
    policy, steps = year
    whole = RetrainFold("p", "spec", policy)
    events = run(whole, steps)
    at = data.draw(st.integers(0, len(steps)))
    again = RetrainFold("p", "spec", policy)
    before = run(again, steps[:at])
    assert before + run(again, steps[at:]) == events
    assert run(again, steps) == []  # every block a second time
