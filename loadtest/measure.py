"""Measuring from outside, all the same way: what comes to the output topic, what the process uses."""

from __future__ import annotations

import math
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined, unused-ignore]

from streams.errors import WeirError

T = TypeVar("T")
INTERVAL_S = 0.05
STALLED_S = 90.0
_LEADER_S = 10.0
"""How long the partitions of a topic that was just made may be without a leader."""
_NO_LEADER = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART)
STEADY = (0.10, 0.95)
"""The share of a run's records between which it is measured: not the start, not the last flush."""


class Sample(NamedTuple):
    """`records` written so far, CPU seconds (user + system) and peak memory of the processes, at `time_s`."""

    time_s: float
    records: int
    cpu_s: float
    peak_rss_mb: float


class Measured(NamedTuple):
    records_per_s: float
    cpu_us_per_record: float
    peak_rss_mb: float


def led(ask: Callable[[], T]) -> T:
    """What `ask` returns, asked again while partitions of a topic that was just made have no leader."""
    deadline = time.monotonic() + _LEADER_S
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in _NO_LEADER or time.monotonic() > deadline:
                raise
        time.sleep(INTERVAL_S)


class OutputCount:
    """How many records have come to a topic since this object was made."""

    def __init__(self, admin: AdminClient, topic: str) -> None:
        self._admin = admin
        partitions = admin.list_topics(topic, timeout=10).topics[topic].partitions
        self._latest = {TopicPartition(topic, p): OffsetSpec.latest() for p in partitions}  # type: ignore[no-untyped-call, unused-ignore]
        self._base = self._total()

    def __call__(self) -> int:
        return self._total() - self._base

    def _total(self) -> int:
        total: int = led(lambda: sum(f.result().offset for f in self._admin.list_offsets(self._latest).values()))
        return total


def watch(
    process: subprocess.Popen[bytes],
    count: Callable[[], int],
    records: int,
    within_s: float = math.inf,
    *,
    beside: Sequence[subprocess.Popen[bytes]] = (),
) -> list[Sample]:
    """Samples until `count` reaches `records`, or `within_s` is over. Raises WeirError if the process ends or stalls
    before. beside: processes whose CPU and memory count too.
    """
    pids = [process.pid, *(other.pid for other in beside)]
    used = [(0.0, 0.0)] * len(pids)
    samples = [Sample(time.perf_counter(), 0, 0.0, 0.0)]
    progress_s = samples[0].time_s
    while samples[-1].records < records and samples[-1].time_s - samples[0].time_s < within_s:
        before = samples[-1]
        ended = process.poll() is not None
        used = [_use(pid, last) for pid, last in zip(pids, used, strict=True)]
        sample = Sample(time.perf_counter(), count(), *map(sum, zip(*used, strict=True)))
        if sample.records > before.records:
            progress_s = sample.time_s
        elif ended:
            raise WeirError(
                f"it ended with code {process.returncode} after {sample.records} of {records} records"
            )
        elif sample.time_s - progress_s > STALLED_S:
            raise WeirError(f"it has stood at {sample.records} of {records} records for {STALLED_S:.0f} s")
        samples.append(sample)
        time.sleep(INTERVAL_S)
    return samples


def steady(samples: Sequence[Sample]) -> Measured:
    """Of `watch`'s samples: rate and CPU of the steady part, and the highest memory."""
    total = samples[-1].records
    first = next(s for s in reversed(samples) if s.records <= STEADY[0] * total)
    last = next(s for s in samples if s.records >= STEADY[1] * total)
    return between(first, last)._replace(peak_rss_mb=samples[-1].peak_rss_mb)


def between(first: Sample, last: Sample) -> Measured:
    """Rate and CPU from one sample to another, and the peak memory by the later one."""
    records = last.records - first.records
    return Measured(
        records / (last.time_s - first.time_s), (last.cpu_s - first.cpu_s) / records * 1e6, last.peak_rss_mb
    )


def _use(pid: int, before: tuple[float, float]) -> tuple[float, float]:
    """CPU seconds and peak MB; `before` once the process has ended."""
    try:
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return before
    peak_kb = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)
    cpu_s = (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
    return cpu_s, peak_kb / 1024 or before[1]
