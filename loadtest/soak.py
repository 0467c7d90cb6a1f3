"""Whether a worker stays as it is: half of the peak load, a model swap every 20 s, its memory sampled from outside.

What is measured and how: docs/performance.md.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined, unused-ignore]

from examples.payments import generate
from loadtest import charts
from loadtest.ledger import Ledger, percentile
from loadtest.live import Live, ends
from loadtest.measure import OutputCount, steady, watch
from loadtest.report import machine
from loadtest.service import Service, payments_service
from loadtest.shapes import STEADY, Load
from models.rollout import Version
from streams.errors import UsageError, WeirError

COLUMNS = ("soak", "")
SAMPLE_S, MINUTE_S = 5.0, 60.0
BURST = 400_000
MOST_GROWTH = 0.05
MOST_MORE_FDS = 2
"""A file or a socket may be open for a moment when a sample is taken."""

_READY_S, _END_S = 180.0, 180.0
_SWITCH_S = 15.0
KEPT_BYTES = 256 * 2**20
"""Of each partition: the soak reads at the end of its topics, and the disk is finite."""


class Sample(NamedTuple):
    """Of the worker's process, `time_s` after the load began."""

    time_s: float
    rss_mb: float
    fds: int
    threads: int


class _Switches(NamedTuple):
    """Deployments that the worker has taken into use, and that it has not."""

    ok: int
    refused: int


class Minute(NamedTuple):
    """Latency from when a payment was due until its committed prediction was read."""

    predictions: int
    p50_ms: int
    p99_ms: int


class Steady(NamedTuple):
    """The part after the warm-up: medians over its first and its last `window_s`, and the highest number of files."""

    window_s: float
    first_mb: float
    last_mb: float
    fds_first: int
    fds_last: int
    fds_max: int
    threads_first: int
    threads_last: int

    @property
    def growth(self) -> float:
        return self.last_mb / self.first_mb - 1


@dataclass(frozen=True)
class Soak:
    """peak_per_s: of a closed loop before the soak; None where the rate was given. swapped_s: when deployments
    were published, of which the worker took `switched` into use and refused `refused`.
    """

    per_s: float
    peak_per_s: float | None
    seconds: float
    samples: tuple[Sample, ...]
    steady: Steady
    swapped_s: tuple[float, ...]
    switched: int
    refused: int
    minutes: tuple[Minute, ...]
    predictions: int
    lost: int
    duplicated: int

    @property
    def passed(self) -> bool:
        flat = self.steady.fds_last <= self.steady.fds_first + MOST_MORE_FDS
        once = self.lost == self.duplicated == 0
        return abs(self.steady.growth) <= MOST_GROWTH and flat and once and self.switched == len(self.swapped_s)

    def as_json(self) -> dict[str, Any]:
        """The fields above, the growth as a share, and the machine."""
        return {
            **asdict(self),
            "samples": [sample._asdict() for sample in self.samples],
            "steady": {**self.steady._asdict(), "growth": round(self.steady.growth, 4)},
            "minutes": [minute._asdict() for minute in self.minutes],
            "passed": self.passed,
            "machine": machine(),
        }

    def plot(self, path: Path) -> None:
        """An SVG of the resident memory over time, with a mark at each swap."""
        points = [(sample.time_s / 60, sample.rss_mb) for sample in self.samples]
        swaps = [(time_s / 60, "") for time_s in self.swapped_s]
        charts.write(path, [[charts.over_time("Resident memory of the worker, MB", points, "min", swaps)]])

    def as_rows(self) -> list[tuple[str, str]]:
        """Name and value of each result."""
        found = self.steady
        peak = f", half of {self.peak_per_s:,.0f} at its peak" if self.peak_per_s else ""
        return [
            ("payments/s", f"{self.per_s:,.0f}{peak}; {self.seconds / 60:.1f} minutes"),
            ("resident memory", f"{found.first_mb:.1f} MB, then {found.last_mb:.1f} MB: {found.growth:+.1%}"),
            ("open files", f"{found.fds_first}, then {found.fds_last}; at most {found.fds_max}"),
            ("threads", f"{found.threads_first}, then {found.threads_last}"),
            ("model swaps", f"{len(self.swapped_s)}, {self.switched} taken up, {self.refused} refused"),
            ("latency p50 by minute", " ".join(str(minute.p50_ms) for minute in self.minutes) + " ms"),
            ("latency p99 by minute", " ".join(str(minute.p99_ms) for minute in self.minutes) + " ms"),
            ("predictions", f"{self.predictions:,}; {self.lost} lost, {self.duplicated} twice"),
            ("passed", "yes" if self.passed else "no"),
        ]


