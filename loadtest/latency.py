"""The open-loop bench: from the time a payment should have left to its prediction in a consumer's hand.

What is compared and how it is measured: docs/performance.md.
"""

from __future__ import annotations

import math
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from examples.payments import generate
from loadtest import latency_receiver, latency_sender, scrape
from loadtest.child import Child
from loadtest.ground import Ground, ground
from loadtest.latency_report import Result, Staleness, Turn, latency_of
from loadtest.latency_sender import Plan
from loadtest.merchants import GROUP
from loadtest.shapes import STEADY, Load
from loadtest.spans import Collector
from loadtest.stages import parts
from loadtest.systems import GROUPS, LATENCY, System, Task, select
from streams.errors import UsageError, WeirError
from streams.ports import free_port

_KNOWN = (*LATENCY, *GROUPS)
PROBES = 200
"""Payments before all others, scored before the sender starts: enough for every partition to have some."""
START_S = 90.0
IDLE_S = 30.0
"""Silence after which what has not come is lost."""
END_S = 10.0
LONG_S = 10.0
"""From here on a turn is meant to be a measurement."""
LEAD_S = 0.3
SCRAPE_BEFORE_S = 0.5
"""The worker's metrics are read so long before the measured part, for that to take no share in it."""


@dataclass(frozen=True)
class LatencyBench:
    """Each of `systems` under `load` at each of `rates` (records/s) for `seconds`, after `warmup` seconds at the steady
    rate, in each of `rounds`.

    broker: host:port of a Kafka without the payments topics; None = one is started.
    """

    rates: tuple[int, ...] = (10_000,)
    seconds: float = 30.0
    warmup: float = 5.0
    rounds: int = 2
    partitions: int = 4
    systems: tuple[System, ...] = LATENCY
    broker: str | None = None
    load: Load = STEADY

    def run(self, say: Callable[[str], None]) -> list[Result]:
        """By rate and system, in their order. Raises WeirError where a system fails."""
        turns: defaultdict[tuple[int, str], list[Turn]] = defaultdict(list)
        with ground(self.broker, self.systems, self.partitions, say) as on:
            if self.broker is None and self.seconds >= LONG_S:
                say("one turn for the broker, whose code is compiled as it runs; it does not count")
                self._turn(on, self.systems[0], max(self.rates))
            for number in range(1, self.rounds + 1):
                for rate in self.rates:
                    for system in self.systems:
                        turn = self._turn(on, system, rate)
                        turns[rate, system.name].append(turn)
                        say(f"round {number} of {self.rounds}: {_told(system, rate, turn)}")
        return [Result(name, rate, tuple(found)) for (rate, name), found in turns.items()]

    def _turn(self, on: Ground, system: System, rate: int) -> Turn:
        plan = Plan(rate, self.warmup, self.seconds, int(time.time() * 1000), PROBES, self.load)
        task = Task(
            broker=on.broker,
            input=on.input,
            output=on.output(system),
            group=f"bench-{system.name}",
            model=on.model,
            records=PROBES + plan.count,
            work=on.work,
            log=on.work / f"{system.name}.log",
            http=f"127.0.0.1:{free_port()}",
            prompt=True,
        )
        on.empty_input()
        try:
            with Collector() as collector:
                task = task._replace(traces=collector.url)
                with _receiver(plan, task) as receiver, system.run(task) as running, _sender(plan, task) as sender:
                    found, times = _measure(plan, task, _Processes(sender, receiver, running), weir=system.is_weir)
                    if not system.is_weir:
                        _let_end(running[0])
                if system.is_weir:  # it has ended, and sent its last spans before
                    found = found._replace(parts=parts(collector.take(), times.due_ns, times.arrived_ns))
        except WeirError as error:
            raise task.failed(system.name, error) from None
        on.forget_groups()
        return found


def systems_for(load: Load, names: str) -> tuple[System, ...]:
    """The systems named, or all that can take the load. UsageError for one that cannot."""
    if "poison" not in load.contents:
        return select(names, LATENCY, _KNOWN)
    able = [system for system in LATENCY if system.is_weir]
    if unable := [s.name for s in select(names, able, _KNOWN) if not s.is_weir]:
        raise UsageError(f"--shape {load}: {unable[0]} ends at the first record that it cannot decode; leave it out")
    return select(names, able, _KNOWN)


class _Times(NamedTuple):
    """By number of the payment, wall clock, float64; NaN for those that are not measured or never came."""

    due_ns: np.ndarray
    arrived_ns: np.ndarray


class _Processes(NamedTuple):
    sender: Child
    receiver: Child
    system: Sequence[subprocess.Popen[bytes]]

    def check(self) -> None:
        """Raises WeirError if the system has ended without having done its work."""
        for process in self.system:
            if process.poll() not in (None, 0):
                raise WeirError(f"it ended with code {process.returncode}")


