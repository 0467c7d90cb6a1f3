"""The bound on the rows in memory, while new entities come faster than checkpoints are due."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.kafka import KafkaCluster
from tests.integration.outputs import assert_right, predictions
from tests.integration.tape import PARTITIONS, payments
from tests.integration.worker import Servers, ran_out

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
def test_scoring_waits_for_checkpoints_so_that_new_entities_find_room(
    real: Servers, kafka: KafkaCluster, tmp_path: Path, name: str, guarantee: str
) -> None:
    tape = payments(tmp_path, name, 8000, users=8000)
    kafka.create_topics(*tape.topics, partitions=PARTITIONS, retention_ms="-1")
    tape.send(real.broker)
    settings = {"WEIR_CACHE_ENTITIES": "1000", "WEIR_BATCH_RECORDS": "200", "WEIR_CHECKPOINT_INTERVAL": "10000"}
    with ran_out(tape.path, real, WEIR_GUARANTEE=guarantee, **settings) as worker:
        found = predictions(real.broker, tape)
        worker.caught_up()
        worker.wait_for(lambda: worker.metric("weir_cache_evictions_total") > 2000, 5)
        assert worker.metric("weir_cache_waits_total") > 0
        assert worker.metric("weir_cache_over_bound_rows") == 0
    assert_right(found, tape)