def run(
    say: Callable[[str], None],
    *,
    minutes: float = 15.0,
    per_s: float | None = None,
    swap_s: float = 20.0,
    users: int = 10_000,
    partitions: int = 4,
    warm_up_s: float = 120.0,
    sample_s: float = SAMPLE_S,
    load: Load = STEADY,
) -> Soak:
    """Payments at `per_s` (None = half of what a closed loop reaches) for `minutes`, after a warm-up of `warm_up_s`
    of them. load: its time is the soak's. Raises WeirError where the worker ends, UsageError for a load whose records
    are not all scored at their event time.
    """
    if unfit := [name for name in ("late", "poison") if name in load.contents]:
        raise UsageError(f"--shape {load}: a soak counts every payment, by its event time; leave {unfit[0]} out")
    if warm_up_s + 2 * sample_s >= minutes * 60:
        raise WeirError(f"{minutes:g} minutes are too short for a warm-up of {warm_up_s:g} s")
    kept = {"retention_ms": "-1", "retention_bytes": str(KEPT_BYTES), "segment_bytes": str(KEPT_BYTES // 4)}
    with payments_service(partitions, say, **kept) as service:
        versions = service.register([7, 8])
        service.deploy(versions[0])
        peak = None
        if per_s is None:
            peak = _peak(service, users, say)
            per_s = round(peak / 2, -2)
        else:
            service.worker.start()
            service.worker.wait(service.worker.ready, _READY_S, "the worker")
        ledger = Ledger(service.address, service.predictions, MINUTE_S)
        shaped = None if load == STEADY else load
        live = Live(service.address, service.source, users, per_s, shaped, minutes * 60)
        try:
            ledger.start()
            burst = sum(ends(service.address, service.source).values())
            service.worker.wait(lambda: ledger.seen >= burst, _READY_S, "the burst")
            before = _switches(service)
            say(f"{per_s:,.0f} payments/s from now on")
            ledger.restart_clock()
            began = time.monotonic()
            live.start()
            samples, swapped_s = _sample(service, versions, minutes * 60, swap_s, sample_s, say)
            seconds = time.monotonic() - began
            live.halt()
            until = ends(service.address, service.source)
            lost, duplicated = ledger.finish(until, _END_S)
            after = _switches(service)
        finally:
            live.halt()
            ledger.close()
    whole = max(1, round(seconds // MINUTE_S))
    latencies = [found for slot, found in sorted(ledger.latencies().items()) if slot < whole]
    return Soak(
        per_s=live.sent / seconds,
        peak_per_s=peak,
        seconds=round(seconds, 1),
        samples=tuple(samples),
        steady=evaluate(samples, warm_up_s),
        swapped_s=tuple(swapped_s),
        switched=after.ok - before.ok,
        refused=after.refused - before.refused,
        minutes=tuple(Minute(n.total(), percentile(n, 0.5), percentile(n, 0.99)) for n in latencies),
        predictions=sum(until.values()),
        lost=lost,
        duplicated=duplicated,
    )


def evaluate(samples: Sequence[Sample], warm_up_s: float) -> Steady:
    """Compares the first with the last minute after the warm-up; a third of it where it is shorter than three."""
    after = [sample for sample in samples if sample.time_s >= warm_up_s]
    if len(after) < 2:
        raise WeirError(f"{len(after)} samples after the warm-up say nothing")
    window_s = min(MINUTE_S, (after[-1].time_s - after[0].time_s) / 3)
    first = [sample for sample in after if sample.time_s <= after[0].time_s + window_s]
    last = [sample for sample in after if sample.time_s >= after[-1].time_s - window_s]
    return Steady(
        window_s=round(window_s, 1),
        first_mb=round(median(sample.rss_mb for sample in first), 1),
        last_mb=round(median(sample.rss_mb for sample in last), 1),
        fds_first=round(median(sample.fds for sample in first)),
        fds_last=round(median(sample.fds for sample in last)),
        fds_max=max(sample.fds for sample in after),
        threads_first=round(median(sample.threads for sample in first)),
        threads_last=round(median(sample.threads for sample in last)),
    )


def sample_of(pid: int, time_s: float) -> Sample:
    """Of a running process. Raises OSError where it has ended."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    rss_mb = int(status["VmRSS"].split()[0]) / 1024
    return Sample(round(time_s, 1), round(rss_mb, 2), len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"]))


def _sample(
    service: Service,
    versions: Sequence[Version],
    seconds: float,
    swap_s: float,
    sample_s: float,
    say: Callable[[str], None],
) -> tuple[list[Sample], list[float]]:
    """Samples, and swaps, until `seconds` are over; returns when it swapped. The last swap has time to be taken up."""
    samples: list[Sample] = []
    swapped_s: list[float] = []
    champions = cycle([*versions[1:], versions[0]])
    began = time.monotonic()
    next_sample_s, next_swap_s, next_say_s = 0.0, swap_s, MINUTE_S
    while (now_s := time.monotonic() - began) < seconds:
        if now_s >= next_sample_s:
            if service.worker.process.poll() is not None:
                service.worker.wait(lambda: False, 0.0, f"after {now_s:.0f} s")
            samples.append(sample_of(service.worker.process.pid, now_s))
            next_sample_s += sample_s
        if now_s >= next_swap_s and now_s < seconds - min(swap_s, _SWITCH_S) / 2:
            service.deploy(next(champions))
            swapped_s.append(round(now_s, 1))
            next_swap_s += swap_s
        if now_s >= next_say_s:
            last = samples[-1]
            say(
                f"{now_s / 60:.0f} min: {last.rss_mb:.1f} MB, {last.fds} files, {last.threads} threads, "
                f"{len(swapped_s)} swaps"
            )
            next_say_s += MINUTE_S
        time.sleep(0.1)
    return samples, swapped_s


def _peak(service: Service, users: int, say: Callable[[str], None]) -> float:
    """Starts the worker on a topic that is full; records a second of the middle of it."""
    payments = generate.Payments(users=users, rate=users, start_ms=time.time_ns() // 1_000_000 - 3_600_000)
    generate.produce(service.address, service.source, payments.records(BURST))
    admin = AdminClient({"bootstrap.servers": service.address, "log_level": 0})
    count = OutputCount(admin, service.predictions)
    service.worker.start()
    peak = steady(watch(service.worker.process, count, BURST)).records_per_s
    say(f"the peak is {peak:,.0f} payments/s")
    return peak


def _switches(service: Service) -> _Switches:
    counted = (service.worker.metric("weir_model_switches_total", f'result="{result}"') for result in _Switches._fields)
    return _Switches(*map(round, counted))