def _measure(plan: Plan, task: Task, processes: _Processes, *, weir: bool) -> tuple[Turn, _Times]:
    sender, receiver, check = processes.sender, processes.receiver, processes.check
    sender.hear(START_S, check)
    probes = generate.Payments(rate=plan.rate, start_ms=plan.start_ms).records(PROBES)
    generate.produce(task.broker, task.input, probes)
    if (scored := receiver.hear(2 * START_S, check)["probes"]) < PROBES:
        raise WeirError(f"it scored {scored} of the first {PROBES} payments in {START_S:.0f} s")
    start_s = time.monotonic() + LEAD_S
    wall_ns = time.time_ns() - time.monotonic_ns()
    sender.tell(repr(start_s))
    time.sleep(max(0.0, start_s + plan.warmup / plan.rate - SCRAPE_BEFORE_S - time.monotonic()))
    before = scrape.page(task.http) if weir else ""
    lasts_s = plan.warmup_s + plan.seconds
    sent = sender.hear(lasts_s + latency_sender.FLUSH_S + START_S, check)
    received = receiver.hear(10 * lasts_s + 2 * IDLE_S, check)
    after = scrape.page(task.http) if weir else ""
    if sent["sent"] < plan.count:
        raise WeirError(f"Kafka took {sent['sent']} of {plan.count} payments: this is no measurement")
    due_s = np.concatenate([np.full(PROBES + plan.warmup, math.nan), (start_s + plan.intended_s)[plan.warmup :]])
    arrived_s = np.load(_arrivals(task))
    latencies_s = (arrived_s - due_s)[PROBES + plan.warmup :][plan.good[plan.warmup :]]
    turn = Turn(
        latency_of(latencies_s),
        sent=len(latencies_s),
        received=int(np.count_nonzero(~np.isnan(latencies_s))),
        duplicates=received["duplicates"],
        late_p99_ms=sent["late_p99_ms"],
        commit_p99_ms=_quantile_ms(before, after, 0.99, "weir_stage_seconds", stage="commit"),
        engine_p99_ms=_quantile_ms(before, after, 0.99, "weir_latency_seconds"),
        commit_p50_ms=_quantile_ms(before, after, 0.5, "weir_stage_seconds", stage="commit"),
        came_ms=(latencies_s[~np.isnan(latencies_s)] * 1e3).astype(np.float32),
        stale=_staleness(before, after),
    )
    return turn, _Times(due_s * 1e9 + wall_ns, arrived_s * 1e9 + wall_ns)


def _staleness(before: str, after: str) -> Staleness | None:
    found = [
        _quantile_ms(before, after, q, name, group=GROUP)
        for name in ("weir_remote_lag_seconds", "weir_remote_age_seconds")
        for q in (0.5, 0.99)
    ]
    known = [ms for ms in found if ms is not None]
    return Staleness(*known) if len(known) == len(found) else None


def _let_end(loop: subprocess.Popen[bytes]) -> None:
    """A loop ends by itself once it has had its records; stopped before, it would stay a member of its group."""
    with suppress(subprocess.TimeoutExpired):
        loop.wait(END_S)


@contextmanager
def _receiver(plan: Plan, task: Task) -> Iterator[Child]:
    """Reads from the end of the output as it is now: nothing is running yet that writes there."""
    arguments = {
        "broker": task.broker,
        "topic": task.output,
        "probes": PROBES,
        "records": plan.count,
        "expected": int(np.count_nonzero(plan.good)),
        "idle-s": IDLE_S,
        "start-s": START_S,
        "out": _arrivals(task),
    }
    with Child(latency_receiver.__name__, arguments, task.work / "receiver.log") as child:
        child.hear(START_S)
        yield child


def _sender(plan: Plan, task: Task) -> Child:
    arguments = {
        "broker": task.broker,
        "topic": task.input,
        "rate": plan.rate,
        "warmup-s": plan.warmup_s,
        "seconds": plan.seconds,
        "load": plan.load,
        "start-ms": plan.start_ms,
        "skip": plan.skip,
    }
    return Child(latency_sender.__name__, arguments, task.work / "sender.log")


def _arrivals(task: Task) -> Path:
    return task.work / "arrivals.npy"


def _quantile_ms(before: str, after: str, q: float, name: str, **labels: str) -> float | None:
    found = scrape.quantile(scrape.buckets(before, name, **labels), scrape.buckets(after, name, **labels), q)
    return None if found is None else found * 1e3


def _told(system: System, rate: int, turn: Turn) -> str:
    lost = turn.sent - turn.received
    return (
        f"{system.name} at {rate:,} records/s: p50 {turn.latency.p50:.1f}, p99 {turn.latency.p99:.1f}, "
        f"p99.9 {turn.latency.p99_9:.1f} ms{f'; LOST {lost:,} of {turn.sent:,}' if lost else ''}; "
        f"the sender itself {turn.late_p99_ms:.1f} ms late (p99)"
    )
