"""Blocks against a plain loop over all rows, whatever the batches, the turns of partitions and the restarts."""

from __future__ import annotations

import math
import random
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitors import histogram
from monitors.block import Block, Column, Labelled, VersionLoss, from_json, to_json
from monitors.blocks import FINISHED, BlockBuilder
from monitors.errors import RecordRefused
from monitors.join import Joined
from monitors.open_block import MOST_FREQUENT, REST
from monitors.performance import EPS
from monitors.predictions import Prediction
from tests.monitors.records import HOUR, KINDS, label, prediction

MINUTE = 60_000


def builder(**other: Any) -> BlockBuilder:
    return BlockBuilder("p", KINDS, **({"every_ms": HOUR} | other))


def pair(found: Prediction, time: int, value: float = 1.0) -> Joined:
    return Joined(found, label(found.id, time, value))


def finish(blocks: BlockBuilder) -> list[Block]:
    return blocks.close(FINISHED, {})


# --- the oracle: a loop over all rows ---


def loss(score: float, value: float) -> float:
    p = min(max(score, EPS), 1 - EPS)
    return -math.log(p) if value >= 0.5 else -math.log1p(-p)


def numbers(values: Sequence[Any]) -> Column:
    there = np.array([v for v in values if isinstance(v, float)], dtype=np.float32)
    nulls = len(values) - len(there)
    if not len(there):
        return Column(0, nulls)
    wide = there.astype(np.float64)
    low, high = float(wide.min()), float(wide.max())
    return Column(len(there), nulls, wide.mean(), wide.std(), low, high, histogram.counts(there))


