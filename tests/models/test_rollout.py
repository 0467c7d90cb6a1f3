from __future__ import annotations

import json
import zlib

import numpy as np
import pytest

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
