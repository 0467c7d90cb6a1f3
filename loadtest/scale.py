"""What a second worker costs: CPU a record of two beside that of one, each kept to a part of a core; and their peak.

What is measured and how: docs/performance.md.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from confluent_kafka.admin import AdminClient  # type: ignore[attr-defined, unused-ignore]

from examples.payments import generate
from loadtest import charts
from loadtest.cap import capped, cpu_s
from loadtest.flood import Flood
from loadtest.growth import KEPT
from loadtest.kafka import KafkaCluster
from loadtest.measure import INTERVAL_S, STALLED_S, OutputCount
from loadtest.report import machine
from loadtest.service import Service, Worker
from loadtest.valkey import Valkey
from loadtest.variants import Variant
from streams.errors import WeirError

COLUMNS = ("load", "workers", "records/s", "CPU µs/record", "cores each")
SHARE = 0.4
WITHIN = 0.15
"""Two workers may cost so much more a record than one."""

PARTITIONS = 4
LAST = 0.85
"""The share of the topic up to which is measured: then one worker may have none left."""

_TOPIC = "scale-in"
_SETTLED_S, _SETTLE_S = 120.0, 2.0


class Turn(NamedTuple):
    """`workers` over a full topic, each kept to `share` of a core; None = not kept.

    cpu_us_per_record: of all workers together; cores: that each used, on average.
    """

    workers: int
    share: float | None
    records_per_s: float
    cpu_us_per_record: float
    cores: float


@dataclass(frozen=True)
class Scale:
    """All turns, each kind as often as the others."""

    turns: tuple[Turn, ...]

    def median(self, workers: int, share: float | None) -> Turn:
        """Of each value over the turns of one kind."""
        mine = [turn[2:] for turn in self.turns if turn[:2] == (workers, share)]
        return Turn(workers, share, *(median(values) for values in zip(*mine, strict=True)))

    @property
    def cost(self) -> float:
        """CPU a record of two, as a multiple of one's; both capped."""
        return self.median(2, SHARE).cpu_us_per_record / self.median(1, SHARE).cpu_us_per_record

    @property
    def gain(self) -> float:
        """Records a second of two at their peak, as a multiple of one's, on this machine."""
        return self.median(2, None).records_per_s / self.median(1, None).records_per_s

    @property
    def passed(self) -> bool:
        return self.cost <= 1 + WITHIN

    @property
    def medians(self) -> list[Turn]:
        kinds = dict.fromkeys((turn.workers, turn.share) for turn in self.turns)
        return [self.median(workers, share) for workers, share in kinds]

    def as_json(self) -> dict[str, Any]:
        return {
            "mode": "scale",
            "medians": [_rounded(turn) for turn in self.medians],
            "turns": [_rounded(turn) for turn in self.turns],
            "cost_of_two": round(self.cost, 3),
            "within": WITHIN,
            "peak_of_two": round(self.gain, 3),
            "passed": self.passed,
            "machine": machine(),
        }

    def as_rows(self) -> list[tuple[str, ...]]:
        """Under `COLUMNS`."""
        return [
            (
                _load(turn),
                str(turn.workers),
                f"{turn.records_per_s:,.0f}",
                f"{turn.cpu_us_per_record:.2f}",
                f"{turn.cores:.2f}",
            )
            for turn in self.medians
        ]

    def summary(self) -> str:
        return (
            f"a record costs two workers {self.cost:.2f} of what it costs one: "
            f"{'within' if self.passed else 'ABOVE'} {1 + WITHIN:.2f}; "
            f"their peak on this machine is {self.gain:.2f} of one's"
        )

    def plot(self, path: Path) -> None:
        """An SVG of two bar charts: CPU a record, records a second."""
        names = [(f"{turn.workers} × {_load(turn)}", turn) for turn in self.medians]
        costs = [(name, turn.cpu_us_per_record, f"{turn.cpu_us_per_record:.2f}") for name, turn in names]
        rates = [(name, turn.records_per_s, f"{turn.records_per_s:,.0f}") for name, turn in names]
        charts.write(
            path,
            [
                [charts.bars("CPU µs per record (less is better)", costs, 190)],
                [charts.bars("Records per second (more is better)", rates, 190)],
            ],
        )


