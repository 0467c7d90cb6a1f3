"""A remote group that is new gets the events of before it, on real servers."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from loadtest.kafka import KafkaCluster
from streams import filling
from streams.errors import UsageError
from streams.kafka import partition_counts
from streams.loading import load_pipeline
from streams.parts import part_of
from streams.transactions import TransactionalOutputs
from tests.integration.models import settings_of
from tests.integration.outputs import Output, hops
from tests.integration.tape import PARTITIONS
from tests.integration.test_remote import (
    DECLARED,
    FREQUENT,
    all_is_in,
    assert_state,
    declared,
    group_worker,
    in_order,
    payments_of,
    predictions,
    same,
    send,
)
from tests.integration.worker import ROOT, Servers, Worker
from tests.oracles.features import Event, features_of, kept_alone

pytestmark = pytest.mark.integration

BEFORE = 900


def without_the_group(folder: Path, name: str) -> Path:
    """The same pipeline as it was before: without the features of the shop."""
    path = folder / f"{name}_before.py"
    lines = DECLARED.format(name=name, options="").splitlines()
    path.write_text("\n".join(line for line in lines if not line.strip().startswith("shop.")))
    return path


def filled(path: Path, servers: Servers) -> dict[str, Any]:
    """What `weir features fill --json` says."""
    command = [sys.executable, "-m", "streams.cli", "features", "fill", str(path), "--group", "shop", "--json"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WEIR_")}
    environment |= {"PYTHONPATH": str(ROOT), "WEIR_DATA_DIR": str(servers.data_dir), **servers.settings}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def scored_before(servers: Servers, kafka: KafkaCluster, path: Path, name: str, events: list[dict[str, Any]]) -> None:
    """Workers that know no group have scored these events, and are gone."""
    kafka.create_topics(f"{name}.payments", partitions=PARTITIONS, retention_ms="-1")
    with Worker(path, servers, **FREQUENT) as worker:
        worker.ready()
        send(servers.broker, f"{name}.payments", events, 2000)
        predictions(servers.broker, name, len(events))
        assert worker.stop() == 0, worker.last_words


def test_an_exact_group_begins_with_all_that_was_before_it_and_scores_nothing_twice(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    events = payments_of(1500, name)
    before, after = without_the_group(tmp_path, name), declared(tmp_path, name, "exact=True")
    kafka.create_topics(f"{name}.payments", partitions=PARTITIONS, retention_ms="-1")
    with Worker(before, real, **FREQUENT) as old:
        old.ready()
        send(real.broker, f"{name}.payments", events[:600], 2000)
        predictions(real.broker, name, 600)
        old.caught_up()
        most = filled(after, real)
        send(real.broker, f"{name}.payments", events[600:BEFORE], 2000)
        predictions(real.broker, name, BEFORE)
        assert old.stop() == 0, old.last_words
    rest = filled(after, real)
    with Worker(after, real, **FREQUENT) as first, group_worker(after, real, **FREQUENT) as second:
        for worker in (first, second):
            worker.ready()
        send(real.broker, f"{name}.payments", events[BEFORE:], 2000)
        found = predictions(real.broker, name, len(events))
        for worker in (first, second):
            assert worker.stop() == 0, worker.last_words
            worker.assert_calm()
    named = sum(event["shop"] is not None for event in events[:BEFORE])
    assert most["members"] > 0
    assert most["sent"] + rest["sent"] == named
    assert most["unnamed"] + rest["unnamed"] == BEFORE - named
    assert rest["left"] == 0
    assert len(found) == len(events)
    part = part_of(load_pipeline(str(after)), "shop")
    hopped = hops(real.broker, part.pipeline.lead.topic, part.carried)
    assert set(Counter(place for mine in hopped.values() for place, _ in mine).values()) == {1}
    assert_follows_the_topic(part, hopped, [o for o in found if int(o.prediction["id"][1:]) >= BEFORE])


def assert_follows_the_topic(part: Any, hopped: dict[int, list[Any]], found: list[Output]) -> None:
    """The group's features are those of a loop over its topic, events of before among them."""
    kept = [a.name for a in part.pipeline.spec.kept]
    expected = {}
    for partition, mine in hopped.items():
        loop = [Event(0, event["ts"], i, partition, event) for i, (_, event) in enumerate(mine)]
        for (place, _), values in zip(mine, features_of(kept_alone(part.pipeline.spec), loop), strict=True):
            expected[place] = values
    for output in found:
        for name in kept:
            assert same(output.prediction["features"][name], expected[output.source][name]), (output.source, name)
    first = sorted(found, key=lambda output: int(output.prediction["id"][1:]))[:50]
    counts = [output.prediction["features"]["shop_count_10m"] or 0 for output in first]
    assert max(counts) > 10  # of what came before the first of them


