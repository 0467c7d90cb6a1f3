"""Payments in the shape of a load, at their intended times, to any broker:

    python -m loadtest.generate --broker localhost:9092 --topic payments --rate 2000 --shape spike+hot --seconds 60

The topic has to be there. Nothing waits for an answer of the broker but the end; WEIR_SECURITY_* say how it is spoken
to.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from confluent_kafka import KafkaException

from examples.payments.generate import Payments
from loadtest.latency_sender import FLUSH_S, Sender
from loadtest.shapes import CONTENTS, SCHEDULES, Load
from streams.errors import UsageError, WeirError
from streams.settings import load_settings

MOST_RECORDS = 50_000_000
MOST_SECONDS = 24 * 3600.0
LEAD_S = 0.5


def run(
    broker: str, topic: str, rate: float, seconds: float, load: Load, payments: Payments, most: int = MOST_RECORDS
) -> dict[str, Any]:
    """Sends the load; returns once the broker has it.

    `payments`: its rate and start are the load's. Returns {"shape", "sent", "failed", "spoilt", "seconds",
    "late_p99_ms", "late_max_ms"}: how late records left. UsageError for more than `most` records; WeirError where no
    Kafka answers.
    """
    if not 0 < seconds <= MOST_SECONDS or rate <= 0:
        raise UsageError(f"--rate and --seconds are above 0, the latter at most {MOST_SECONDS:.0f}")
    if rate * seconds > most:  # before the schedule is laid out in memory
        raise UsageError(f"{rate * seconds:,.0f} records are more than --records {most:,}; lower --rate or --seconds")
    intended_s = load.due_s(rate, seconds)
    if len(intended_s) > most:
        raise UsageError(f"{len(intended_s):,} records are more than --records {most:,}; lower --rate or --seconds")
    try:
        sender = Sender(broker, topic, log_level=0, **load_settings(broker=broker).kafka_security())
    except KafkaException as error:
        raise WeirError(f"no Kafka answers at {broker}: {error.args[0].str()}") from None
    times_ms = payments.start_ms + np.floor(intended_s * 1000).astype(np.int64)
    gc.freeze()
    start_s = time.monotonic() + LEAD_S
    late = sender.stream(load.records(payments, times_ms), intended_s, start_s)
    late_ms = np.fromiter(itertools.chain.from_iterable(late), np.float64) * 1e3
    sender.flush()
    return {
        "shape": str(load),
        "sent": len(intended_s) - sender.failed,
        "failed": sender.failed,
        "spoilt": int(np.count_nonzero(load.bad(payments, len(intended_s)))),
        "seconds": round(time.monotonic() - start_s, 2),
        "late_p99_ms": round(float(np.percentile(late_ms, 99)), 2) if len(late_ms) else None,
        "late_max_ms": round(float(late_ms.max()), 2) if len(late_ms) else None,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 all sent, 1 the broker did not take all, 2 wrong use, 130 interrupted."""
    words = {name: text for name, (_, text) in SCHEDULES.items()} | CONTENTS
    shapes = "; ".join(f"{name}: {text}" for name, text in words.items())
    parser = argparse.ArgumentParser(
        description="Write synthetic payments to a topic, each at its intended time.",
        epilog=f"Shapes, joined by +, of the first {len(SCHEDULES)} at most one: {shapes}.".replace("%", "%%"),
    )
    parser.add_argument("--broker", required=True, help="host:port,…")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--rate", type=float, required=True, help="payments a second; some shapes take multiples of it")
    parser.add_argument("--shape", default="steady", help="such as spike+hot")
    parser.add_argument("--seconds", type=float, default=60.0, help=f"how long, at most {MOST_SECONDS:.0f}")
    parser.add_argument("--records", type=int, default=MOST_RECORDS, help="the most that may be sent; more is refused")
    parser.add_argument("--users", type=int, default=Payments.users)
    parser.add_argument("--seed", type=int, default=Payments.seed)
    parser.add_argument("--start-ms", type=int, help="event time of the first payment; default: now")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    given = parser.parse_args(arguments)
    start_ms = time.time_ns() // 1_000_000 if given.start_ms is None else given.start_ms
    payments = Payments(users=given.users, rate=given.rate, start_ms=start_ms, seed=given.seed)
    try:
        load = Load.parse(given.shape)
        found = run(given.broker, given.topic, given.rate, given.seconds, load, payments, given.records)
    except WeirError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    if given.json:
        print(json.dumps(found))
    else:
        print(
            f"{found['sent']:,} payments written to {given.topic} in {found['seconds']} s ({found['shape']}; "
            f"{found['spoilt']:,} spoilt); they left up to {found['late_max_ms']} ms late, p99 "
            f"{found['late_p99_ms']} ms"
        )
    if found["failed"]:
        print(f"{found['failed']:,} payments were not taken within {FLUSH_S:.0f} s of the end", file=sys.stderr)
    return 1 if found["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
