from __future__ import annotations

import json
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import rollout
from models.errors import ModelRefused
from models.rollout import Version

KEYS = [f"user-{i}".encode() for i in range(100_000)]


def version(number: int, **changes) -> Version:
    fields = {
        "model": "fraud",
        "version": str(number),
        "uri": f"/models/{number}.onnx",
        "sha256": f"{number:064x}",
        "spec_hash": "abc",
    }
    return Version(**(fields | changes))


CHAMPION = rollout.promote(rollout.unscored("fraud"), version(1))


def test_a_deployment_survives_the_way_through_json() -> None:
    deployment = rollout.add_canary(rollout.add_shadow(CHAMPION, version(2, output="score")), version(3), 0.1)
    assert rollout.from_json(rollout.to_json(deployment)) == deployment


def test_the_record_has_the_public_names() -> None:
    record = json.loads(rollout.to_json(rollout.add_canary(CHAMPION, version(3), 0.25)))
    assert set(record) == {"deployment", "model", "champion", "shadows", "canary"}
    assert record["champion"] == {
        "model": "fraud",
        "version": "1",
        "uri": "/models/1.onnx",
        "sha256": f"{1:064x}",
        "spec_hash": "abc",
        "output": None,
    }
    assert record["canary"]["share"] == 0.25
    assert json.loads(rollout.to_json(rollout.unscored("fraud")))["champion"] is None


def test_a_field_of_a_later_version_is_ignored() -> None:
    record = json.loads(rollout.to_json(CHAMPION)) | {"note": "later"}
    assert rollout.from_json(json.dumps(record).encode()) == CHAMPION


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"champion": {"version": 1}}, r"Expected `str`, got `int` - at `\$.champion.version`"),
        ({"champion": None, "canary": {"version": None, "share": 0.5}}, r"\$.canary.version"),
        ({"deployment": None}, r"\$.deployment"),
        (
            {"canary": {"version": json.loads(rollout.to_json(CHAMPION))["champion"], "share": 1.5}},
            "between 0 and 1",
        ),
        ({"shadows": [json.loads(rollout.to_json(CHAMPION))["champion"]]}, "version 1 has two places"),
    ],
)
def test_a_record_that_is_no_deployment_is_refused_with_its_field(change: dict, said: str) -> None:
    record = json.loads(rollout.to_json(CHAMPION)) | change
    with pytest.raises(ModelRefused, match=said):
        rollout.from_json(json.dumps(record).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"null", b"[]", b"\xff", b"[" * 5000])
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(ModelRefused, match="not a deployment"):
        rollout.from_json(data)


def test_a_digest_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="64 hex digits"):
        version(1, sha256="abc")


def test_without_a_canary_every_row_is_the_champions() -> None:
    arms = rollout.arms(CHAMPION, [b"a", None])
    assert (arms.dtype, arms.tolist()) == (np.uint8, [0, 0])


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_canary_gets_its_share_of_keys_in_all_and_in_each_partition(share: float) -> None:
    arms = rollout.arms(rollout.add_canary(CHAMPION, version(2), share), KEYS)
    assert abs(arms.mean() - share) < 0.005
    partitions = np.array([zlib.crc32(key) % 4 for key in KEYS])
    for partition in range(4):
        assert abs(arms[partitions == partition].mean() - share) < 0.01


def test_a_key_stays_with_its_arm_and_with_the_canary_as_the_share_grows() -> None:
    small = rollout.arms(rollout.add_canary(CHAMPION, version(2), 0.1), KEYS)
    again = rollout.arms(rollout.add_canary(CHAMPION, version(2), 0.1), KEYS[::-1])[::-1]
    large = rollout.arms(rollout.add_canary(CHAMPION, version(2), 0.4), KEYS)
    assert (small == again).all()
    assert large[small == rollout.CANARY].all()


