"""A retrain event that a person asks for: made of what the blocks say, published on the pipeline's topic."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec
from confluent_kafka import KafkaError, Message, Producer

from monitors.block import Block
from monitors.loop import RetrainEvent, event_id, to_json
from monitors.policy import RetrainFold
from streams.errors import UsageError, WeirError
from streams.kafka import client_config, producer_config
from streams.pipeline import Pipeline
from streams.settings import Settings

_PUBLISH_S = 20.0
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check(pipeline: Pipeline, id: str | None) -> None:
    """UsageError where such an event can never be."""
    if pipeline.retrain is None:
        raise UsageError(f"pipeline {pipeline.name} declares no retraining; give it retrain=Retrain(…)")
    if id is not None and not _ID.fullmatch(id):
        raise UsageError(
            f"--id {id!r}: at most 64 letters, digits, '.', '_' and '-', beginning with a letter or a digit"
        )


def compose(
    pipeline: Pipeline,
    blocks: Iterable[Block],
    events: Sequence[RetrainEvent],
    now_ms: int,
    *,
    id: str | None = None,
    text: str | None = None,
) -> tuple[RetrainEvent, bool]:
    """The event that asks for a model now, and whether it is one of `events` already (then that one).

    blocks: all that were closed, in their order; events: all retrain events so far. id: of the event; None = made of
    what it says. text: why, kept in the event's policy as `asked`. WeirError where no label is known yet.
    """
    assert pipeline.retrain is not None
    before = {event.id: event for event in events}
    if id is not None and id in before:
        return before[id], True
    fold = RetrainFold(pipeline.name, pipeline.spec.hash, pipeline.retrain.policy)
    ahead = sorted(events, key=lambda event: (event.range.to, event.id))
    for block in blocks:
        while ahead and ahead[0].range.to < block.end:
            fold.requested(ahead.pop(0))
        fold.update(block)
    for event in ahead:
        fold.requested(event)
    made = fold.manual(now_ms)
    if not made.labels:
        raise WeirError(
            f"pipeline {pipeline.name} knows no label yet: nothing to train on; is its monitor running, and has a "
            "block been closed?"
        )
    made = msgspec.structs.replace(
        made,
        id=id or event_id("retrain", pipeline.name, "manual", now_ms, text or ""),
        policy={**made.policy, **({"asked": text} if text else {})},
    )
    return made, False


def publish(
    pipeline: Pipeline,
    settings: Settings,
    broker: str,
    event: RetrainEvent,
    headers: Sequence[tuple[str, bytes]] = (),
) -> None:
    """Puts the event on its topic; returns once the brokers have it. broker: host:port,… WeirError if not."""
    base = client_config(settings, broker, f"weir-{pipeline.name}-request", lambda _: None)
    errors: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            errors.append(error)

    topic = pipeline.topics.retrain
    producer = Producer({**producer_config(base), "message.timeout.ms": int(_PUBLISH_S * 1000)})
    # One partition matters, as for whatever the loop writes.
    producer.produce(
        topic, to_json(event), event.id.encode(), partition=0, headers=list(headers) or None, on_delivery=delivered
    )
    left = producer.flush(_PUBLISH_S + 5)
    if errors or left:
        reason = errors[0].str() if errors else "no answer"
        raise WeirError(f"retrain event {event.id} could not be published on {topic}: {reason}; ask again")
