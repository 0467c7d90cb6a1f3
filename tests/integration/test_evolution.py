"""Features that change between two runs: what is kept goes on untouched, the rest is rebuilt from the log."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
from redis import Redis

from features.layout import Layout
from loadtest.kafka import KafkaCluster
from models import made_for
from tests.faults.feeding import made
from tests.integration.evolving import evolving
from tests.integration.models import champion, model
from tests.integration.outputs import differing, predictions
from tests.integration.tape import PARTITIONS, Tape
from tests.integration.worker import Servers, Worker, ran_out

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]


def by_entity(worker: Worker, metric: str) -> dict[str, float]:
    """A metric's values by the label `entity`."""
    with urllib.request.urlopen(worker.url + "/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    start = f'{metric}{{entity="'
    found = [line.removeprefix(start).rsplit(" ", 1) for line in lines if line.startswith(start)]
    return {entity.split('"')[0]: float(value) for entity, value in found}


def rows_of(redis: Redis, tape: Tape, fields: tuple[str, ...]) -> dict[bytes, bytes]:
    """What the store holds of an entity kind, by key."""
    (kind,) = (kind for kind in Layout(tape.pipeline.spec).kinds if kind.fields == fields)
    keys = list(redis.scan_iter(f"weir:{{{tape.pipeline.name}:*}}:row:{kind.number:x}:*", count=1000))
    return dict(zip(keys, redis.mget(keys), strict=True)) if keys else {}


def test_a_group_that_is_kept_is_neither_read_again_nor_written_again_and_what_is_new_is_exact(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    before, after = evolving(tmp_path, name, 2400)
    kafka.create_topics(*before.topics, partitions=PARTITIONS, retention_ms="-1")
    half = len(before.records) // 2
    version = model(before, tmp_path, "1")
    made_for.keep(tmp_path, before.pipeline.spec.hash, before.pipeline.spec.digests)
    with Redis.from_url(real.redis_url) as redis:
        with ran_out(before.path, real) as worker:
            champion(before, real, version)
            before.send(real.broker, 0, half)
            worker.wait_for(lambda: made(worker) == half, 60)
        kept, old = rows_of(redis, before, ("user",)), rows_of(redis, before, ("user", "shop"))
        assert kept
        with ran_out(after.path, real) as worker:
            replayed = worker.metric("weir_replayed_records_total")
            assert 0 < replayed < half, "only the window is read again"
            restored = by_entity(worker, "weir_restored_records_total")
            assert restored == {"user": 0, "user_shop": replayed, "user_channel": replayed}
            worker.wait_for(lambda: bool(rows_of(redis, after, ("user", "shop"))), 20)
            assert rows_of(redis, after, ("user",)) == kept
            assert rows_of(redis, after, ("user", "shop")).keys().isdisjoint(old)
            new = "user_channel_distinct_amount_30m, user_mean_amount_10m, user_shop_max_amount_30m"
            assert f"it was trained without {new}" in worker.status()["refused"]
            after.send(real.broker, half)
            found = predictions(real.broker, after)
            worker.caught_up()
    places = {(r.partition, o) for r, o in zip(before.records[:half], _offsets(before), strict=False)}
    first, second = ([o for o in found if (o.source in places) is early] for early in (True, False))
    assert (len(first), len(second)) == (half, len(before.records) - half)
    assert not differing(first, before)
    assert not differing(second, after)
    assert {o.prediction["version"] for o in second} == {None}


def _offsets(tape: Tape) -> list[int]:
    """The offset of each record, in the order of sending."""
    following: dict[int, int] = {}
    found = []
    for record in tape.records:
        found.append(following.get(record.partition, 0))
        following[record.partition] = found[-1] + 1
    return found
