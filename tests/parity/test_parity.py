"""The short form of `make parity`: a worker, Redis, files and the oracle agree on every value."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from features.spec import Aggregate
from loadtest.kafka import KafkaCluster
from tests.integration import tape
from tests.integration.worker import Servers
from tests.oracles.near import sketches
from tests.parity.__main__ import parity
from tests.parity.compare import Pair, pairs
from tests.parity.crowded import crowded
from tests.parity.grouped import merchants
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.mark.parametrize("name", ["flights", "payments", "shop"])
def test_stream_reader_backfill_and_oracle_agree(
    name: str, kafka: KafkaCluster, redis_server: RedisServer, tmp_path: Path
) -> None:
    topics = f"parity{name}"
    if name == "flights":
        given = tape.flights(tmp_path, topics, 1.0, expected={})
    elif name == "shop":
        given = crowded(tmp_path, topics, 4000, burst=500)
    else:
        given = tape.payments(tmp_path, topics, 2000, expected={})
    servers = Servers(
        kafka.address, redis_server.url, tmp_path, {"WEIR_BROKER": kafka.address, "WEIR_REDIS": redis_server.url}
    )
    found = parity(given, name, kafka, servers, tmp_path, 50, lambda _: None)
    exact = [pair for pair in found if pair.kind == "exact"]
    assert [(pair.a, pair.b) for pair in exact] == [
        ("stream", "oracle"), ("stream", "backfill"), ("backfill", "oracle"), ("reader", "backfill --at"),
    ]  # fmt: skip
    rough = [(pair.a, pair.b) for pair in found if pair.kind == "sketch"]
    assert rough == ([("stream", "oracle"), ("backfill", "oracle")] if name != "payments" else [])
    assert [pair.as_json() for pair in found if not pair.ok] == []
    scored = sum(record.stream == 0 and record.value is not None for record in given.records)
    assert {pair.rows for pair in found if "reader" not in (pair.a, pair.b)} == {scored}
    assert 40 <= exact[3].rows <= 50
    wrong_is_seen(given, tmp_path)


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "read"])
def test_what_a_remote_group_keeps_is_in_files_what_the_loop_says_and_in_the_stream_what_had_come_to_it(
    kafka: KafkaCluster, redis_server: RedisServer, tmp_path: Path, exact: bool
) -> None:
    given = merchants(tmp_path, f"paritymerchants{exact:d}", 2000, options="exact=True" if exact else "")
    settings = {"WEIR_BROKER": kafka.address, "WEIR_REDIS": redis_server.url, "WEIR_COMMIT_INTERVAL": "200"}
    servers = Servers(kafka.address, redis_server.url, tmp_path, settings)
    found = {(p.a, p.b, p.kind): p for p in parity(given, "merchants", kafka, servers, tmp_path, 50, lambda _: None)}
    of_events = [("stream", "oracle"), ("stream", "backfill"), ("backfill", "oracle")]
    by_topic = [("stream", "oracle by topic")] if exact else []
    assert {(a, b) for a, b, _ in found} == {*of_events, *by_topic, ("reader", "backfill --at")}
    assert [(a, b, kind) for a, b, kind in found if (a, b) in by_topic] == [(*pair, "exact") for pair in by_topic]
    assert all(found[a, b, "exact"].rows == 2000 for a, b in by_topic)
    assert all(found[a, b, kind].rows == 2000 for a, b in of_events for kind in ("exact", "remote"))
    assert all(pair.missing == 0 for pair in found.values())
    # After the last event both have the same events of a merchant; only a mean depends on the order of adding up.
    as_of_then = found["reader", "backfill --at", "remote"]
    assert as_of_then.rows == 50
    assert set(as_of_then.worst) <= {"merchant_mean_amount_24h"}
    assert as_of_then.mismatch_ppm <= 5_000  # one value of 200
    assert [pair.as_json() for pair in found.values() if pair.kind == "exact" and pair.mismatch_ppm] == []
    assert found["backfill", "oracle", "remote"].mismatch_ppm == 0
    assert found["stream", "backfill", "remote"].mismatch_ppm > 0  # another order: what came to the group, when it came
    assert found["stream", "backfill", "remote"].mismatch_ppm < 900_000  # or nothing was there to be read


def wrong_is_seen(given: tape.Tape, folder: Path) -> None:
    """A single value that is another is a mismatch: the comparison can fail."""
    table = pl.read_parquet(folder / "backfill.parquet")
    feature = next(f for f in given.pipeline.spec.features if isinstance(f, Aggregate))
    column = f"feature.{feature.name}"
    other = pl.when(pl.int_range(pl.len()) == 5).then(-1.0).otherwise(column).cast(pl.Float32)
    changed = table.with_columns(other.alias(column))
    (pair,) = pairs("x", given.pipeline, ("a", "b"), table.lazy(), changed.lazy())
    assert isinstance(pair, Pair)
    assert not pair.ok
    assert pair.worst == {feature.name: 1e6 / len(table)}
    ops = {aggregate.name: aggregate.op for aggregate in given.pipeline.spec.aggregates}
    oracle, near = pl.read_parquet(folder / "oracle.parquet"), pl.scan_parquet(folder / "near.parquet")
    for name in sketches(given.pipeline.spec):
        for factor, borne in ((1.0005, "quantile"), (1.01, None)):
            value = pl.col(f"feature.{name}")
            there = value != given.pipeline.spec.missing
            moved = oracle.with_columns(pl.when(there).then(value * factor).otherwise(value).cast(pl.Float32))
            found = pairs("x", given.pipeline, ("a", "oracle"), moved.lazy(), oracle.lazy(), near=near)
            assert all(pair.ok for pair in found) == (ops[name] == borne), (name, factor)
