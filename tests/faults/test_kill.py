"""kill -9 of the worker in mid-replay, with Redis as it was or emptied: nothing lost, features the oracle's.

A kill costs a group session (6 s on real Kafka), so kills are few here; WEIR_TEST_KILLS=20 makes more of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from loadtest.kafka import KafkaCluster
from tests.faults.feeding import feeding, killed_in_mid_replay, last_piece, made, pieces
from tests.faults.proxy import Proxy
from tests.integration.models import assert_scores, champion, model
from tests.integration.outputs import Output, Reader, assert_right, differing, predictions
from tests.integration.shop import shop
from tests.integration.tape import PARTITIONS, Tape, flights, payments
from tests.integration.worker import Servers, Worker, ran_out
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]
KILLS = int(os.environ.get("WEIR_TEST_KILLS", "0"))
SELDOM = {"WEIR_COMMIT_INTERVAL": "500", "WEIR_CHECKPOINT_INTERVAL": "1000"}
"""Long intervals: a kill always leaves predictions that are not committed, and commits that are not in Redis."""
TWICE = {"WEIR_GUARANTEE": "at_least_once"}
"""Predictions that were not committed are made again."""


def create(kafka: KafkaCluster, tape: Tape) -> None:
    kafka.create_topics(*tape.topics, partitions=PARTITIONS, retention_ms="-1")


def nothing() -> None:
    """Leaves Redis as it was."""


def flush(servers: Servers) -> None:
    with redis.Redis.from_url(servers.redis_url) as client:
        client.flushall()


def finish(tape: Tape, servers: Servers, downs: int, **settings: str) -> tuple[list[Output], Worker]:
    """The last piece, scored by a worker that ends well."""
    with ran_out(tape.path, servers, **settings) as worker:
        tape.send(servers.broker, *last_piece(tape, downs))
        found = predictions(servers.broker, tape)
        worker.caught_up()
    return found, worker


def copies(outputs: list[Output]) -> int:
    return len(outputs) - len({o.source for o in outputs})


@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
def test_co_partitioned_streams_survive_kills_of_the_worker(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str, guarantee: str
) -> None:
    tape = shop(tmp_path, name, 1500)
    create(kafka, tape)
    version = model(tape, tmp_path, "1")
    champion(tape, real, version)
    downs = [nothing] * (KILLS or 2)
    killed_in_mid_replay(tape, real, downs, **SELDOM, WEIR_GUARANTEE=guarantee)
    found, _ = finish(tape, real, len(downs), WEIR_GUARANTEE=guarantee)
    assert_right(found, tape, duplicates=0 if guarantee == "exactly_once" else None)
    assert_scores(tape, found, [version])
    if guarantee == "at_least_once":
        assert copies(found), "no kill hit a prediction that was not committed: it proves nothing"


def test_a_redis_emptied_while_the_worker_is_down_is_rebuilt_from_the_log(
    real: Servers, redis_server: RedisServer, kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    def restart() -> None:
        redis_server.kill()
        redis_server.start()

    tape = shop(tmp_path, name, 1500)
    create(kafka, tape)
    downs = [lambda: flush(real), restart] * ((KILLS or 2) // 2)
    killed_in_mid_replay(tape, real, downs, **SELDOM)
    found, worker = finish(tape, real, len(downs))
    assert_right(found, tape, duplicates=None)
    assert any(event.startswith("new incarnation") for event in worker.events)


def test_a_rebuild_reads_back_the_longest_window_and_not_the_whole_log(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    tape = shop(tmp_path, name, 1500)
    create(kafka, tape)
    first, second = pieces(tape, 2)
    with ran_out(tape.path, real) as worker:
        tape.send(real.broker, *first)
        worker.caught_up()
        worker.wait_for(lambda: made(worker) > 700, 30)
    flush(real)
    with ran_out(tape.path, real) as worker:
        tape.send(real.broker, *second)
        found = predictions(real.broker, tape)
        assert 0 < worker.metric("weir_replayed_records_total") < first[1] * 0.8
    assert_right(found, tape)


def test_flights_survive_kills_of_the_worker_and_a_wiped_redis(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    tape = flights(tmp_path, name, 2)
    create(kafka, tape)
    downs: list[Callable[[], None]] = [nothing, lambda: flush(real)]
    killed_in_mid_replay(tape, real, downs, **SELDOM, **TWICE)
    found, _ = finish(tape, real, len(downs), **TWICE)
    assert_right(found, tape, duplicates=None)
    assert copies(found)


def test_payments_on_the_embedded_servers_survive_a_kill_of_the_worker(
    embedded: Servers, tmp_path: Path, name: str
) -> None:
    tape = payments(tmp_path, name, 6000)
    killed_in_mid_replay(tape, embedded, [nothing] * 3, **SELDOM)
    found, worker = finish(tape, embedded, 3)
    assert_right(found, tape, duplicates=None)
    assert copies(found)
    assert not any("lost" in event for event in worker.events)


def test_where_nothing_can_be_rebuilt_the_comparison_of_features_notices_a_wiped_store(
    embedded: Servers, tmp_path: Path, name: str
) -> None:
    tape = payments(tmp_path, name, 3000)
    killed_in_mid_replay(tape, embedded, [lambda: flush(embedded)], **SELDOM)
    found, worker = finish(tape, embedded, 1)
    assert {o.source for o in found} == set(tape.expected), "a wiped store loses no events"
    assert len(differing(found, tape)) > 100
    assert any(event.startswith("feature state is lost") for event in worker.events), "it must be reported"


def test_a_worker_killed_while_it_recovers_starts_again(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    tape = shop(tmp_path, name, 1000)
    create(kafka, tape)
    first, second = pieces(tape, 2)
    with ran_out(tape.path, real) as worker:
        tape.send(real.broker, *first)
        worker.caught_up()
    flush(real)
    port = int(real.redis_url.rsplit(":", 1)[1])
    with Proxy([port]) as slow:
        slow.delay_s = 0.3  # else it is over before anybody has looked
        with Worker(tape.path, real, WEIR_REDIS=f"redis://127.0.0.1:{slow.ports[port]}") as worker:
            worker.wait_for(lambda: bool(worker.status().get("recovering")), 30)
            worker.kill()
    with ran_out(tape.path, real) as worker:
        tape.send(real.broker, *second)
        found = predictions(real.broker, tape)
        worker.caught_up()
    assert_right(found, tape, duplicates=None)


def test_a_clean_stop_and_restart_leaves_no_duplicate(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    tape = shop(tmp_path, name, 1200)
    create(kafka, tape)
    first, second = pieces(tape, 2)
    with feeding(tape, real, first, per_s=1500), ran_out(tape.path, real, **SELDOM, **TWICE) as worker:
        worker.wait_for(lambda: made(worker) >= 200, 30)
    with ran_out(tape.path, real, **TWICE) as worker:
        tape.send(real.broker, *second)
        found = predictions(real.broker, tape)
        assert worker.metric("weir_replayed_records_total") == 0, "a clean stop leaves nothing to replay"
    assert_right(found, tape, duplicates=0)


def test_a_store_emptied_under_a_running_worker_with_evicted_rows_leaves_features_right(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    tape = payments(tmp_path, name, 6000, users=1000)
    create(kafka, tape)
    parts = pieces(tape, 3)
    often = {"WEIR_CHECKPOINT_INTERVAL": "100", "WEIR_CACHE_ENTITIES": "40", "WEIR_BATCH_RECORDS": "64"}
    with ran_out(tape.path, real, **often) as worker:
        for part in parts:
            with feeding(tape, real, part, per_s=1500):
                worker.wait_for(lambda enough=part[0] + 1000: made(worker) >= enough, 60)  # type: ignore[misc]
                flush(real)
        found = predictions(real.broker, tape)
        worker.caught_up()
        assert worker.metric("weir_cache_evictions_total") > 100
        assert worker.metric("weir_store_refusals_total") > 0
    assert_right(found, tape)


def test_two_workers_share_the_partitions_and_take_over_from_each_other(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    tape = shop(tmp_path, name, 2000)
    create(kafka, tape)
    first, second, third = pieces(tape, 3)
    with ran_out(tape.path, real, **TWICE) as staying, Reader(real.broker, tape.pipeline.topics.predictions) as reader:
        with feeding(tape, real, first, per_s=1500):
            staying.wait_for(lambda: made(staying) >= 100, 30)
            with ran_out(tape.path, real, **TWICE) as leaving, feeding(tape, real, second, per_s=1500):
                leaving.wait_for(lambda: made(leaving) >= 50, 60)
                owned = [set(w.status()["partitions"]) for w in (staying, leaving)]
                assert not owned[0] & owned[1]
                for worker in (staying, leaving):
                    by_topic = {frozenset(offsets) for offsets in worker.status()["offsets"].values()}
                    assert len(by_topic) == 1, "streams of one partition are in one worker"
        with feeding(tape, real, third, per_s=3000):
            staying.wait_for(lambda: len(staying.status()["partitions"]) == PARTITIONS, 30)
        reader.until(lambda r: len(r.places()) >= len(tape))
        staying.caught_up()
        found = reader.to_end()
    assert_right(found, tape, duplicates=0)
