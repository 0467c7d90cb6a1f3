"""`python -m tests.parity [--short] [--json]`: the same features everywhere, counted. Exits 1 where they are not.

A year of flights, two million payments and a shop with every aggregation go through a real worker on a real Kafka; what
it logged, what the online reader then says, what `weir features backfill` makes of files, and a loop in plain Python
are compared pair by pair.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import polars as pl

from loadtest.kafka import KafkaCluster
from streams.offline.logged import logged
from tests.integration import tape as tapes
from tests.integration.worker import Servers
from tests.parity import sides
from tests.parity.compare import Pair, pairs
from tests.parity.crowded import crowded
from tests.parity.grouped import merchants
from tests.redis_server import RedisServer

YEAR_DAYS, PAYMENTS, ENTITIES = 366.0, 2_000_000, 2_000
SHORT_DAYS, SHORT_PAYMENTS, SHORT_ENTITIES = 1.0, 3_000, 100
GROUPED = 200_000
"""Payments of the pipeline with a remote group: its loop goes over all of them in one order."""
READ = 20_000
"""The same, of a group that is read: they are sent in ten seconds, while the workers run."""
WIDE, SHORT_WIDE = 150_000, 6_000
"""Events of the pipeline with every aggregation: its loop keeps each of them."""
PIPELINES = ("flights", "payments", "merchants", "merchants_read", "shop")
COLUMNS = ("pipeline", "", "", "kind", "rows", "only one has", "differ in a million")


def parity(
    tape: tapes.Tape,
    name: str,
    kafka: KafkaCluster,
    servers: Servers,
    folder: Path,
    entities: int,
    say: Callable[[str], None],
) -> list[Pair]:
    """All pairs of one pipeline."""
    pipeline = tape.pipeline
    kafka.create_topics(*tape.topics, partitions=tapes.PARTITIONS, retention_ms="-1")
    files = sides.inputs(tape, folder)
    say(f"{name}: {len(tape.records):,} records, through the worker")
    stream = logged(pipeline, sides.stream(tape, servers, folder))
    say(f"{name}: backfill and oracle")
    backfill = logged(pipeline, sides.backfill(tape, files, folder))
    loop, bounds = sides.oracle(tape, folder)
    oracle, near = logged(pipeline, loop), pl.scan_parquet(bounds)
    found = [
        *pairs(name, pipeline, ("stream", "oracle"), stream, oracle, near=near),
        *pairs(name, pipeline, ("stream", "backfill"), stream, backfill),
        *pairs(name, pipeline, ("backfill", "oracle"), backfill, oracle, near=near),
    ]
    came = sides.by_topic(tape, servers, oracle)
    if came is not None:
        found += pairs(name, pipeline, ("stream", "oracle by topic"), stream, came, near=near, one_order=True)
    table = sides.entities(tape, files, entities, folder)
    say(f"{name}: {entities:,} entities at most, from Redis")
    reader, then = sides.reader(tape, servers, table), sides.at_times(tape, files, table)
    return [*found, *pairs(name, pipeline, ("reader", "backfill --at"), reader, then, "id")]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description="The same features everywhere.")
    parser.add_argument("--short", action="store_true", help="a day of flights and a few thousand payments")
    parser.add_argument("--days", type=float, help=f"days of flights (default {YEAR_DAYS:.0f})")
    parser.add_argument("--payments", type=int, help=f"payments (default {PAYMENTS:,})")
    parser.add_argument("--only", nargs="+", choices=PIPELINES, help="some of the pipelines (default all)")
    parser.add_argument("--json", action="store_true", help="one object on stdout")
    given = parser.parse_args()
    days = given.days or (SHORT_DAYS if given.short else YEAR_DAYS)
    payments = given.payments or (SHORT_PAYMENTS if given.short else PAYMENTS)
    groups, wide = min(payments, GROUPED), SHORT_WIDE if given.short else WIDE
    entities = SHORT_ENTITIES if given.short else ENTITIES
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {text}", file=sys.stderr, flush=True)

    found: list[Pair] = []
    with tempfile.TemporaryDirectory(prefix="weir-parity-") as scratch:
        folder = Path(scratch)
        (folder / "redis").mkdir()
        with (
            KafkaCluster(folder / "kafka") as kafka,
            RedisServer("redis", folder / "redis") as redis,
        ):
            settings = {"WEIR_BROKER": kafka.address, "WEIR_REDIS": redis.url}
            make: dict[str, Callable[[Path, str], tapes.Tape]] = {
                "flights": lambda work, topics: tapes.flights(work, topics, days, expected={}),
                "payments": lambda work, topics: tapes.payments(
                    work, topics, payments, users=10_000, rate=20.0, expected={}
                ),
                "merchants": lambda work, topics: merchants(work, topics, groups, users=10_000, rate=20.0),
                "merchants_read": lambda work, topics: merchants(
                    work, topics, min(groups, READ), users=10_000, rate=20.0, options=""
                ),
                "shop": lambda work, topics: crowded(work, topics, wide),
            }
            for name in given.only or PIPELINES:
                work = folder / name
                work.mkdir()
                tape = make[name](work, f"p{uuid.uuid4().hex[:8]}")
                servers = Servers(kafka.address, redis.url, work, settings)
                found += parity(tape, name, kafka, servers, work, entities, say)
    say("done")
    print(json.dumps({"pairs": [pair.as_json() for pair in found]}) if given.json else _text(found))
    return 0 if found and all(pair.ok for pair in found) else 1


def _text(found: list[Pair]) -> str:
    rows = [
        COLUMNS,
        *((p.pipeline, p.a, p.b, p.kind, f"{p.rows:,}", f"{p.missing:,}", f"{p.mismatch_ppm:.6g}") for p in found),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    sys.exit(main())