def run(say: Callable[[str], None], *, records: int = 3_000_000, rounds: int = 2, seconds: float = 20.0) -> Scale:
    """One worker and two in turns, capped and not, each over the same `records` payments, for `seconds` at most.

    Raises WeirError where a worker ends or stands still.
    """
    turns: list[Turn] = []
    with (
        tempfile.TemporaryDirectory(prefix="weir-scale-") as folder,
        KafkaCluster(Path(folder), java_options=()) as kafka,
    ):
        kafka.create_topics(_TOPIC, partitions=PARTITIONS, retention_ms="-1")
        generate.produce(kafka.address, _TOPIC, Flood().records(records))
        say(f"{records:,} payments written")
        for number in range(1, rounds + 1):
            for share in (SHARE, None):
                for workers in (1, 2):
                    variant = Variant(f"scale-{len(turns) + 1}", _TOPIC)
                    with _service(kafka, Path(folder), variant) as service:
                        turns.append(_turn(service, workers, share, int(LAST * records), seconds))
                    turn = turns[-1]
                    say(
                        f"{number} of {rounds}: {workers} × {_load(turn)}: {turn.records_per_s:,.0f} records/s, "
                        f"{turn.cpu_us_per_record:.2f} µs of CPU a record, {turn.cores:.2f} cores each"
                    )
    return Scale(tuple(turns))


@contextmanager
def _service(kafka: KafkaCluster, folder: Path, variant: Variant) -> Iterator[Service]:
    """At least once: then the output's end offsets count predictions, and no markers of transactions."""
    with Valkey() as valkey:
        settings = {"WEIR_GUARANTEE": "at_least_once"}
        service = Service(kafka.address, valkey, folder, variant.write(folder), settings)
        kafka.create_topics(service.predictions, partitions=PARTITIONS, **KEPT)
        service.serve()
        yield service


def _turn(service: Service, count: int, share: float | None, last: int, seconds: float) -> Turn:
    """Measured from when each worker has its part of the partitions, until `last` or for `seconds`."""
    output = OutputCount(AdminClient({"bootstrap.servers": service.address, "log_level": 0}), service.predictions)
    workers = [service.new_worker(f"{service.pipeline.name}-{i}") for i in range(count)]
    with ExitStack() as stack:
        for worker in workers:
            worker.start()
            stack.callback(worker.stop)
        if share is not None:
            stack.enter_context(capped([worker.process for worker in workers], share))
        for worker in workers:
            worker.wait(partial(_owns, worker, PARTITIONS // count), _SETTLED_S, "its partitions", pause_s=0.2)
        time.sleep(_SETTLE_S)
        began_s, used_s, records = time.monotonic(), _used(workers), output()
        seen, progress_s = records, began_s
        while seen < last and (now_s := time.monotonic()) - began_s < seconds:
            if (found := output()) > seen:
                seen, progress_s = found, now_s
            elif now_s - progress_s > STALLED_S:
                raise WeirError(f"{count} workers have stood at {seen:,} records for {STALLED_S:.0f} s")
            time.sleep(INTERVAL_S)
        used_s, seen, took_s = _used(workers) - used_s, output() - records, time.monotonic() - began_s
    if seen <= 0:
        raise WeirError(f"{records:,} payments were worked off before {count} workers had settled: give --records")
    return Turn(count, share, seen / took_s, used_s / seen * 1e6, used_s / took_s / count)


def _owns(worker: Worker, partitions: int) -> bool:
    try:
        return worker.metric("weir_owned_partitions") == partitions
    except WeirError:  # it does not listen yet
        return False


def _used(workers: list[Worker]) -> float:
    """CPU seconds of all. Raises WeirError where one has ended."""
    try:
        return sum(cpu_s(worker.process.pid) for worker in workers)
    except OSError:
        raise WeirError("a worker ended while it was measured") from None


def _load(turn: Turn) -> str:
    return "peak" if turn.share is None else f"{turn.share:g} of a core"


def _rounded(turn: Turn) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in turn._asdict().items()}
