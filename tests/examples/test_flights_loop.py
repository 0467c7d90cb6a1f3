"""What the demo knows of the loop: when it may go on, and what it says of it afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from examples.flights.loop import Alert, Loop
from models.rollout import Deployment, Version
from monitors.block import Block
from monitors.loop import Drift, Range, Reason, RetrainEvent, Side
from streams.loop_folds import Outcome

DAY = 86_400_000


def block(number: int) -> Block:
    return Block(f"f-{number}", "f", number, number * DAY, (number + 1) * DAY)


def retrain(number: int, reason: Reason = "no_champion", drifts: tuple[str, ...] = ()) -> RetrainEvent:
    end = (number + 1) * DAY
    return RetrainEvent(f"r{number}", "f", end, reason, Range(0, end), 4000, 4000, 0.9, "s", drifts)


def drift(number: int) -> Drift:
    side = Side(0.1, 7, 100)
    return Drift(f"d{number}", "f", (number + 1) * DAY, "loss", "shift", 2.0, 1.0, side, side, 1, number, 0.5)


def deployment(name: str, champion: str, candidate: str | None = None) -> Deployment:
    def version(number: str) -> Version:
        return Version("m", number, f"file:///{number}", "0" * 64, "s")

    shadows = (version(candidate),) if candidate else ()
    return Deployment(name, "m", version(champion), shadows, candidate=candidate)


def trainer(end_day: int, current: str | None = None, **other: Any) -> dict[str, Any]:
    nothing = {"retrain": None, "waiting_events": 0, "candidate": None, "previous": None}
    return {"block_end": end_day * DAY, "deployment": current, **nothing, **other}


def worker(current: str | None = None) -> dict[str, Any]:
    return {"deployment": current}


def cold_start() -> Loop:
    """A retrain event has come with block 3."""
    loop = Loop()
    loop.on_outcome(Outcome(block(3), (), (retrain(3),)))
    return loop


def test_without_an_event_or_a_roll_out_there_is_nothing_to_wait_for() -> None:
    loop = Loop()
    loop.on_outcome(Outcome(block(1), (drift(1),)))
    assert loop.closed_ms == 2 * DAY
    assert not loop.moves
    assert loop.state == "no model yet"


def test_a_retrain_event_is_waited_for_until_its_version_scores() -> None:
    loop = cold_start()
    assert loop.moves
    assert loop.state == "training (no champion)"
    assert not loop.settled(trainer(4), worker()), "it has not been worked off, whatever the trainer says"
    loop.on_records([Alert("champion", 4 * DAY, "x", "r3", "1")], [])
    assert loop.open is None
    assert loop.moves, "what came of it has not taken effect"
    assert not loop.settled(trainer(4, "x", waiting_events=1), worker("x"))
    assert not loop.settled(trainer(4, "x", retrain="r3"), worker("x"))
    assert not loop.settled(trainer(4, "x"), worker()), "the worker scores without it yet"
    assert not loop.settled(trainer(4, "x"), worker("x")), "its record has not been seen"
    loop.on_records([], [deployment("x", "1")])
    assert not loop.settled(trainer(3, "x"), worker("x")), "the trainer has not dealt with the block"
    assert loop.settled(trainer(4, "x"), worker("x"))
    assert not loop.moves
    assert loop.state == "watching"


@pytest.mark.parametrize("silent", ["worker", "trainer"])
def test_whoever_does_not_answer_is_waited_for(silent: str) -> None:
    loop = cold_start()
    loop.on_records([Alert("champion", 4 * DAY, "x", "r3", "1")], [deployment("x", "1")])
    assert loop.settled(trainer(4, "x"), worker("x"))
    assert not loop.settled(
        None if silent == "trainer" else trainer(4, "x"), None if silent == "worker" else worker("x")
    )


@pytest.mark.parametrize("role", ["candidate", "previous"])
def test_while_a_version_is_rolled_out_every_block_is_waited_for(role: str) -> None:
    loop = cold_start()
    loop.on_records([Alert("champion", 4 * DAY, "x", "r3", "1")], [deployment("x", "1", "2")])
    assert loop.settled(trainer(4, "x", **{role: "2"}), worker("x"))
    assert loop.moves
    loop.on_outcome(Outcome(block(4)))
    assert not loop.settled(trainer(4, "x", **{role: "2"}), worker("x"))
    assert loop.settled(trainer(5, "x"), worker("x"))
    assert not loop.moves


def test_a_rejection_works_an_event_off_too() -> None:
    loop = cold_start()
    (said,) = loop.on_records([Alert("rejected", 4 * DAY, "r3", "r3", None, ("it diverged",))], [])
    assert said == "5 Jan: what was trained is rejected: it diverged"
    assert loop.open is None


def test_what_is_told_twice_counts_once() -> None:
    loop = cold_start()
    alert, record = Alert("promoted", 4 * DAY, "x", "r3", "1"), deployment("x", "1")
    assert len(loop.on_records([alert, alert], [record, record])) == 1
    assert loop.on_records([alert], [record]) == []
    assert (len(loop.alerts), len(loop.deployments)) == (1, 1)


def test_the_json_and_the_timeline_tell_the_year_in_order() -> None:
    loop = cold_start()
    loop.on_records([Alert("champion", 4 * DAY, "a", "r3", "1")], [])
    loop.on_outcome(Outcome(block(9), (drift(9),), (retrain(9, "drift", ("d9",)),)))
    loop.on_records(
        [
            Alert("candidate", 10 * DAY, "b", "r9", "2"),
            Alert("promoted", 12 * DAY, "c", "r9", "2", ("better",)),
            Alert("rolled_back", 14 * DAY, "e", "r9", "2", ("worse",)),
        ],
        [],
    )
    found = loop.as_json()
    assert (found["drift_events"], found["retrain_events"], found["rejections"], found["rollbacks"]) == (1, 2, 0, 1)
    assert found["promotions"] == [
        {"version": "1", "date": "1970-01-05", "retrain": "r3", "reason": "no_champion"},
        {"version": "2", "date": "1970-01-13", "retrain": "r9", "reason": "drift"},
    ]
    assert found["drifts"][0] | {"id": ""} == {
        "date": "1970-01-11", "signal": "loss", "detector": "shift", "severity": 0.5, "id": ""
    }  # fmt: skip
    assert [happening.kind for happening in loop.timeline()] == [
        "retrain", "promotion", "drift", "retrain", "promotion", "rejection"
    ]  # fmt: skip
