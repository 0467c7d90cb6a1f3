"""A replay through a running worker against the oracle's loop: the same features, in every run.

WEIR_TEST_DAYS sets how many days of flights are replayed (3); with 366 the whole year is compared.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from loadtest.kafka import KafkaCluster
from tests.integration.models import assert_scores, champion, model
from tests.integration.outputs import Output, Reader, assert_right, predictions
from tests.integration.tape import PARTITIONS, Place, Tape, flights, payments
from tests.integration.worker import Servers, ran_out

DAYS = float(os.environ.get("WEIR_TEST_DAYS", "3"))
pytestmark = [pytest.mark.integration, pytest.mark.timeout(300 + 10 * DAYS)]
AHEAD = 6000
"""Records; a partition of the embedded broker keeps 5 MB."""


def run(tape: Tape, servers: Servers, *, piecewise: bool = False, **settings: str) -> list[Output]:
    """Sends the tape and returns all predictions; `piecewise`: while the worker runs, in uneven pieces."""
    if not piecewise:
        tape.send(servers.broker)
    else:
        tape.send(servers.broker, 0, 20)
    with ran_out(tape.path, servers, **settings) as worker:
        if piecewise:
            third = len(tape.records) // 3
            tape.send(servers.broker, 20, third, per_s=3000)
            tape.send(servers.broker, third)
        found = predictions(servers.broker, tape, 60 + len(tape) / 300)
        worker.caught_up()
    return found


def run_held_back(tape: Tape, servers: Servers) -> list[Output]:
    """As `run`, a piece at a time: each waits for the predictions of those before the last one."""
    pieces = [range(i, min(i + AHEAD, len(tape.records))) for i in range(0, len(tape.records), AHEAD)]
    scored = [sum(r.stream == 0 and r.value is not None for r in tape.records[p.start : p.stop]) for p in pieces]
    with ran_out(tape.path, servers) as worker, Reader(servers.broker, tape.pipeline.topics.predictions) as reader:
        for i, piece in enumerate(pieces):
            tape.send(servers.broker, piece.start, piece.stop)
            before = sum(scored[: max(0, i - 1)])
            reader.until(lambda r, n=before: len(r.found) >= n)
        reader.until(lambda r: len(r.found) >= len(tape))
        reader.to_end()
        worker.caught_up()
    return reader.found


def test_a_replay_of_flights_on_real_servers_has_the_oracles_features_and_a_second_one_the_same_bytes(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    found: list[dict[Place, Any]] = []
    for i, settings in enumerate(({}, {"WEIR_BATCH_RECORDS": "173", "WEIR_COMMIT_INTERVAL": "50"})):
        tape = flights(tmp_path, f"{name}{i}", DAYS)
        kafka.create_topics(*tape.topics, partitions=PARTITIONS, retention_ms="-1")
        version = model(tape, tmp_path, "1")
        champion(tape, real, version)
        outputs = run(tape, real, piecewise=bool(i), **settings)
        assert_right(outputs, tape)
        assert_scores(tape, outputs, [version])
        found.append({o.source: (o.prediction["features"], o.prediction["score"]) for o in outputs})
    assert found[0] == found[1]


def test_a_replay_of_flights_on_the_embedded_servers_has_the_oracles_features(
    embedded: Servers, tmp_path: Path, name: str
) -> None:
    tape = flights(tmp_path, name, DAYS)
    assert_right(run_held_back(tape, embedded), tape)


def test_payments_on_real_servers_have_the_oracles_features(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    tape = payments(tmp_path, name, 5000)
    kafka.create_topics(*tape.topics, partitions=PARTITIONS, retention_ms="-1")
    assert_right(run(tape, real, piecewise=True), tape)


def test_payments_on_the_embedded_servers_have_the_oracles_features(
    embedded: Servers, tmp_path: Path, name: str
) -> None:
    tape = payments(tmp_path, name, 3000)
    assert_right(run(tape, embedded), tape)
