"""Remote groups on real servers, with kill -9 of every process on the way."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer

from features.redis_store import RedisStore
from features.remote import GroupReader
from loadtest.kafka import KafkaCluster
from streams.loading import load_pipeline
from streams.parts import part_of, parts_of
from tests.integration.models import assert_scores, champion, model
from tests.integration.outputs import Output, Reader, hops
from tests.integration.tape import PARTITIONS, Tape, partition_of
from tests.integration.worker import Servers, Worker
from tests.oracles.features import Event, features_of, kept_alone

pytestmark = pytest.mark.integration

DECLARED = """
from streams import Event, Pipeline, Source


class Payment(Event):
    payment: str
    user: str
    shop: str | None
    amount: float
    ts: int


payments = Source("{name}.payments", Payment, key="user", id="payment", time="ts")
user, shop = payments.by("user"), payments.by("shop", {options})
pipeline = Pipeline(
    "{name}",
    score=payments,
    features=[
        payments.field("amount"),
        shop.count("10m"),
        shop.mean("amount", "30m"),
        shop.last("amount"),
        user.count("10m"),
        user.sum("amount", "30m"),
    ],
    model="{name}",
)
"""
FREQUENT = {"WEIR_COMMIT_INTERVAL": "200", "WEIR_CHECKPOINT_INTERVAL": "600"}


def declared(folder: Path, name: str, options: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(DECLARED.format(name=name, options=options))
    return path


def payments_of(n: int, seed: str) -> list[dict[str, Any]]:
    draw, now = random.Random(seed), 1_700_000_000_000
    made = []
    for i in range(n):
        now += draw.randrange(6_000)
        late = draw.randrange(300_000) if draw.random() < 0.02 else 0
        shop = None if draw.random() < 0.05 else f"s{draw.randrange(12)}"
        event = {"payment": f"p{i}", "user": f"u{draw.randrange(40)}", "shop": shop}
        made.append({**event, "amount": round(draw.expovariate(0.05), 2), "ts": now - late})
    return made


def send(broker: str, topic: str, events: list[dict[str, Any]], per_s: float) -> None:
    producer = Producer({"bootstrap.servers": broker, "enable.idempotence": True, "linger.ms": 5})
    began = time.monotonic()
    for i, event in enumerate(events):
        if (due := began + i / per_s) > time.monotonic():
            producer.poll(due - time.monotonic())
        key = event["user"].encode()
        producer.produce(topic, json.dumps(event), key, partition_of(key), timestamp=event["ts"])
    assert producer.flush(60) == 0


def in_order(events: list[dict[str, Any]]) -> dict[int, list[Event]]:
    """By partition of the source, as they lie there."""
    found: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        mine = found[partition := partition_of(event["user"].encode())]
        mine.append(Event(0, event["ts"], len(mine), partition, event))
    return found


def predictions(broker: str, name: str, n: int) -> list[Output]:
    with Reader(broker, f"{name}.predictions") as reader:
        reader.until(lambda r: len(r.places()) >= n, 120)
        return reader.to_end(60)


def same(found: Any, expected: Any) -> bool:
    return found is expected if None in (found, expected) else bool(np.float32(found) == np.float32(expected))


def group_worker(path: Path, servers: Servers, **settings: str) -> Worker:
    return Worker(path, servers, role="worker --group shop", **settings)


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
def test_events_that_hop_are_scored_with_the_values_of_a_loop_over_the_groups_topic_whoever_dies(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str, guarantee: str
) -> None:
    path = declared(tmp_path, name, "exact=True")
    kafka.create_topics(f"{name}.payments", partitions=PARTITIONS, retention_ms="-1")
    events, settings = payments_of(1500, name), {**FREQUENT, "WEIR_GUARANTEE": guarantee}
    done = 0
    with Worker(path, real, **settings) as first, group_worker(path, real, **settings) as second:
        for worker in (first, second):
            worker.ready()
        for victim in (first, second):
            send(real.broker, f"{name}.payments", events[done : done + 500], 400)
            done += 500
            victim.kill()
            victim.start()
            victim.ready()
        send(real.broker, f"{name}.payments", events[done:], 2000)
        found = predictions(real.broker, name, len(events))
        for worker in (first, second):
            assert worker.stop() == 0, worker.last_words
            worker.assert_calm()
    by_place = defaultdict(list)
    for output in found:
        by_place[output.source].append(output)
        assert output.partition == output.source[0]
        assert output.key == output.prediction["key"].encode()
    if guarantee == "exactly_once":
        assert len(found) == len(events)
    assert_features(real, path, events, by_place, once=guarantee == "exactly_once")


def assert_features(
    servers: Servers, path: Path, events: list[dict[str, Any]], by_place: dict[Any, list[Output]], *, once: bool
) -> None:
    """Those of the source's key as a loop over its partitions gives them, those of the group as one over its topic."""
    first, second = parts_of(load_pipeline(str(path)))
    expected: dict[Any, dict[str, Any]] = {}
    for partition, mine in in_order(events).items():
        for event, values in zip(mine, features_of(kept_alone(first.pipeline.spec), mine), strict=True):
            expected[partition, event.offset] = values
    assert by_place.keys() == expected.keys()
    kept = [a.name for a in second.pipeline.spec.kept]
    possible: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for partition, hopped in hops(servers.broker, second.pipeline.lead.topic, second.carried).items():
        mine = [Event(0, e["ts"], i, partition, e) for i, (_, e) in enumerate(hopped)]
        for (place, _), values in zip(hopped, features_of(kept_alone(second.pipeline.spec), mine), strict=True):
            possible[place].append({name: values[name] for name in kept})
    if once:
        assert {len(values) for values in possible.values()} == {1}
    for place, outputs in by_place.items():
        for output in outputs:
            features = output.prediction["features"]
            for name, value in expected[place].items():
                assert same(features[name], value), (place, name)
            of_group = [values for values in possible[place] if all(same(features[n], values[n]) for n in kept)]
            assert of_group, (place, {n: features[n] for n in kept}, possible[place])


