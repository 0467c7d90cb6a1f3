"""Folds that are made anew from what was published, with the declaration of then and with another one."""

from __future__ import annotations

from monitors.block import Block, Labelled
from streams import Event, Labels, Pipeline, Retrain, Source
from streams.loop_folds import LoopFolds

HOUR = 3_600_000


class Order(Event):
    order: str
    user: str
    amount: float
    ts: int


class Outcome(Event):
    order: str
    bad: int
    ts: int


def pipeline(min_labels: int, cooldown: str | None = None) -> Pipeline:
    orders = Source("orders", Order, key="user", id="order", time="ts")
    return Pipeline(
        "shop",
        score=orders,
        features=[orders.field("amount")],
        model="shop",
        labels=Labels("outcomes", Outcome, id="order", value="bad", time="ts"),
        retrain=Retrain(min_labels=min_labels, cooldown=cooldown, budget=100),
    )


def block(number: int) -> Block:
    """A hundred predictions without a score, a hundred labels."""
    return Block(
        f"shop-{number}", "shop", number, number * HOUR, (number + 1) * HOUR,
        predictions=100, unscored=100, labels=Labelled(n=100),
    )  # fmt: skip


BLOCKS = [block(number) for number in range(10)]


def published(declared: Pipeline, blocks: list[Block]) -> list[str]:
    folds = LoopFolds(declared)
    return [event.id for one in blocks for event in folds.update(one).retrains]


def test_made_anew_they_go_on_as_if_nothing_had_been() -> None:
    declared = pipeline(min_labels=250)
    whole, begun = LoopFolds(declared), LoopFolds(declared)
    events = [event for one in BLOCKS[:7] for event in whole.update(one).retrains]
    assert len(events) == 2
    begun.replay(BLOCKS[:7], events, set())
    for one in BLOCKS[7:]:
        assert begun.update(one) == whole.update(one)


def test_what_another_declaration_makes_of_the_past_counts_only_where_it_was_published() -> None:
    folds = LoopFolds(pipeline(min_labels=200, cooldown="3h"))
    last = folds.replay(BLOCKS[:8], [], set())
    assert last is not None
    assert [event.labels for event in last.retrains] == [800]  # now, and not held back by events that never were
    assert last.known


def test_events_that_were_published_count_though_the_declaration_would_not_bring_them_now() -> None:
    before = LoopFolds(pipeline(min_labels=300))
    events = [event for one in BLOCKS[:6] for event in before.update(one).retrains]
    assert [event.labels for event in events] == [300, 600]
    folds = LoopFolds(pipeline(min_labels=500))
    folds.replay(BLOCKS[:6], events, set())
    later = [event for one in BLOCKS[6:] for event in folds.update(one).retrains]
    assert later == []  # 400 labels since the last one are too few


def test_what_the_last_block_brought_and_was_not_published_is_said() -> None:
    declared = pipeline(min_labels=500)
    last = LoopFolds(declared).replay(BLOCKS[:5], [], set())
    assert last is not None
    assert [event.id for event in last.retrains] == published(declared, BLOCKS[:5])
