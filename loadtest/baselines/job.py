"""What every baseline is told and what it reports, so that the measured part is all that differs."""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """Score the first `records` records of topic `input` into topic `output`, then exit."""

    broker: str
    input: str
    output: str
    group: str
    model: str
    records: int

    @classmethod
    def from_arguments(cls) -> Job:
        parser = argparse.ArgumentParser()
        for name in ("broker", "input", "output", "group", "model"):
            parser.add_argument(f"--{name}", required=True)
        parser.add_argument("--records", type=int, required=True)
        return cls(**vars(parser.parse_args()))


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