async def test_a_group_that_is_read_holds_every_event_once_whoever_dies_and_predictions_say_how_far_it_was(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    path = declared(tmp_path, name, 'fresh="1h"')
    kafka.create_topics(f"{name}.payments", partitions=PARTITIONS, retention_ms="-1")
    events, before = payments_of(1500, name), 20
    owner, shops = part_of(load_pipeline(str(path)), "shop").pipeline, sorted({e["shop"] for e in events if e["shop"]})
    with Worker(path, real, **FREQUENT) as first:
        first.ready()
        send(real.broker, f"{name}.payments", events[:before], 400)
        unknown = {output.source for output in predictions(real.broker, name, before)}
        with group_worker(path, real, **FREQUENT) as second:
            second.ready()
            done = before
            for victim in (second, first):
                await all_is_in(real, owner, shops)
                send(real.broker, f"{name}.payments", events[done : done + 500], 400)
                done += 500
                victim.kill()
                victim.start()
                victim.ready()
            send(real.broker, f"{name}.payments", events[done:], 400)
            found = predictions(real.broker, name, len(events))
            await all_is_in(real, owner, shops)
            for worker in (first, second):
                assert worker.stop() == 0, worker.last_words
                worker.assert_calm()
    assert len(found) == len(events)
    hopped = hops(real.broker, owner.lead.topic, ())
    places = Counter(place for mine in hopped.values() for place, _ in mine)
    assert set(places.values()) == {1}
    assert len(places) == sum(event["shop"] is not None for event in events)
    await assert_state(real, owner, hopped)
    assert_reads(found, {place: event for mine in hopped.values() for place, event in mine}, unknown)


async def all_is_in(servers: Servers, owner: Any, shops: list[str]) -> None:
    """Waits until the owner has said that it has all that there is by now, wherever a shop's events go."""
    now_ms = time.time_ns() // 1_000_000
    store = RedisStore(servers.redis_url, owner.name)
    reader = GroupReader(owner.spec, store, PARTITIONS, now_ms=lambda: now_ms)
    deadline = time.monotonic() + 60
    try:
        while (await reader.read({"shop": shops}, np.full(len(shops), now_ms))).age_s.any():
            assert time.monotonic() < deadline, "the owner has not said that all is in"
            await asyncio.sleep(0.1)
    finally:
        await store.close()


async def assert_state(servers: Servers, owner: Any, hopped: dict[int, list[Any]]) -> None:
    """What the owner has left in Redis is what a loop over its topic gives."""
    store = RedisStore(servers.redis_url, owner.name)
    try:
        end = max(event["ts"] for mine in hopped.values() for _, event in mine) + 1
        shops = sorted({event["shop"] for mine in hopped.values() for _, event in mine})
        remote = await GroupReader(owner.spec, store, PARTITIONS).read({"shop": shops}, np.array([end] * len(shops)))
    finally:
        await store.close()
    assert np.isfinite(remote.age_s).all()
    for partition, mine in hopped.items():
        seen = [Event(0, event["ts"], i, partition, event) for i, (_, event) in enumerate(mine)]
        for shop in {event["shop"] for _, event in mine}:
            asked = Event(0, end, len(seen), partition, {"shop": shop, "amount": 0.0})
            *_, expected = features_of(owner.spec, [*seen, asked])
            for feature, value in expected.items():
                got = remote.values[feature][shops.index(shop)]
                assert np.isnan(got) if value is None else np.float32(got) == np.float32(value), (shop, feature)


def assert_reads(found: list[Output], sent: dict[Any, dict[str, Any]], unknown: set[Any]) -> None:
    """A count that was read counts events of its shop alone, never more than there were, and says how old it was.

    unknown: the events that were scored before the group had an owner.
    """
    of_shop = Counter(event["shop"] for event in sent.values())
    for output in found:
        prediction = output.prediction
        remote, count = prediction["remote"]["shop"], prediction["features"]["shop_count_10m"]
        if output.source not in sent:
            assert remote == {"lag": None, "age": None}
            assert count == 0
        elif output.source in unknown:
            assert remote == {"lag": None, "age": None}
            assert count is None
            assert prediction["stale"] == ["shop"]
        else:
            assert remote["age"] is not None
            assert "stale" not in prediction
            assert 0 <= count <= of_shop[sent[output.source]["shop"]]


def test_a_score_is_withheld_while_the_groups_owner_is_away_and_comes_again_with_it(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    path = declared(tmp_path, name, 'fresh="3s", on_stale="withhold"')
    kafka.create_topics(f"{name}.payments", partitions=PARTITIONS, retention_ms="-1")
    tape = Tape(path, [], {})
    version = model(tape, tmp_path, "1")
    deployment = champion(tape, real, version)
    rest, sent = iter(payments_of(10_000, name)), list[dict[str, Any]]()
    with Worker(path, real, **FREQUENT) as first, group_worker(path, real, **FREQUENT) as second:
        first.ready()
        second.ready()
        with Reader(real.broker, f"{name}.predictions") as reader:
            sent += until_scores(real.broker, name, reader, rest, come=True)
            second.kill()
            withheld = first.metric("weir_unscored_total", reason="contract")
            sent += until_scores(real.broker, name, reader, rest, come=False)
            assert first.metric("weir_unscored_total", reason="contract") > withheld
            second.start()
            sent += until_scores(real.broker, name, reader, rest, come=True)
            found = reader.to_end()
        without = [output for output in found if output.prediction["score"] is None]
        assert first.metric("weir_unscored_total") == len(without)
        assert first.metric("weir_unscored_total", reason="contract") == len(without)
        assert first.metric("weir_remote_stale_total", group="shop", action="withhold") == len(without)
        for worker in (first, second):
            assert worker.stop() == 0, worker.last_words
            worker.assert_calm()
    assert sorted(output.prediction["id"] for output in found) == sorted(event["payment"] for event in sent)
    assert {output.prediction["deployment"] for output in found} == {deployment.id}
    assert_withheld(found, {event["payment"] for event in sent if event["shop"] is None}, fresh_s=3)
    assert_scores(tape, found, [version])


def until_scores(
    broker: str, name: str, reader: Reader, events: Iterator[dict[str, Any]], *, come: bool
) -> list[dict[str, Any]]:
    """Sends events, ten at a time, until of ten all that name a shop have a score, or none has; returns all it sent."""
    sent, deadline = list[dict[str, Any]](), time.monotonic() + 90
    while True:
        some = list(islice(events, 10))
        send(broker, f"{name}.payments", some, 50)
        sent += some
        ids, of_shop = ({event["payment"] for event in some if event["shop"] or every} for every in (True, False))
        found = reader.until(lambda r, ids=ids: ids <= {o.prediction["id"] for o in r.found})  # type: ignore[misc]
        scores = [p["score"] for output in found if (p := output.prediction)["id"] in of_shop]
        if all((score is not None) == come for score in scores):
            return sent
        assert time.monotonic() < deadline, f"scores do not {'come' if come else 'go'}: {scores}"


def assert_withheld(found: list[Output], nameless: set[str], *, fresh_s: float) -> None:
    """Those have no score whose group was older than it may be, and say so; of those without a shop each has one."""
    for output in found:
        prediction = output.prediction
        age = prediction["remote"]["shop"]["age"]
        served = [prediction[name] is not None for name in ("score", "model", "version", "arm")]
        if "stale" in prediction:
            assert prediction["stale"] == ["shop"]
            assert prediction["id"] not in nameless
            assert age is None or age >= fresh_s
            assert served == [False] * 4
        else:
            assert age <= fresh_s if prediction["id"] not in nameless else age is None
            assert served == [True] * 4