def test_another_canary_is_tried_by_other_keys() -> None:
    first = rollout.arms(rollout.add_canary(CHAMPION, version(2), 0.1), KEYS)
    second = rollout.arms(rollout.add_canary(CHAMPION, version(3), 0.1), KEYS)
    assert (first & second).mean() < 0.05


def test_null_keys_are_the_champions() -> None:
    arms = rollout.arms(rollout.add_canary(CHAMPION, version(2), 0.99), [None] * 50 + KEYS[:50])
    assert not arms[:50].any()
    assert arms[50:].any()


def test_promotion_ends_the_canary_and_moves_the_version_out_of_its_place() -> None:
    before = rollout.add_canary(rollout.add_shadow(CHAMPION, version(2)), version(3), 0.1)
    after = rollout.promote(before, version(2))
    assert after.champion == version(2)
    assert (after.shadows, after.canary) == ((), None)


def test_a_shadow_becomes_the_canary_and_is_no_shadow_any_more() -> None:
    after = rollout.add_canary(rollout.add_shadow(CHAMPION, version(2)), version(2), 0.1)
    assert after.shadows == ()
    assert [v.version for v in after.versions] == ["1", "2"]


def test_a_shadow_added_twice_is_there_once() -> None:
    once = rollout.add_shadow(CHAMPION, version(2))
    assert rollout.add_shadow(once, version(2)).shadows == once.shadows


def test_rollback_says_what_was_said_before_under_a_new_id() -> None:
    second = rollout.promote(CHAMPION, version(2))
    back = rollout.rollback(second, CHAMPION)
    assert (back.champion, back.shadows, back.canary) == (CHAMPION.champion, (), None)
    assert len({CHAMPION.id, second.id, back.id}) == 3


def test_the_same_steps_give_the_same_ids() -> None:
    def steps() -> list[str]:
        first = rollout.promote(rollout.unscored("fraud"), version(1))
        second = rollout.add_shadow(first, version(2))
        return [first.id, second.id, rollout.promote(second, version(2)).id]

    assert steps() == steps()
    assert len(set(steps())) == 3


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (lambda: rollout.add_shadow(CHAMPION, version(1)), "version 1 has two places"),
        (lambda: rollout.add_canary(CHAMPION, version(2), 0.0), "between 0 and 1"),
        (lambda: rollout.add_canary(rollout.unscored("fraud"), version(2), 0.1), "needs a champion"),
        (lambda: rollout.promote(CHAMPION, version(2, model="churn")), "belongs to another model than fraud"),
    ],
)
def test_steps_that_make_no_sense_are_refused(step, said: str) -> None:
    with pytest.raises(ModelRefused, match=said):
        step()


def names(deployment: rollout.Deployment) -> tuple[str | None, list[str], str | None, str | None, str | None]:
    """Champion, shadows, candidate, previous, first."""
    champion = deployment.champion.version if deployment.champion else None
    shadows = [v.version for v in deployment.shadows]
    return champion, shadows, deployment.candidate, deployment.previous, deployment.first


def test_ids_and_records_without_roles_are_what_they_were_before_there_were_any() -> None:
    shadowed = rollout.add_shadow(CHAMPION, version(2, output="score"))
    canary = rollout.add_canary(shadowed, version(3), 0.1)
    promoted = rollout.promote(canary, version(3))
    back = rollout.rollback(promoted, shadowed)
    steps = [rollout.unscored("fraud"), CHAMPION, shadowed, canary, promoted, back]
    assert [d.id for d in steps] == [
        "0c57079005484a39",
        "cb5559701b74c534",
        "d7b73ae7999a5cae",
        "2768bdb611c6aa3d",
        "f627b968b73343d2",
        "9c0d4e675ae2509e",
    ]
    assert set(json.loads(rollout.to_json(canary))) == {"deployment", "model", "champion", "shadows", "canary"}


