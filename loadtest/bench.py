"""The closed-loop bench: how fast each system works a full topic off, in turns, on one Kafka.

What is compared and how it is measured: docs/performance.md.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from examples.payments import generate
from loadtest.ground import Ground, ground
from loadtest.measure import Measured, OutputCount, steady, watch
from loadtest.report import Result
from loadtest.spans import TRACED, Collector, sampled, traceparent
from loadtest.systems import SYSTEMS, System, Task
from streams.errors import WeirError
from streams.tracing import TRACEPARENT


@dataclass(frozen=True)
class Bench:
    """`records` payments in `partitions` partitions, worked off by each of `systems` in each of `rounds`.

    broker: host:port of a Kafka without the payments topics; None = one is started. traced: the share of the payments
    whose trace is sampled; of these Weir sends spans to a collector.
    """

    records: int = 1_000_000
    rounds: int = 2
    partitions: int = 4
    systems: tuple[System, ...] = SYSTEMS
    broker: str | None = None
    traced: float = TRACED

    def run(self, say: Callable[[str], None]) -> list[Result]:
        """The median of each system's rounds, in the systems' order. Raises WeirError where one fails."""
        found = self.measured(say)
        return [Result(name, *map(statistics.median, zip(*rounds, strict=True))) for name, rounds in found.items()]

    def measured(self, say: Callable[[str], None]) -> dict[str, list[Measured]]:
        """Each system's rounds, in the systems' order. Raises WeirError where one fails."""
        with ground(self.broker, self.systems, self.partitions, say) as on:
            began = time.monotonic()
            headers = {i: [(TRACEPARENT, traceparent(i))] for i in sampled(self.records, self.traced)}
            generate.produce(on.broker, on.input, generate.Payments().records(self.records), headers)
            say(f"{self.records:,} payments written in {time.monotonic() - began:.1f} s")
            with Collector() as collector:
                return self._measure(on, collector, say)

    def _measure(self, on: Ground, collector: Collector, say: Callable[[str], None]) -> dict[str, list[Measured]]:
        measured: defaultdict[str, list[Measured]] = defaultdict(list)
        for turn in range(1, self.rounds + 1):
            for system in self.systems:
                task = Task(
                    broker=on.broker,
                    input=on.input,
                    output=on.output(system),
                    group=f"bench-{system.name}",
                    model=on.model,
                    records=max(1, round(self.records * system.share)),
                    work=on.work,
                    log=on.work / f"{system.name}.log",
                    traces=collector.url if self.traced else "",
                )
                found = _run(on, system, task)
                collector.bodies.clear()
                measured[system.name].append(found)
                say(
                    f"round {turn} of {self.rounds}: {system.name} {found.records_per_s:,.0f} records/s, "
                    f"{found.cpu_us_per_record:.1f} µs of CPU a record, {found.peak_rss_mb:.0f} MB"
                )
        return dict(measured)


def _run(on: Ground, system: System, task: Task) -> Measured:
    count = OutputCount(on.admin, task.output)
    try:
        with system.run(task) as (process, *beside):
            samples = watch(process, count, task.records, beside=beside)
    except WeirError as error:
        raise task.failed(system.name, error) from None
    on.forget_groups()
    return steady(samples)
