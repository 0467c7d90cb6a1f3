"""How a worker that was away works its backlog off while payments go on: how fast, in what memory, how soon on time.

What is measured and how: docs/performance.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined, unused-ignore]

from examples.payments import generate
from loadtest.catchup_report import CatchUp, Sample
from loadtest.flood import Flood
from loadtest.ledger import Ledger
from loadtest.live import Live, ends
from loadtest.measure import OutputCount, steady, watch
from loadtest.recovery import SLOT_S, calm_from, on_time_limit_ms, worst
from loadtest.service import Service, payments_service
from loadtest.soak import sample_of
from streams.kafka import worker_group

_SAMPLE_S, _SPAN_S = 0.25, 10.0
_TAIL = 0.9
_CAUGHT_UP_S, _ON_TIME_S, _END_S = 1200.0, 300.0, 300.0


def run(
    say: Callable[[str], None],
    *,
    backlog: int = 5_000_000,
    per_s: float = 5_000.0,
    peak_records: int = 1_000_000,
    usual_s: float = 15.0,
    users: int = 10_000,
    partitions: int = 4,
) -> CatchUp:
    """A peak over `peak_records`, `per_s` payments a second for `usual_s`, then `backlog` of them while no worker runs.

    Raises WeirError where the worker ends or does not catch up.
    """
    with payments_service(partitions, say, retention_ms="-1") as service:
        service.serve()
        peak = _peak(service, users, peak_records, say)
        limit_ms = _usual(service, users, per_s, usual_s)
        service.worker.stop()
        before = ends(service.address, service.source)
        flood = Flood(users, start_ms=time.time_ns() // 1_000_000, every_s=users * _SPAN_S / backlog, each_first=False)
        began = time.monotonic()
        generate.produce(service.address, service.source, flood.records(backlog))
        say(f"no worker runs; a backlog of {backlog:,} written in {time.monotonic() - began:.1f} s")
        until = ends(service.address, service.source)
        live = Live(service.address, service.source, users, per_s)
        tail = None
        try:
            live.start()
            service.worker.start()
            began_s = time.time()
            progress = _Progress(service, before, until)
            samples = progress.follow(backlog, began_s, _TAIL)
            tail = Ledger(service.address, service.predictions, SLOT_S, latencies_only=True)
            tail.start()
            samples += progress.follow(backlog, began_s, 1.0)
            ended_s = time.time()
            left = sum(ends(service.address, service.source).values()) - sum(progress.committed().values())
            say(f"the backlog is gone after {ended_s - began_s:.1f} s; {left:,} left that came meanwhile")
            on_time_s = _on_time(service, tail, ended_s, limit_ms)
            samples += progress.follow_for(min(5.0, usual_s), began_s)
            live.halt()
            predictions, lost, duplicated = _count(service)
        finally:
            live.halt()
            if tail is not None:
                tail.close()
    return CatchUp(
        backlog=backlog,
        per_s=per_s,
        peak_per_s=peak,
        started_s=next(sample.time_s for sample in samples if sample.done > 0),
        ended_s=round(ended_s - began_s, 1),  # as samples are: the first one with a commit may be the last
        left=left,
        on_time_s=on_time_s - ended_s,
        limit_ms=limit_ms,
        samples=tuple(samples),
        predictions=predictions,
        lost=lost,
        duplicated=duplicated,
    )


class _Progress:
    """How much of the backlog, which lies between `before` and `until` (by partition), the worker has committed."""

    def __init__(self, service: Service, before: dict[int, int], until: dict[int, int]) -> None:
        self._admin = AdminClient({"bootstrap.servers": service.address, "log_level": 0})
        self._worker = service.worker
        self._group = worker_group(service.pipeline)
        self._topic, self._before, self._until = service.source, before, until

    def committed(self) -> dict[int, int]:
        """By partition, the next offset."""
        places = [TopicPartition(self._topic, p) for p in self._until]
        asked = self._admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(self._group, places)])
        return {place.partition: place.offset for place in asked[self._group].result().topic_partitions or ()}

    def follow(self, backlog: int, began_s: float, share: float) -> list[Sample]:
        """Samples until `share` of the backlog is committed."""
        samples = [self._sample(began_s)]

        def there() -> bool:
            samples.append(self._sample(began_s))
            return samples[-1].done >= share * backlog

        self._worker.wait(there, _CAUGHT_UP_S, "the backlog", pause_s=_SAMPLE_S)
        return samples

    def follow_for(self, seconds: float, began_s: float) -> list[Sample]:
        """Samples for so long."""
        samples = []
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            samples.append(self._sample(began_s))
            time.sleep(_SAMPLE_S)
        return samples

    def _sample(self, began_s: float) -> Sample:
        done = 0
        for partition, offset in self.committed().items():
            done += max(0, min(offset, self._until[partition]) - self._before[partition])
        found = sample_of(self._worker.process.pid, time.time() - began_s)
        return Sample(found.time_s, done, found.rss_mb)


def _peak(service: Service, users: int, records: int, say: Callable[[str], None]) -> float:
    """Starts the worker on a topic that is full; records a second of the middle of it."""
    flood = Flood(users)
    start_ms = int(time.time() * 1000 - 1000 * records / flood.per_s)
    generate.produce(service.address, service.source, Flood(users, start_ms=start_ms).records(records))
    admin = AdminClient({"bootstrap.servers": service.address, "log_level": 0})
    count = OutputCount(admin, service.predictions)
    service.worker.start()
    peak = steady(watch(service.worker.process, count, records)).records_per_s
    say(f"the peak is {peak:,.0f} payments/s")
    return peak


def _usual(service: Service, users: int, per_s: float, seconds: float) -> int:
    """What counts as on time, in ms: twice what predictions take while the worker keeps up."""
    ledger = Ledger(service.address, service.predictions, SLOT_S, latencies_only=True)
    live = Live(service.address, service.source, users, per_s)
    ledger.start()
    live.start()
    try:
        time.sleep(seconds)
        now = ledger.slot(time.time())
        return on_time_limit_ms(worst(ledger, now // 3), now)  # the first third settles
    finally:
        live.halt()
        ledger.close()


def _on_time(service: Service, tail: Ledger, ended_s: float, limit_ms: int) -> float:
    """When the calm began, wall clock; not before the backlog's end."""
    start = tail.slot(ended_s)

    def calm() -> int | None:
        return calm_from(worst(tail, start), start, limit_ms)

    service.worker.wait(lambda: calm() is not None, _ON_TIME_S, f"predictions within {limit_ms} ms", pause_s=0.2)
    return max(ended_s, tail.origin_s + SLOT_S * (calm() or 0))


def _count(service: Service) -> tuple[int, int, int]:
    """All payments, and how many have no prediction or more than one: all that was committed is read once more."""
    until = ends(service.address, service.source)
    ledger = Ledger(service.address, service.predictions, SLOT_S)
    ledger.start()
    return sum(until.values()), *ledger.finish(until, _END_S)