def expected(predictions: Iterable[Prediction], pairs: Iterable[Joined], within: int) -> dict[int, dict[str, Any]]:
    """By number, the block's fields as plain Python and numpy make them of rows."""
    rows: dict[int, list[Prediction]] = defaultdict(list)
    joined: dict[int, list[Joined]] = defaultdict(list)
    for found in predictions:
        rows[found.time // HOUR].append(found)
    for found, truth in pairs:
        joined[max(found.time, truth.time) // HOUR if truth else (found.time + within) // HOUR].append((found, truth))
    return {n: one_block(rows.get(n, []), joined.get(n, [])) for n in sorted({*rows, *joined})}


def one_block(rows: Sequence[Prediction], joined: Sequence[Joined]) -> dict[str, Any]:
    cities = [row.features.city for row in rows]
    labelled = [(p, truth) for p, truth in joined if truth]
    judged: dict[str, list[tuple[bool, float, float]]] = defaultdict(list)
    pairs: dict[tuple[str, str], list[float]] = defaultdict(list)
    for p, truth in labelled:
        scores = {p.version: p.score, **(p.shadows or {})}
        for version, score in scores.items():
            if version is not None and isinstance(score, float):
                judged[version].append((version == p.version, score, truth.value))
                if version != p.version and isinstance(p.score, float):
                    pairs[version, p.version].append(loss(score, truth.value) - loss(p.score, truth.value))
    versions = {}
    for version, found in judged.items():
        served, scores, values = map(np.array, zip(*found, strict=True))
        versions[version] = VersionLoss(
            len(found),
            int(served.sum()),
            float(np.mean([loss(s, v) for s, v in zip(scores, values, strict=True)])),
            float(np.mean((scores - values) ** 2)),
            float(np.mean((scores >= 0.5) != (values >= 0.5))),
            float(np.mean(scores)),
            float(np.mean(values)),
        )
    n = len(labelled)
    return {
        "predictions": len(rows),
        "unscored": sum(row.score is None for row in rows),
        "late": 0,
        "served": dict(Counter(row.version for row in rows if row.score is not None)),
        "features": {
            "amount": numbers([row.features.amount for row in rows]),
            "city": Column(
                sum(c is not None for c in cities),
                cities.count(None),
                bins=dict(Counter(c for c in cities if c is not None)),
            ),
        },
        "score": numbers([row.score for row in rows]),
        "labels": Labelled(
            n,
            float(np.mean([truth.value for _, truth in labelled])) if n else 0.0,
            float(np.mean([(truth.time - p.time) / 1000 for p, truth in labelled])) if n else 0.0,
            missing=len(joined) - n,
        ),
        "versions": versions,
        "paired": {key: (len(d), sum(d), sum(x * x for x in d)) for key, d in pairs.items()},
    }


def same(found: Any, wanted: Any, name: str = "") -> None:
    """Equal, numbers within 1e-9."""
    if isinstance(wanted, (Column, Labelled, VersionLoss)):
        for key in wanted.__struct_fields__:
            same(getattr(found, key), getattr(wanted, key), f"{name}.{key}")
    elif isinstance(wanted, dict):
        assert set(found) == set(wanted), name
        for key, value in wanted.items():
            same(found[key], value, f"{name}.{key}")
    else:
        assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9), name


def check(blocks: Sequence[Block], wanted: dict[int, dict[str, Any]]) -> None:
    assert [block.number for block in blocks] == list(wanted)
    for block in blocks:
        for name, value in wanted[block.number].items():
            found = getattr(block, name)
            if name == "paired":
                found = {(p.shadow, p.served): (p.n, p.difference, p.squares) for p in found}
            same(found, value, f"{block.id}.{name}")
        assert (block.start, block.end) == (block.number * HOUR, (block.number + 1) * HOUR)
        assert from_json(to_json(block)) == block


# --- rows, and a monitor that reads them in some order ---

SCORES = st.none() | st.floats(0, 1) | st.lists(st.floats(0, 1), min_size=2, max_size=2)
ROWS = st.lists(
    st.tuples(
        st.integers(-HOUR, 5 * HOUR),  # time
        st.integers(0, 2),  # partition
        SCORES,
        st.none() | st.floats(-1e4, 1e4, width=32),
        st.sampled_from([None, "Rome", "Oslo", ""]),
        st.sampled_from(["1", "2"]),  # the version served
        st.dictionaries(st.sampled_from(["3", "4"]), SCORES),
        st.none() | st.tuples(st.integers(-HOUR, 2 * HOUR), st.sampled_from([0.0, 0.5, 1.0])),  # label: delay, value
    ),
    max_size=25,
)
WITHIN = 3 * HOUR


class Item(NamedTuple):
    time: int
    partition: int
    what: Prediction | Joined


def items_of(rows: Sequence[Any]) -> list[list[Item]]:
    """What is read, by partition, event time rising: predictions first, then pairs as they become known."""
    items: list[list[Item]] = [[] for _ in range(6)]
    for at, (time, partition, score, amount, city, version, shadows, known) in enumerate(rows):
        score = float(np.float32(score)) if isinstance(score, float) else score
        served = version if score is not None else None
        found = prediction(
            str(at), time, partition=partition, score=score, amount=amount, city=city, version=served, shadows=shadows
        )
        items[partition].append(Item(time, partition, found))
        if known is None:
            items[3 + partition].append(Item(time + WITHIN, 3 + partition, Joined(found, None)))
        else:
            then = pair(found, time + known[0], known[1])
            items[3 + partition].append(Item(max(time, time + known[0]), 3 + partition, then))
    return [sorted(part, key=lambda item: item.time) for part in items]


def read(parts: list[list[Item]], draw: random.Random, restart: float) -> list[Block]:
    """Reads partitions in random turns and batches; closes by the least time that is still to be read."""
    blocks, closed = builder(within_ms=WITHIN), []
    heads = [0] * len(parts)
    while any(head < len(part) for head, part in zip(heads, parts, strict=True)):
        batch: list[Item] = []
        for _ in range(draw.randint(1, 4)):
            p = draw.randrange(len(parts))
            take = parts[p][heads[p] : heads[p] + draw.randint(0, 5)]
            heads[p] += len(take)
            batch += take
        blocks.predictions([item.what for item in batch if isinstance(item.what, Prediction)])
        blocks.joined([item.what for item in batch if isinstance(item.what, Joined)])
        ahead = [part[head].time for head, part in zip(heads, parts, strict=True) if head < len(part)]
        closed += blocks.close(min(ahead, default=-HOUR), {})
        if draw.random() < restart:
            data, blocks = blocks.snapshot(), builder(within_ms=WITHIN)
            blocks.restore(data)
    return [*closed, *finish(blocks)]


def flat(parts: list[list[Item]]) -> tuple[list[Prediction], list[Joined]]:
    found = [item.what for part in parts for item in part]
    return [x for x in found if isinstance(x, Prediction)], [x for x in found if isinstance(x, Joined)]


@given(ROWS)
@settings(deadline=None)  # the first compiles
def test_blocks_are_what_a_loop_over_all_rows_makes(rows: list[Any]) -> None:
    predictions, pairs = flat(items_of(rows))
    blocks = builder(within_ms=WITHIN)
    blocks.predictions(predictions)
    blocks.joined(pairs)
    check(finish(blocks), expected(predictions, pairs, WITHIN))


@given(ROWS, st.randoms(use_true_random=False), st.sampled_from([0.0, 0.3]))
@settings(max_examples=150, deadline=None)
def test_batches_turns_and_restarts_do_not_change_a_byte(rows: list[Any], draw: random.Random, restart: float) -> None:
    parts = items_of(rows)
    predictions, pairs = flat(parts)
    whole = builder(within_ms=WITHIN)
    whole.predictions(predictions)
    whole.joined(pairs)
    assert list(map(to_json, read(parts, draw, restart))) == list(map(to_json, finish(whole)))


def test_many_rows_of_several_days_are_what_a_loop_makes() -> None:
    draw = np.random.default_rng(5)
    predictions = [
        prediction(
            str(at),
            int(time),
            score=float(np.float32(draw.random())),
            amount=float(np.float32(draw.lognormal(3, 2))),
            city=str(draw.integers(50)),
            shadows={"2": float(draw.random())},
        )
        for at, time in enumerate(np.sort(draw.integers(0, 100 * HOUR, 6000)))
    ]
    pairs = [pair(p, p.time + int(draw.exponential(HOUR)), float(draw.random() < p.score)) for p in predictions]
    blocks = builder()
    for at in range(0, 6000, 997):
        blocks.predictions(predictions[at : at + 997])
        blocks.joined(pairs[at : at + 997])
    check(finish(blocks), expected(predictions, pairs, 0))


# --- closing ---


def test_a_block_closes_when_the_watermark_reaches_its_end_and_empty_ones_are_left_out() -> None:
    blocks = builder()
    blocks.predictions([prediction("a", 5), prediction("b", HOUR - 1), prediction("c", 3 * HOUR)])
    assert blocks.closed_ms is None
    assert blocks.close(HOUR - 1, {}) == []
    (first,) = blocks.close(HOUR, {"t": {1: 7, 0: 9}})
    assert (first.id, first.number, first.predictions, first.late) == ("p-0", 0, 2, 0)
    assert first.positions == {"t": {"0": 9, "1": 7}}
    assert blocks.closed_ms == HOUR
    assert [block.number for block in blocks.close(9 * HOUR, {})] == [3]
    assert blocks.closed_ms == 4 * HOUR
    assert finish(blocks) == []


def test_what_comes_after_its_block_closed_counts_in_the_lowest_open_one_and_as_late() -> None:
    blocks = builder()
    old = prediction("old", 5)
    blocks.predictions([prediction("a", 1), prediction("b", 3 * HOUR)])
    blocks.close(HOUR, {})
    blocks.predictions([old, prediction("c", HOUR + 1)])
    (second,) = blocks.close(2 * HOUR, {})
    assert (second.number, second.predictions, second.late) == (1, 2, 1)
    blocks.joined([pair(old, 6), pair(prediction("b2", 3 * HOUR), 9)])  # a late label; one before its prediction
    third, fourth = finish(blocks)
    assert (third.number, third.labels.n, third.late) == (2, 1, 1)
    assert (fourth.number, fourth.labels.n, fourth.late) == (3, 1, 0)


def test_a_late_prediction_with_a_label_before_it_is_late_once() -> None:
    blocks = builder()
    blocks.predictions([prediction("a", 1)])
    blocks.close(HOUR, {})
    late = prediction("late", 5)
    blocks.predictions([late])
    blocks.joined([pair(late, 3)])
    (found,) = finish(blocks)
    assert (found.number, found.late, found.labels.n) == (1, 1, 1)


def test_a_prediction_without_a_label_is_missing_when_that_is_known() -> None:
    blocks = builder(within_ms=2 * HOUR)
    blocks.joined([Joined(prediction("a", 5), None), Joined(prediction("b", HOUR), None)])
    assert [(block.number, block.labels) for block in finish(blocks)] == [
        (2, Labelled(missing=1)),
        (3, Labelled(missing=1)),
    ]


def test_labels_that_made_no_pair_are_counted_in_the_block_of_their_time() -> None:
    blocks = builder()
    blocks.counts(late=1, unmatched=2, time_ms=5)
    blocks.counts(duplicate=3, conflicting=4, time_ms=HOUR)
    blocks.counts(late=1, time_ms=HOUR - 1)
    blocks.counts(time_ms=9 * HOUR)  # nothing
    first, second = blocks.close(2 * HOUR, {})
    assert (first.labels, second.labels) == (Labelled(late=2, unmatched=2), Labelled(duplicate=3, conflicting=4))
    blocks.counts(late=1, time_ms=5)
    assert [block.number for block in finish(blocks)] == [2]


def test_a_builder_resumes_after_a_block_of_before() -> None:
    blocks = builder()
    blocks.resume(Block("p-4", "p", 4, 4 * HOUR, 5 * HOUR))
    blocks.predictions([prediction("a", 2 * HOUR)])
    (found,) = finish(blocks)
    assert (found.number, found.late) == (5, 1)


# --- blocks of so many events ---


def test_blocks_of_events_close_once_they_hold_enough() -> None:
    blocks = builder(every_ms=None, every_events=3)
    rows = [prediction(str(time), time * MINUTE) for time in (4, 2, 9, 7, 1)]
    blocks.predictions(rows[:2])
    assert blocks.close(50 * HOUR, {}) == []
    blocks.predictions(rows[2:4])
    blocks.joined([pair(rows[0], 11 * MINUTE)])
    (first,) = blocks.close(0, {})
    assert (first.id, first.start, first.end) == ("p-0", 2 * MINUTE, 11 * MINUTE + 1)
    assert (first.predictions, first.labels.n) == (4, 1)
    blocks.predictions(rows[4:])
    data, blocks = blocks.snapshot(), builder(every_ms=None, every_events=3)
    blocks.restore(data)
    (second,) = finish(blocks)
    assert (second.number, second.start, second.predictions, second.late) == (1, MINUTE, 1, 0)
    assert blocks.closed_ms == first.end
    blocks.counts(late=1, time_ms=5)
    assert [(block.number, block.start, block.end) for block in finish(blocks)] == [(2, first.end, first.end)]


@pytest.mark.parametrize(
    "wrong", [{}, {"every_ms": 1, "every_events": 1}, {"every_ms": 0}, {"every_events": -1}], ids=str
)
def test_blocks_have_one_length(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="length"):
        BlockBuilder("p", KINDS, **wrong)


# --- bad and unusual input ---


def one(predictions: Sequence[Prediction], pairs: Sequence[Joined] = ()) -> Block:
    blocks = builder()
    blocks.predictions(predictions)
    blocks.joined(pairs)
    (found,) = finish(blocks)
    return found


def test_a_constant_feature_has_no_deviation() -> None:
    found = one([prediction(str(at), amount=0.1) for at in range(1000)]).features["amount"]
    assert (found.n, found.std, found.least, found.most) == (1000, 0.0, found.most, found.mean)
    assert list(found.bins.values()) == [1000]


def test_a_feature_that_turns_null_is_seen_as_nulls() -> None:
    blocks = builder()
    blocks.predictions([prediction(str(at), at * MINUTE, amount=None if at >= 90 else 1.0) for at in range(180)])
    first, second, third = (block.features["amount"] for block in finish(blocks))
    assert [(c.n, c.nulls) for c in (first, second, third)] == [(60, 0), (30, 30), (0, 60)]
    assert third == Column(0, 60)


def test_rows_without_anything_make_a_block_all_the_same() -> None:
    found = one([prediction(str(at), score=None, version=None, amount=None, city=None) for at in range(3)])
    assert (found.predictions, found.unscored, found.served, found.score) == (3, 3, {}, Column(0, 3))
    assert found.features == {"amount": Column(0, 3), "city": Column(0, 3)}
    assert (found.labels, found.versions, found.paired) == (Labelled(), {}, ())


def test_scores_and_labels_that_have_no_loss_are_left_out_of_losses_alone() -> None:
    rows = [prediction("a", score=[0.2, 0.8]), prediction("b", score=3.5), prediction("c"), prediction("d")]
    found = one(rows, [pair(rows[0], 1), pair(rows[1], 1), pair(rows[2], 1, 7.0), pair(rows[3], 1, 0.0)])
    assert (found.score.n, found.score.nulls, found.unscored) == (2 + 1, 1, 0)
    assert (found.labels.n, found.labels.value) == (4, 9 / 4)
    assert {version: loss.n for version, loss in found.versions.items()} == {"1": 1}


def test_a_version_without_a_score_is_not_served() -> None:
    assert one([prediction("a", score=None, version="9"), prediction("b")]).served == {"1": 1}


def test_the_most_frequent_categories_are_told_apart_and_the_others_counted_together() -> None:
    cities = [f"city {n:03d}" for n in range(300) for _ in range(2 if n < 150 else 1)]
    column = one([prediction(str(at), city=city) for at, city in enumerate(cities)]).features["city"]
    assert len(column.bins) == MOST_FREQUENT + 1
    assert column.bins["city 149"] == 2
    assert column.bins["city 199"] == 1
    assert column.bins[REST] == 100
    assert sum(column.bins.values()) == column.n == 450


def test_which_of_too_many_categories_are_counted_does_not_depend_on_the_order() -> None:
    rows = [prediction(str(at), city=f"user {at % 9000}") for at in range(10_000)]
    one_way, other_way = builder(), builder()
    for at in range(0, 10_000, 1000):
        one_way.predictions(rows[at : at + 1000])
        other_way.predictions(rows[9000 - at : 10_000 - at])
    first, second = finish(one_way), finish(other_way)
    assert list(map(to_json, first)) == list(map(to_json, second))
    column = first[0].features["city"]
    assert sum(column.bins.values()) == column.n == 10_000
    assert all(times == (2 if int(name[5:]) < 1000 else 1) for name, times in column.bins.items() if name != REST)


def test_a_long_category_does_not_make_a_long_block() -> None:
    rows = [prediction(str(at), city="x" * 100_000 + str(at)) for at in range(3)]
    assert one(rows).features["city"].bins == {"x" * 64 + REST: 3}


def test_a_hundred_times_the_traffic_takes_no_more_memory() -> None:
    def held(rows: int) -> tuple[int, int]:
        draw = np.random.default_rng(1)
        cycle = [prediction(str(at), amount=float(a), shadows={"2": 0.1}) for at, a in enumerate(draw.normal(size=500))]
        pairs = [pair(row, MINUTE) for row in cycle]
        blocks = builder()
        blocks.predictions(cycle)
        blocks.joined(pairs)
        tracemalloc.start()
        for _ in range(rows // 500):
            blocks.predictions(cycle)
            blocks.joined(pairs)
        grown = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return len(blocks.snapshot()), grown

    (small, _), (large, grown) = held(1000), held(100_000)
    assert large < small * 1.05 + 200
    assert grown < 50_000


# --- snapshots ---


def test_sums_beyond_64_bits_survive_a_snapshot() -> None:
    blocks = builder()
    row = prediction("a", score=0.0, shadows={"2": 1.0})
    blocks.joined([pair(row, 1)])
    block = blocks._open[0]
    block.versions["1"] = [total * 2**40 for total in block.versions["1"]]
    block.paired["2"]["1"] = [total * 2**40 for total in block.paired["2"]["1"]]
    again = builder()
    again.restore(blocks.snapshot())
    (found,), (wanted,) = finish(again), finish(blocks)
    assert found == wanted
    assert found.versions["1"].loss == pytest.approx(-math.log(EPS))


def test_a_snapshot_of_something_else_is_refused_and_changes_nothing() -> None:
    blocks = builder()
    blocks.predictions([prediction("a", 1)])
    data = blocks.snapshot()
    others = [
        BlockBuilder("q", KINDS, every_ms=HOUR),
        BlockBuilder("p", KINDS, every_ms=2 * HOUR),
        BlockBuilder("p", {"amount": "number"}, every_ms=HOUR),
        BlockBuilder("p", {"city": "category", "amount": "number"}, every_ms=HOUR),  # columns in another order
    ]
    for other in others:
        with pytest.raises(RecordRefused, match="snapshot"):
            other.restore(data)
    for wrong in (b"", b"{}", data[:-9], data + b"x"):
        with pytest.raises(RecordRefused, match="snapshot"):
            blocks.restore(wrong)
    assert [block.predictions for block in finish(blocks)] == [1]