def test_roles_cause_and_evidence_are_in_the_record_and_in_the_id_where_there_are_any() -> None:
    evidence = {"rows": 2000, "difference": -0.0123, "reasons": ["as good"]}
    one = rollout.add_candidate(CHAMPION, version(2), cause="retrain-1", evidence=evidence)
    record = json.loads(rollout.to_json(one))
    assert (record["candidate"], record["cause"], record["evidence"]) == ("2", "retrain-1", evidence)
    assert not {"previous", "first"} & record.keys()
    assert rollout.from_json(rollout.to_json(one)) == one
    other = rollout.add_candidate(CHAMPION, version(2), cause="retrain-2", evidence=evidence)
    assert one.id != other.id
    assert one.id == rollout.add_candidate(CHAMPION, version(2), cause="retrain-1", evidence=dict(evidence)).id


@pytest.mark.parametrize("role", rollout.ROLES)
def test_a_role_of_no_shadow_is_refused(role: str) -> None:
    record = json.loads(rollout.to_json(CHAMPION)) | {role: "1"}
    with pytest.raises(ModelRefused, match=f"{role} 1 is not among the shadows"):
        rollout.from_json(json.dumps(record).encode())


def test_the_way_of_a_candidate_to_champion_and_of_the_former_one_out() -> None:
    shadowed = rollout.add_candidate(CHAMPION, version(2), cause="r1")
    assert names(shadowed) == ("1", ["2"], "2", None, None)
    promoted = rollout.promote_candidate(shadowed, evidence={"rows": 10})
    assert names(promoted) == ("2", ["1"], None, "1", None)
    assert (promoted.cause, promoted.evidence) == ("promoted", {"rows": 10})
    retired = rollout.retire_previous(promoted)
    assert names(retired) == ("2", [], None, None, None)
    assert retired.cause == "guard over"


def test_the_first_champion_stays_where_it_is_kept() -> None:
    def next_one(current: rollout.Deployment, number: int) -> rollout.Deployment:
        return rollout.promote_candidate(rollout.add_candidate(current, version(number)), keep_first=True)

    second = next_one(CHAMPION, 2)
    assert names(second) == ("2", ["1"], None, "1", "1")
    assert names(rollout.retire_previous(second)) == ("2", ["1"], None, None, "1")
    third = next_one(rollout.retire_previous(second), 3)
    assert names(third) == ("3", ["1", "2"], None, "2", "1")
    assert names(next_one(third, 4)) == ("4", ["1", "3"], None, "3", "1")  # under guard still: 2 leaves
    assert names(rollout.retire_previous(third)) == ("3", ["1"], None, None, "1")
    assert names(rollout.roll_back_to_previous(third)) == ("2", ["1"], None, None, "1")
    assert names(rollout.roll_back_to_previous(second)) == ("1", [], None, None, None)


def test_a_candidate_takes_the_place_of_the_one_before_and_leaves_the_others() -> None:
    current = rollout.install(rollout.add_shadow(CHAMPION, version(9)), version(2), keep_first=True)
    current = rollout.add_candidate(current, version(3))
    assert names(rollout.add_candidate(current, version(4))) == ("2", ["9", "1", "4"], "4", "1", "1")
    assert names(rollout.add_candidate(current, version(3))) == names(current)


def test_a_rejected_candidate_leaves_and_what_is_more_than_a_candidate_stays() -> None:
    current = rollout.add_candidate(rollout.install(CHAMPION, version(2), keep_first=True), version(3), cause="r")
    dropped = rollout.drop(current, "3", cause="rejected", evidence={"rows": 5})
    assert names(dropped) == ("2", ["1"], None, "1", "1")
    assert (dropped.cause, dropped.evidence) == ("rejected", {"rows": 5})
    again = rollout.add_candidate(rollout.retire_previous(current), version(1))  # the first one, trained once more
    assert names(again) == ("2", ["1"], "1", None, "1")
    assert names(rollout.drop(again, "1")) == ("2", ["1"], None, None, "1")


def test_a_rollback_by_the_guard_throws_the_bad_one_out_and_leaves_a_candidate() -> None:
    current = rollout.add_candidate(rollout.install(CHAMPION, version(2)), version(3), cause="r")
    back = rollout.roll_back_to_previous(current, evidence={"rows": 400})
    assert names(back) == ("1", ["3"], "3", None, None)
    assert (back.cause, back.evidence) == ("rolled back", {"rows": 400})


