"""From a worker's start to its first prediction, and the memory that entities take.

What is measured and how: docs/performance.md.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined, unused-ignore]

from examples.payments import generate
from loadtest.flood import Flood
from loadtest.kafka import KafkaCluster
from loadtest.latency_receiver import consumer_at_end
from loadtest.measure import OutputCount, watch
from loadtest.recovery import milestones
from loadtest.service import Service
from loadtest.soak import sample_of
from loadtest.starting_report import Kernels, Memory, Start, Starting
from loadtest.valkey import Valkey
from loadtest.variants import Variant

PARTITIONS = 4
FEW = 1_000
"""Entities of the worker that the others' memory is compared with."""

_FIRST = 200
_START_S, _LAG_S = 120.0, 60.0


def run(say: Callable[[str], None], *, rounds: int = 5, entities: int = 1_000_000, bound: int = 200_000) -> Starting:
    """`rounds` starts with the compiled kernels on disk and as many without, in turns; then the memory with `entities`
    under the bound and without one. Raises WeirError where a worker does not come up.
    """
    starts: dict[Kernels, list[Start]] = {"compiled": [], "cached": []}
    with (
        tempfile.TemporaryDirectory(prefix="weir-start-") as folder,
        KafkaCluster(Path(folder), java_options=()) as kafka,
    ):
        bench = _Bench(kafka, Path(folder))
        for number in range(1, rounds + 1):
            for kernels, found in starts.items():  # the second finds what the first has compiled
                found.append(bench.start(bench.folder / f"kernels-{number}"))
                say(f"{number} of {rounds}: kernels {kernels}: first prediction after {found[-1].first_s:.2f} s")
        memories = []
        for users, rows in ((FEW, bound), (entities, bound), (entities, 2 * entities)):
            memories.append(memory := bench.memory(users, rows, 2 * entities))
            say(f"{memory.entities:,} entities seen, cache bound {rows:,}: {memory.rss_mb:.0f} MB")
    return Starting({kernels: tuple(found) for kernels, found in starts.items()}, *memories)


@dataclass
class _Bench:
    """One Kafka; every worker is of a pipeline of its own: it finds no group, no state and no outputs."""

    kafka: KafkaCluster
    folder: Path
    number: int = 0

    def start(self, kernels: Path) -> Start:
        """A worker, whose compiled kernels lie in the folder `kernels`, over a topic in which payments wait."""
        with Valkey() as valkey:
            service = self._service(valkey, Flood(100), _FIRST, {"NUMBA_CACHE_DIR": str(kernels)})
            consumer = consumer_at_end(self.kafka.address, service.predictions)
            worker, began_s = service.worker, time.time()
            worker.start()
            try:
                worker.wait(lambda: worker.listening, _START_S, "the process", pause_s=0.01)
                process_s = time.time()
                worker.wait(lambda: _came(consumer), _START_S, "the first prediction", pause_s=0.0)
                first_s = time.time()
                worker.wait(worker.ready, _START_S, "all partitions")
                told = milestones(worker.said(), PARTITIONS)
            finally:
                worker.stop()
                consumer.close()
        moments = (process_s, told.model_s, told.group_s, told.ready_s, first_s)
        return Start(*(moment - began_s for moment in moments))

    def memory(self, users: int, bound: int, records: int) -> Memory:
        """After `records` payments: one of each user, then of users drawn evenly."""
        with Valkey() as valkey:
            # The rows of the last round stay, whatever the bound: a round is a small part of it.
            settings = {"WEIR_CACHE_ENTITIES": str(bound), "WEIR_BATCH_RECORDS": str(min(4096, bound // 4))}
            service = self._service(valkey, Flood(users), records, settings)
            worker = service.worker
            admin = AdminClient({"bootstrap.servers": self.kafka.address, "log_level": 0})
            count = OutputCount(admin, service.predictions)
            worker.start()
            try:
                peak_mb = watch(worker.process, count, records)[-1].peak_rss_mb
                worker.wait(lambda: _idle(service, users, bound), _LAG_S, "the last checkpoint", pause_s=0.5)
                rows = round(worker.metric("weir_cache_rows"))
                rss_mb = sample_of(worker.process.pid, 0.0).rss_mb
                return Memory(bound, valkey.keys() - PARTITIONS, rows, rss_mb, max(peak_mb, rss_mb))
            finally:
                worker.stop()

    def _service(self, valkey: Valkey, flood: Flood, records: int, environment: dict[str, str]) -> Service:
        self.number += 1
        variant = Variant(f"start-{self.number}", f"start-in-{self.number}")
        service = Service(self.kafka.address, valkey, self.folder, variant.write(self.folder), environment)
        self.kafka.create_topics(service.source, service.predictions, partitions=PARTITIONS, retention_ms="-1")
        service.serve()
        generate.produce(self.kafka.address, service.source, flood.records(records))
        # A log of its own: the milestones are those of this start.
        service.worker = service.new_worker(variant.name)
        return service


def _came(consumer: Consumer) -> bool:
    """Whether a prediction has come; waits for one for some ms."""
    message = consumer.poll(0.02)
    return message is not None and message.error() is None


def _idle(service: Service, users: int, bound: int) -> bool:
    """Whether all payments are worked off, every user's row is in the store, and as many are in memory as may be.

    The worker's gauges are up to a second old: a worker that has just worked all off may say that it holds no row.
    """
    worker = service.worker
    held = users if users <= bound else 1  # under a bound, how many stay is the engine's
    rows_fit = held <= worker.metric("weir_cache_rows") <= bound
    worked_off = worker.metric("weir_consumer_lag_records") == 0
    return rows_fit and worked_off and service.valkey.keys() - PARTITIONS >= users
