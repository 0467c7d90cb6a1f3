"""How long what workers write stays in Redis."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from features.windows import DAY_MS, MINUTE_MS
from loadtest.kafka import KafkaCluster
from tests.integration.tape import PARTITIONS
from tests.integration.test_remote import FREQUENT, declared, group_worker, payments_of, send
from tests.integration.worker import Servers, Worker
from tests.redis_server import RedisServer

pytestmark = pytest.mark.integration


def test_rows_live_a_month_longer_than_they_count_and_what_says_whose_they_are_for_ever(
    real: Servers, redis_server: RedisServer, kafka: KafkaCluster, tmp_path: Path, name: str
) -> None:
    path = declared(tmp_path, name, 'fresh="1h"')
    kafka.create_topics(f"{name}.payments", partitions=PARTITIONS, retention_ms="-1")
    events, began = payments_of(200, name), time.monotonic()
    users, shops = ({event[field] for event in events} - {None} for field in ("user", "shop"))
    with Worker(path, real, **FREQUENT) as first, group_worker(path, real, **FREQUENT) as second:
        for worker in (first, second):
            worker.ready()
        send(real.broker, f"{name}.payments", events, 2000)
        for worker, arrived in ((first, len(events)), (second, sum(event["shop"] is not None for event in events))):
            worker.wait_for(lambda w=worker, n=arrived: w.metric("weir_events_total") == n, 60)  # type: ignore[misc]
        for worker in (first, second):
            assert worker.stop() == 0, worker.last_words
            worker.assert_calm()
    # | counts: half an hour and a pane of the user's windows, 30 days of the shop's last | 30 days |
    assert_kept(redis_server, name, users, 30 * MINUTE_MS + 150_000 + 30 * DAY_MS, began)
    assert_kept(redis_server, f"{name}.group.shop", shops, 60 * DAY_MS, began)


def assert_kept(server: RedisServer, owner: str, entities: set[str], life_ms: int, began: float) -> None:
    """Of each of these entities there is a row, written since `began`, that lives for `life_ms`; metas have no end."""
    rows, metas = ttls_ms(server, f"weir:{{{owner}:*}}:row:*"), ttls_ms(server, f"weir:{{{owner}:*}}:meta")
    spent_ms = (time.monotonic() - began) * 1000
    assert {key.decode().rpartition(":")[2] for key in rows} - {"progress"} == entities
    assert all(life_ms - spent_ms <= ttl <= life_ms for ttl in rows.values()), rows
    assert metas == {f"weir:{{{owner}:{partition}}}:meta".encode(): -1 for partition in range(PARTITIONS)}


def ttls_ms(server: RedisServer, pattern: str) -> dict[bytes, int]:
    """By key of those that match, for how long it is kept; -1 = for ever."""
    with server.admin() as admin:
        keys: Any = admin.keys(pattern)
        found: dict[bytes, int] = {key: admin.pttl(key) for key in keys}
        return found