def test_the_first_model_ever_is_installed_without_a_former_one() -> None:
    cold = rollout.install(rollout.unscored("fraud"), version(1), cause="r1", keep_first=True)
    assert names(cold) == ("1", [], None, None, None)
    candidate = rollout.add_candidate(rollout.unscored("fraud"), version(1), cause="r1")
    assert names(rollout.promote_candidate(candidate, keep_first=True)) == ("1", [], None, None, None)


def test_what_is_champion_already_is_installed_without_a_change_of_places() -> None:
    current = rollout.add_candidate(rollout.install(CHAMPION, version(2), keep_first=True), version(3))
    assert names(rollout.install(current, version(2), keep_first=True)) == names(current)


def test_the_steps_by_hand_keep_the_roles_of_those_who_stay() -> None:
    current = rollout.add_candidate(rollout.install(CHAMPION, version(2), keep_first=True), version(3))
    assert names(rollout.add_shadow(current, version(4))) == ("2", ["1", "3", "4"], "3", "1", "1")
    assert names(rollout.add_canary(current, version(3), 0.1)) == ("2", ["1"], None, "1", "1")
    assert names(rollout.promote(current, version(1))) == ("1", ["3"], "3", None, None)
    assert names(rollout.rollback(rollout.promote(current, version(1)), current)) == names(current)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (lambda: rollout.promote_candidate(CHAMPION), "fraud has no candidate"),
        (lambda: rollout.retire_previous(CHAMPION), "fraud has no previous"),
        (lambda: rollout.roll_back_to_previous(CHAMPION), "fraud has no previous"),
        (lambda: rollout.drop(CHAMPION, "1"), "version 1 is not among the shadows of fraud"),
        (lambda: rollout.add_candidate(CHAMPION, version(1)), "version 1 has two places"),
        (lambda: rollout.add_candidate(rollout.add_canary(CHAMPION, version(2), 0.1), version(2)), "two places"),
        (lambda: rollout.install(CHAMPION, version(2, model="churn")), "another model than fraud"),
    ],
)
def test_steps_of_the_loop_that_make_no_sense_are_refused(step, said: str) -> None:
    with pytest.raises(ModelRefused, match=said):
        step()


@given(st.lists(st.tuples(st.sampled_from("cpdgrisx"), st.integers(1, 5)), max_size=20), st.booleans())
def test_whatever_the_steps_a_deployment_is_sound_and_the_first_stays(
    steps: list[tuple[str, int]], keep_first: bool
) -> None:
    current, first = rollout.unscored("fraud"), None
    for kind, number in steps:
        made = {
            "c": lambda d, v: rollout.add_candidate(d, v, cause="r"),
            "p": lambda d, v: rollout.promote_candidate(d, keep_first=keep_first),
            "d": lambda d, v: rollout.drop(d, d.candidate or "none"),
            "g": lambda d, v: rollout.retire_previous(d),
            "r": lambda d, v: rollout.roll_back_to_previous(d),
            "i": lambda d, v: rollout.install(d, v, keep_first=keep_first),
            "s": rollout.add_shadow,
            "x": lambda d, v: rollout.add_canary(d, v, 0.1),
        }[kind]
        before = current
        try:
            current = made(current, version(number))
        except ModelRefused:
            continue
        assert rollout.from_json(rollout.to_json(current)) == current
        assert len({v.version for v in current.versions}) == len(current.versions)
        assert current.champion is not None or before.champion is None
        if kind in "pi" and before.champion and before.champion != current.champion:
            assert current.previous == before.champion.version
        if kind in "pdgir" and current.first is None and before.first is not None:
            assert kind in "pir"
            assert before.first in (current.champion.version if current.champion else None, before.previous)
        first = first or current.first
    assert keep_first or first is None
