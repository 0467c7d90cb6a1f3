"""What every baseline is told and what it reports, so that the measured part is all that differs."""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, Message


@dataclass(frozen=True)
class Job:
    """Score the first `records` records of topic `input` into topic `output`, then exit.

    `prompt`: take what has come rather than wait for a full batch; `consumer` and `producer`: client settings
    that win over the loop's own.
    """

    broker: str
    input: str
    output: str
    group: str
    model: str
    records: int
    prompt: bool = False
    consumer: dict[str, Any] = field(default_factory=dict)
    producer: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_arguments(cls) -> Job:
        parser = argparse.ArgumentParser()
        for name in ("broker", "input", "output", "group", "model"):
            parser.add_argument(f"--{name}", required=True)
        parser.add_argument("--records", type=int, required=True)
        parser.add_argument("--prompt", action="store_true")
        for name in ("consumer", "producer"):
            parser.add_argument(f"--{name}", type=json.loads, default={})
        return cls(**vars(parser.parse_args()))

    def take(self, consumer: Consumer, most: int) -> list[Message]:
        """Up to `most` messages without an error; after 50 ms without any, none."""
        if self.prompt:
            first = consumer.poll(0.05)
            found = [first, *(consumer.consume(most - 1, 0) if most > 1 else [])] if first is not None else []
        else:
            found = consumer.consume(most, 0.05)
        return [m for m in found if m.error() is None]


class Tally:
    """Counts from the first record polled to the last one delivered; `report` prints one JSON object.

    Records per second of wall time; CPU (user + system) of this process; peak RSS in MB. The bench measures
    from outside and over the steady part only: these figures are for a run by hand.
    """

    def __init__(self) -> None:
        self.records = 0
        self._began: tuple[float, float] | None = None

    def add(self, records: int) -> None:
        """To be called when `records` have been polled, before any work on them."""
        if self._began is None:
            self._began = (time.perf_counter(), _cpu_s())
        self.records += records

    def report(self) -> None:
        began_s, began_cpu_s = self._began or (time.perf_counter(), _cpu_s())
        seconds = time.perf_counter() - began_s
        print(
            json.dumps(
                {
                    "records": self.records,
                    "records_per_s": round(self.records / max(seconds, 1e-9)),
                    "cpu_us_per_record": round((_cpu_s() - began_cpu_s) / max(self.records, 1) * 1e6, 2),
                    "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
                }
            ),
            flush=True,
        )


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
