"""How many predictions a second one monitor takes in: joined, in blocks, watched and archived, from a real Kafka.

Predictions of the payments example and their labels are written beforehand; the monitor then reads them as fast as it
can. What is measured and how: docs/performance.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined, unused-ignore]

from loadtest import scrape
from loadtest.kafka import KafkaCluster
from loadtest.measure import steady, watch
from loadtest.monitored import pipeline
from loadtest.report import machine
from loadtest.valkey import Valkey
from streams.errors import WeirError
from streams.kafka import create_topics
from streams.ports import free_port
from streams.settings import PREFIX

COLUMNS = ("monitor", "")
PIPELINE = "loadtest.monitored:pipeline"
PER_S = 50_000
"""Of event time; and what one monitor has to keep up with."""
START_MS = 1_735_689_600_000
LABEL_AFTER_S = 60
_PARTITIONS = 4
_STOP_S = 30.0


@dataclass(frozen=True)
class Keeping:
    """predictions_per_s: taken in while that many labels came with them; CPU of the process, all of its threads."""

    records: int
    predictions_per_s: float
    cpu_us_per_prediction: float
    peak_rss_mb: float
    matched: int
    archived: int

    @property
    def passed(self) -> bool:
        return self.predictions_per_s >= PER_S

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed, "machine": machine()}

    def as_rows(self) -> list[tuple[str, str]]:
        return [
            ("predictions/s", f"{self.predictions_per_s:,.0f}, each with its label"),
            ("CPU a prediction", f"{self.cpu_us_per_prediction:.1f} µs, its label included"),
            ("peak memory", f"{self.peak_rss_mb:,.0f} MB"),
            ("labels joined", f"{self.matched:,} of {self.records:,}"),
            ("archived", f"{self.archived:,}"),
            (f"keeps up with {PER_S:,}/s", "yes" if self.passed else "no"),
        ]


def run(say: Callable[[str], None], *, records: int) -> Keeping:
    """Writes `records` predictions and as many labels, and lets a monitor read them. Raises WeirError if it ends."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="weir-measured-")))
        kafka = stack.enter_context(KafkaCluster(folder, java_options=()))
        valkey = stack.enter_context(Valkey())
        assert pipeline.labels is not None
        kafka.create_topics(pipeline.lead.topic, pipeline.labels.topic, partitions=_PARTITIONS, retention_ms="-1")
        create_topics(AdminClient({"bootstrap.servers": kafka.address}), pipeline, _PARTITIONS, 1)
        _fill(kafka.address, records)
        say(f"{records:,} predictions and labels are written")
        process, http = _start(kafka.address, valkey.url, folder)
        stack.callback(_stop, process)
        seen = watch(process, lambda: round(_metric(http, "weir_monitor_predictions_total")), records)
        found = steady(seen)
        deadline = time.monotonic() + 60
        while _metric(http, "weir_monitor_labels_total", 'result="matched"') < records and time.monotonic() < deadline:
            time.sleep(0.2)
        return Keeping(
            records,
            round(found.records_per_s),
            round(found.cpu_us_per_record, 2),
            round(found.peak_rss_mb, 1),
            round(_metric(http, "weir_monitor_labels_total", 'result="matched"')),
            round(_metric(http, "weir_monitor_archived_total")),
        )


def _fill(broker: str, records: int) -> None:
    """Predictions and labels in turns, as a live pipeline would have written them."""
    assert pipeline.labels is not None
    producer = Producer(
        {"bootstrap.servers": broker, "linger.ms": 20, "compression.type": "lz4", "queue.buffering.max.messages": 10**6}
    )
    labels: list[tuple[int, bytes, int]] = []
    for partition, prediction, label, time_ms in _made(records):
        _produce(producer, pipeline.topics.predictions, prediction, partition, time_ms)
        labels.append((partition, label, time_ms + LABEL_AFTER_S * 1000))
    for partition, label, time_ms in labels:
        _produce(producer, pipeline.labels.topic, label, partition, time_ms)
    producer.flush(60)


def _produce(producer: Producer, topic: str, value: bytes, partition: int, time_ms: int) -> None:
    while True:
        try:
            producer.produce(topic, value, b"u", partition, timestamp=time_ms)
            return
        except BufferError:
            producer.poll(0.05)


def _made(records: int) -> Iterator[tuple[int, bytes, bytes, int]]:
    """(partition, prediction, label, event time in ms)."""
    draw = np.random.default_rng(7)
    values = np.round(draw.lognormal(3, 1, (4096, len(pipeline.spec.names))), 2).tolist()
    names = pipeline.spec.names
    features = [b",".join(b'"%b":%.2f' % (n.encode(), v) for n, v in zip(names, row, strict=True)) for row in values]
    scores = np.round(draw.random(4096), 4).tolist()
    frauds = (draw.random(4096) < 0.2).tolist()
    topic = pipeline.lead.topic.encode()
    for i in range(records):
        partition, row, time_ms = i % _PARTITIONS, i & 4095, START_MS + i * 1000 // PER_S
        prediction = (
            b'{"id":"p%08d","key":"u%05d","time":%d,"source":{"topic":"%b","partition":%d,"offset":%d},'
            b'"model":"m","version":"1","arm":"champion","deployment":"d","score":%.4f,"shadows":{},"features":{%b}}'
        ) % (i, i % 10_000, time_ms, topic, partition, i // _PARTITIONS, scores[row], features[row])
        label = b'{"payment_id":"p%08d","fraud":%d,"ts":%d}' % (i, frauds[row], time_ms + LABEL_AFTER_S * 1000)
        yield partition, prediction, label, time_ms


def _start(broker: str, redis: str, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    http = f"127.0.0.1:{free_port()}"
    inherited = {k: v for k, v in os.environ.items() if not k.startswith((PREFIX, "OTEL_"))}
    settings = {"BROKER": broker, "REDIS": redis, "DATA_DIR": str(folder / "data"), "HTTP": http, "LOG_FORMAT": "json"}
    environment = inherited | {PREFIX + name: value for name, value in settings.items()}
    with (folder / "monitor.log").open("ab") as log:
        command = [sys.executable, "-m", "streams.cli", "monitor", PIPELINE]
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    return process, http


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _metric(http: str, name: str, label: str = "") -> float:
    """The sum of a metric's series whose labels hold `label`; 0 where nothing listens yet."""
    try:
        return scrape.total(scrape.page(http), name, label)
    except WeirError:
        return 0.0