async def test_a_group_that_is_read_holds_the_past_once_though_the_filling_died_on_the_way(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = payments_of(BEFORE, name)
    path = declared(tmp_path, name, 'fresh="1h"')
    await asyncio.to_thread(scored_before, real, kafka, without_the_group(tmp_path, name), name, events)
    monkeypatch.setattr(filling, "TRANSACTION_RECORDS", 100)
    monkeypatch.setattr(filling, "_POLL", 50)
    pipeline, settings = load_pipeline(str(path)), settings_of(real)
    said: list[tuple[int, int]] = []

    def dies(done: int, wanted: int) -> None:
        said.append((done, wanted))
        if len(said) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await filling.fill(pipeline, "shop", settings, dies)
    whole = await filling.fill(pipeline, "shop", settings, lambda *_: None)
    named = sum(event["shop"] is not None for event in events)
    assert 0 < whole.sent < named
    owner, shops = part_of(pipeline, "shop").pipeline, sorted({e["shop"] for e in events if e["shop"]})
    with group_worker(path, real, **FREQUENT) as second:
        second.ready()
        await all_is_in(real, owner, shops)
        assert second.stop() == 0, second.last_words
    hopped = hops(real.broker, owner.lead.topic, ())
    assert Counter(place for mine in hopped.values() for place, _ in mine).keys() == places_of(events)
    assert sum(map(len, hopped.values())) == named
    for mine in hopped.values():
        times = [event["ts"] for _, event in mine]
        assert sum(b < a for a, b in itertools.pairwise(times)) <= 0.05 * len(times)  # but for late ones
    await assert_state(real, owner, hopped)
    again = await filling.fill(pipeline, "shop", settings, lambda *_: None)
    assert (again.sent, again.left) == (0, 0)


def places_of(events: list[dict[str, Any]]) -> set[tuple[int, int]]:
    """Where those stand in the source that name a shop."""
    return {(p, e.offset) for p, mine in in_order(events).items() for e in mine if e.fields["shop"] is not None}


async def test_what_is_begun_anew_is_filled_anew_and_what_is_not_known_is_refused(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = payments_of(300, name)
    path = declared(tmp_path, name, "exact=True")
    await asyncio.to_thread(scored_before, real, kafka, without_the_group(tmp_path, name), name, events)
    pipeline, settings = load_pipeline(str(path)), settings_of(real)
    topic, source = f"{name}.group.shop", f"{name}.payments"
    first = await filling.fill(pipeline, "shop", settings, lambda *_: None)
    await asyncio.to_thread(gone, kafka, topic)
    monkeypatch.setattr(TransactionalOutputs, "commit", interrupted)  # so that the new topic holds what is void alone
    with pytest.raises(KeyboardInterrupt):
        await filling.fill(pipeline, "shop", settings, lambda *_: None)
    monkeypatch.undo()
    second = await filling.fill(pipeline, "shop", settings, lambda *_: None)
    assert first.sent == second.sent == sum(event["shop"] is not None for event in events)
    admin = AdminClient({"bootstrap.servers": kafka.address})
    admin.delete_consumer_groups([f"{topic}-fill"])[f"{topic}-fill"].result()
    with pytest.raises(UsageError, match="how far .* was filled is not known any more"):
        await filling.fill(pipeline, "shop", settings, lambda *_: None)
    await asyncio.to_thread(gone, kafka, topic)
    await filling.fill(pipeline, "shop", settings, lambda *_: None)
    await asyncio.to_thread(gone, kafka, source)  # and Kafka forgets the offsets in it
    kafka.create_topics(source, partitions=PARTITIONS, retention_ms="-1")
    with pytest.raises(UsageError, match="how far .* was filled is not known any more"):
        await filling.fill(pipeline, "shop", settings, lambda *_: None)


def interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def gone(kafka: KafkaCluster, topic: str) -> None:
    """Deletes a topic, and waits until it is."""
    admin = AdminClient({"bootstrap.servers": kafka.address})
    admin.delete_topics([topic])[topic].result()
    deadline = time.monotonic() + 30
    while partition_counts(admin, [topic])[topic]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


async def test_what_a_worker_has_sent_and_not_yet_committed_is_waited_for(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    path = declared(tmp_path, name, "exact=True")
    kafka.create_topics(f"{name}.payments", partitions=PARTITIONS, retention_ms="-1")
    pipeline, settings = load_pipeline(str(path)), settings_of(real)
    await filling.fill(pipeline, "shop", settings, lambda *_: None)
    worker = Producer({"bootstrap.servers": kafka.address, "transactional.id": f"{name}-worker", "log_level": 0})
    worker.init_transactions(20)
    worker.begin_transaction()
    worker.produce(f"{name}.group.shop", b"\x01 of a worker", b"s1")
    assert worker.flush(20) == 0
    again = asyncio.create_task(filling.fill(pipeline, "shop", settings, lambda *_: None))
    done, _ = await asyncio.wait([again], timeout=3)
    assert not done
    await asyncio.to_thread(worker.commit_transaction, 20)
    with pytest.raises(UsageError, match="workers have sent events to .* already"):
        await again


async def test_a_group_whose_workers_run_already_is_not_filled(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    path = declared(tmp_path, name, "exact=True")
    kafka.create_topics(f"{name}.payments", partitions=PARTITIONS, retention_ms="-1")
    pipeline, settings = load_pipeline(str(path)), settings_of(real)
    nothing = await filling.fill(pipeline, "shop", settings, lambda *_: None)
    assert (nothing.sent, nothing.left, nothing.members) == (0, 0, 0)
    with Worker(path, real, **FREQUENT) as first:
        first.ready()
        send(real.broker, f"{name}.payments", payments_of(20, name), 2000)
        first.caught_up()
        assert first.stop() == 0, first.last_words
    with pytest.raises(UsageError, match="workers have sent events to .* already"):
        await filling.fill(pipeline, "shop", settings, lambda *_: None)
    with pytest.raises(UsageError, match="has no remote group 'city'; it has shop"):
        await filling.fill(pipeline, "city", settings, lambda *_: None)
    embedded = settings.model_copy(update={"broker": "embedded"})
    with pytest.raises(UsageError, match="the embedded broker keeps no log"):
        await filling.fill(pipeline, "shop", embedded, lambda *_: None)
