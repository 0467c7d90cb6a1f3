"""How records a second and CPU a record change with entities, features, partitions, the model's size and the batch.

What is measured and how: docs/performance.md.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined, unused-ignore]

from examples.payments import generate
from examples.payments import model as payments_model
from loadtest.flood import Flood
from loadtest.growth_points import Plan, Point
from loadtest.growth_report import Found, Growth, Look
from loadtest.kafka import KafkaCluster
from loadtest.measure import OutputCount, between, watch
from loadtest.service import Service
from loadtest.valkey import Valkey
from loadtest.variants import BASE_FEATURES, Variant
from streams.errors import WeirError

LAST = 0.97
"""The share of a topic up to which it is measured: the rest is no full load any more."""

KEPT = {"retention_ms": "-1", "retention_bytes": str(256 * 2**20), "segment_bytes": str(64 * 2**20)}
"""Of predictions: nobody reads them, and the disk is finite."""


def run(say: Callable[[str], None], plan: Plan, rounds: int = 1) -> Growth:
    """Measures each point of `plan` in each of `rounds`. Raises WeirError where a worker ends or stands still."""
    runs: dict[Point, list[Found]] = {point: [] for point in plan.points}
    with _kafka(say) as bench:
        for turn in range(1, rounds + 1):
            for i, point in enumerate(plan.points):
                runs[point].append(found := bench.measure(plan, point))
                say(f"{turn} of {rounds}: {point.axis} {point.label}: {found.spoken()}")
                bench.forget(point, plan.points if turn < rounds else plan.points[i + 1 :])
    return Growth(plan.cache, tuple((point, _median(found)) for point, found in runs.items()))


@dataclass
class _Bench:
    """One Kafka for all points; inputs are written once and kept while another point reads them too."""

    kafka: KafkaCluster
    admin: AdminClient
    folder: Path
    say: Callable[[str], None]
    number: int = 0
    inputs: set[str] = field(default_factory=set)

    def measure(self, plan: Plan, point: Point) -> Found:
        """A worker on an empty state, over a full topic."""
        self.number += 1
        records = point.users + plan.records
        variant = Variant(f"growth-{self.number}", point.input, point.features, point.numbers)
        self._fill(point, records)
        model = payments_model.write(
            self.folder / f"{variant.name}.onnx", hidden=point.hidden, more=point.features - BASE_FEATURES
        )
        with Valkey() as valkey:
            settings = {
                "WEIR_GUARANTEE": "at_least_once",
                "WEIR_CACHE_ENTITIES": str(plan.cache),
                "WEIR_BATCH_RECORDS": str(point.batch),
            }
            service = Service(self.kafka.address, valkey, self.folder, variant.write(self.folder), settings)
            self.kafka.create_topics(service.predictions, partitions=point.partitions, **KEPT)
            service.serve(model)
            count = OutputCount(self.admin, service.predictions)
            service.worker.start()
            try:
                return _watch(plan, point, service, count)
            finally:
                service.worker.stop()
                self._delete([service.predictions])

    def forget(self, point: Point, to_come: Sequence[Point]) -> None:
        """Deletes the point's input where none of the points to come reads it."""
        if point.input in self.inputs and all(other.input != point.input for other in to_come):
            self._delete([point.input])
            self.inputs.discard(point.input)

    def _fill(self, point: Point, records: int) -> None:
        if point.input in self.inputs:
            return
        began = time.monotonic()
        self.kafka.create_topics(point.input, partitions=point.partitions, retention_ms="-1")
        flood = Flood(point.users, point.numbers)
        generate.produce(self.kafka.address, point.input, flood.records(records))
        self.inputs.add(point.input)
        self.say(f"{records:,} payments of {point.users:,} users written in {time.monotonic() - began:.1f} s")

    def _delete(self, topics: list[str]) -> None:
        for gone in self.admin.delete_topics(topics).values():
            gone.result()


def _watch(plan: Plan, point: Point, service: Service, count: OutputCount) -> Found:
    """Warms the worker up, then measures."""
    process = service.worker.process
    watch(process, count, 1)
    watch(process, count, point.users + plan.warm_up, plan.warm_up_s(point))
    before, keys = Look.at(service.worker.metrics()), service.valkey.keys()
    began = watch(process, count, 1)[-1]
    ended = watch(process, count, int(LAST * (point.users + plan.records)), plan.seconds)[-1]
    after, known = Look.at(service.worker.metrics()), service.valkey.keys()
    if ended.records <= began.records:
        raise WeirError(f"{point.axis} {point.label}: {began.records:,} records were worked off before the measurement")
    return Found.of(between(began, ended), after - before, known - point.partitions, known - keys)


def _median(found: Sequence[Found]) -> Found:
    return Found(*(median(values) for values in zip(*found, strict=True)))


@contextmanager
def _kafka(say: Callable[[str], None]) -> Iterator[_Bench]:
    with (
        tempfile.TemporaryDirectory(prefix="weir-growth-") as folder,
        KafkaCluster(Path(folder), java_options=()) as kafka,
    ):
        yield _Bench(kafka, AdminClient({"bootstrap.servers": kafka.address, "log_level": 0}), Path(folder), say)
