"""What a monitor takes up that was left by one of another declaration, or that is not whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from features.spec import Category
from monitors.archive import Archive
from monitors.block import Block
from monitors.errors import RecordRefused
from monitors.join import Label
from monitors.join_store import Loaded, Segment
from streams import Blocks, Event, Labels, Pipeline, Source
from streams.loop_state import LoopState, feature_kinds

MINUTE = 60_000


class Order(Event):
    order: str
    user: str
    shop: str
    amount: float
    ts: int


class Outcome(Event):
    order: str
    bad: int
    ts: int


def pipeline(feature: str = "amount") -> Pipeline:
    orders = Source("orders", Order, key="user", id="order", time="ts")
    labels = Labels("outcomes", Outcome, id="order", value="bad", time="ts", within="10m")
    features = [orders.field(feature) if feature == "amount" else orders.category(feature, ["x", "y"])]
    return Pipeline("shop", score=orders, features=features, model="shop", labels=labels, blocks=Blocks(every="1m"))


def state(folder: Path, feature: str = "amount", source_id: Callable[[], str] = lambda: "") -> LoopState:
    declared = pipeline(feature)
    partitions = {declared.topics.predictions: 1, "outcomes": 1}
    return LoopState(declared, Archive(folder, feature_kinds(declared)), partitions, source_id=source_id)


class Message:
    def __init__(self, offset: int, value: bytes) -> None:
        self._offset, self._value = offset, value

    def value(self) -> bytes:
        return self._value

    def offset(self) -> int:
        return self._offset

    def partition(self) -> int:
        return 0

    def timestamp(self) -> tuple[int, int]:
        return 1, 10**15

    def headers(self) -> None:
        return None


def prediction(offset: int, at: int, **features: Any) -> Message:
    value = {
        "id": f"o{offset}", "key": "u", "time": at, "source": {"topic": "orders", "partition": 0, "offset": offset},
        "model": "shop", "version": "1", "arm": "champion", "deployment": "d", "score": 0.5, "shadows": {},
        "features": features,
    }  # fmt: skip
    return Message(offset, msgspec.json.encode(value))


def label(offset: int, order: str, at: int, bad: int = 1) -> Message:
    return Message(offset, msgspec.json.encode({"order": order, "bad": bad, "ts": at}))


def test_what_is_no_snapshot_is_refused(tmp_path: Path) -> None:
    fresh = state(tmp_path)
    with pytest.raises(RecordRefused):
        fresh.restore(Loaded(b"\x80", []))
    with pytest.raises(RecordRefused):
        fresh.restore(Loaded(b"rubbish", []))


def test_predictions_whose_features_are_of_another_kind_by_now_wait_no_more(tmp_path: Path) -> None:
    assert isinstance(pipeline("shop").spec.features[0], Category)
    before = state(tmp_path)
    before.take_predictions([prediction(0, MINUTE, amount=3.5)])
    segment = before.segment()
    raw = msgspec.json.decode(segment.predictions[0])
    raw["features"] = {"shop": 7}  # was a number, is a category
    after = state(tmp_path, "shop")
    kept = Segment((msgspec.json.encode(raw), *segment.predictions))
    after.restore(Loaded(before.snapshot(), [(1, kept)]))
    assert after.join.pending == (1, 0)  # one that lacks the feature still waits


def test_open_blocks_that_begin_anew_begin_after_the_last_closed_one(tmp_path: Path) -> None:
    before = state(tmp_path)
    before.take_predictions([prediction(0, 5 * MINUTE, amount=3.5)])
    after = state(tmp_path, "shop")
    after.restore(Loaded(before.snapshot(), []), Block("shop-9", "shop", 9, 9 * MINUTE, 10 * MINUTE))
    after.take_predictions([prediction(1, 5 * MINUTE, shop="x"), prediction(2, 30 * MINUTE, shop="x")])
    closed = after.close_blocks({}, finished=True)
    assert [(block.number, block.late) for block in closed] == [(10, 1), (30, 0)]


def test_a_label_that_came_again_after_it_was_forgotten_is_one_label(tmp_path: Path) -> None:
    first, again = Label("o1", MINUTE, 1.0), Label("o1", 20 * MINUTE, 0.0)
    waits = Label("o2", 15 * MINUTE, 1.0)  # keeps the first segment
    fresh = state(tmp_path)
    fresh.restore(Loaded(state(tmp_path).snapshot(), [(1, Segment((), (first, waits))), (2, Segment((), (again,)))]))
    assert fresh.join.pending == (0, 2)
    fresh.expire(finished=True)
    assert fresh.join.pending == (0, 0)
    assert sorted(fresh.committed(3, [])) == [1, 2]


def test_a_segment_of_which_nothing_is_needed_goes_after_the_next_commit(tmp_path: Path) -> None:
    before = state(tmp_path)
    before.take_predictions([prediction(0, MINUTE, amount=1.0)])
    before.take_labels([label(0, "o0", 2 * MINUTE)])
    predictions = Segment(before.segment().predictions)
    snapshot = before.snapshot()
    before.archive.flush("ab", 1)
    after = state(tmp_path)
    after.restore(Loaded(snapshot, [(1, predictions)]))
    assert after.committed(2, []) == [1]
    assert after.committed(3, []) == []


def test_offsets_of_a_scored_topic_that_was_made_again_are_no_duplicates(tmp_path: Path) -> None:
    made = ["first"]
    before = state(tmp_path, source_id=lambda: made[0])
    before.take_predictions([prediction(offset, MINUTE, amount=1.0) for offset in range(5)])
    made[0] = "second"
    taken, _ = before.take_predictions([prediction(5, MINUTE, amount=1.0)])  # of the first one, still
    assert len(taken.new) == 1
    after = state(tmp_path, source_id=lambda: made[0])
    after.restore(Loaded(before.snapshot(), []))
    taken, _ = after.take_predictions(
        [prediction(offset, 2 * MINUTE, amount=1.0) for offset in (6, 0, 1, 1)]  # 6 is of the old one
    )
    assert ([p.source.offset for p in taken.new], taken.repeated) == ([6, 0, 1], 1)
    taken, _ = after.take_predictions([prediction(offset, 2 * MINUTE, amount=1.0) for offset in (0, 1, 2)])
    assert ([p.source.offset for p in taken.new], taken.repeated) == ([2], 2)


def test_without_ids_what_comes_again_is_a_duplicate(tmp_path: Path) -> None:
    fresh = state(tmp_path)
    for _ in range(2):
        taken, _ = fresh.take_predictions([prediction(0, MINUTE, amount=1.0)])
    assert taken.repeated == 1


def crashed(before: LoopState, folder: Path, segments: list[tuple[int, Segment]]) -> LoopState:
    """What the next one takes up after a commit."""
    after = state(folder)
    after.restore(Loaded(before.snapshot(), segments))
    return after


def missing_and_unmatched(found: LoopState) -> tuple[int, int]:
    closed = found.close_blocks({}, finished=True)
    return sum(block.labels.missing for block in closed), sum(block.labels.unmatched for block in closed)


def test_a_prediction_that_was_given_up_and_is_not_archived_yet_is_not_given_up_again(tmp_path: Path) -> None:
    before = state(tmp_path)
    before.take_predictions([prediction(0, MINUTE, amount=1.0)])
    first = before.segment()
    before.take_labels([label(0, "nobody", 12 * MINUTE)])
    before.expire()
    after = crashed(before, tmp_path, [(1, first)])
    assert after.join.pending == (0, 0)
    assert [row.label for row in after.archive.waiting] == [None]
    after.expire(finished=True)
    assert missing_and_unmatched(after)[0] == 1


def test_a_label_stays_until_its_pair_is_archived(tmp_path: Path) -> None:
    before = state(tmp_path)
    before.take_predictions([prediction(0, MINUTE, amount=1.0)])
    before.take_labels([label(0, "o0", 2 * MINUTE)])
    first = before.segment()
    assert before.committed(1, []) == []
    before.take_predictions([prediction(1, 30 * MINUTE, amount=1.0)])
    before.expire()  # the label is forgotten
    assert before.committed(2, []) == []
    after = crashed(before, tmp_path, [(1, first)])
    assert [row.label and row.label.id for row in after.archive.waiting] == ["o0"]
    assert before.committed(3, before.archive.flush("ab", 3)) == [1]


def test_a_label_whose_prediction_is_archived_is_not_without_one(tmp_path: Path) -> None:
    before = state(tmp_path)
    before.take_predictions([prediction(0, MINUTE, amount=1.0)])
    before.take_labels([label(0, "o0", 9 * MINUTE)])
    labels = Segment((), before.segment().labels)
    before.archive.flush("ab", 1)
    before.committed(1, [])
    before.take_predictions([prediction(1, 8 * MINUTE, amount=1.0)])
    after = crashed(before, tmp_path, [(1, labels), (2, Segment(before.segment().predictions))])
    after.expire(finished=True)
    assert missing_and_unmatched(after)[1] == 0
