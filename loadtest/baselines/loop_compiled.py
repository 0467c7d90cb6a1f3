"""The fastest loop one writes by hand for this one model: librdkafka, msgspec, a numba kernel, produce_batch.

No durability of the features, no logged features, no headers, no metrics.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import numba
import numpy as np
import onnxruntime
from confluent_kafka import Consumer, Producer

from loadtest.baselines.job import Job, Tally

BATCH = 4000
HOUR_PANE_MS, HOUR_PANES = 300_000, 12
DAY_PANE_MS, DAY_PANES = 3_600_000, 24
WITHIN_MS = 30 * 86_400_000

Panes = tuple[np.ndarray, np.ndarray, np.ndarray]
"""By user: newest pane int64 [u], counts int64 and sums float64 [u, panes]; pane p lies at p modulo panes."""


class Payment(msgspec.Struct):
    payment_id: str
    user_id: str
    amount: float
    ts: int


@numba.njit(cache=True, nogil=True)  # type: ignore[misc, unused-ignore]
def _window(
    newest: np.ndarray, counts: np.ndarray, sums: np.ndarray, user: int, pane: int, amount: float
) -> tuple[float, float]:
    """Count and sum of `user` before the payment, which is added; if late, NaN twice and nothing added."""
    panes = counts.shape[1]
    head = newest[user]
    if pane > head:
        for p in range(max(head + 1, pane - panes + 1), pane + 1):
            counts[user, p % panes] = 0
            sums[user, p % panes] = 0.0
        newest[user] = head = pane
    elif pane <= head - panes:
        return np.nan, np.nan
    count, total = 0, 0.0
    for p in range(head - panes + 1, head + 1):
        count += counts[user, p % panes]
        total += sums[user, p % panes]
    counts[user, pane % panes] += 1
    sums[user, pane % panes] += amount
    return count, total


@numba.njit(cache=True, nogil=True)  # type: ignore[misc, unused-ignore]
def _score_then_add(
    users: np.ndarray,
    amounts: np.ndarray,
    times: np.ndarray,
    last: np.ndarray,
    hour: Panes,
    day: Panes,
    out: np.ndarray,
) -> None:
    for i in range(len(users)):
        user, amount, at = users[i], amounts[i], times[i]
        gap = at - last[user]
        out[i, 0] = amount
        out[i, 1] = gap / 1000 if last[user] >= 0 and gap <= WITHIN_MS else np.nan
        last[user] = at
        count, total = _window(*hour, user, at // HOUR_PANE_MS, amount)
        out[i, 2], out[i, 4] = count, total
        out[i, 6] = total / count if count > 0 else np.nan
        count, total = _window(*day, user, at // DAY_PANE_MS, amount)
        out[i, 3], out[i, 5] = count, total
        out[i, 7] = total / count if count > 0 else np.nan


class Users:
    """Arrays of state by user, grown by doubling."""

    def __init__(self, capacity: int = 16_384) -> None:
        self._rows: dict[str, int] = {}
        self._last = np.full(capacity, -1, np.int64)
        self._hour = _panes(capacity, HOUR_PANES)
        self._day = _panes(capacity, DAY_PANES)

    def features(self, payments: list[Payment]) -> np.ndarray:
        """float32 [n, 8] of `payments`, each as of just before itself; then they are in the state."""
        rows = self._rows
        users = np.array([rows.setdefault(p.user_id, len(rows)) for p in payments], np.int64)
        while len(rows) > len(self._last):
            self._grow()
        amounts = np.array([p.amount for p in payments], np.float64)
        times = np.array([p.ts for p in payments], np.int64)
        out = np.empty((len(payments), 8), np.float32)
        _score_then_add(users, amounts, times, self._last, self._hour, self._day, out)
        return out

    def _grow(self) -> None:
        more = len(self._last)
        self._last = np.concatenate([self._last, np.full(more, -1, np.int64)])
        self._hour = _joined(self._hour, _panes(more, HOUR_PANES))
        self._day = _joined(self._day, _panes(more, DAY_PANES))


def _panes(capacity: int, panes: int) -> Panes:
    return (
        np.full(capacity, -(10**9), np.int64),
        np.zeros((capacity, panes), np.int64),
        np.zeros((capacity, panes), np.float64),
    )


def _joined(some: Panes, more: Panes) -> Panes:
    newest, counts, sums = map(np.concatenate, zip(some, more, strict=True))
    return newest, counts, sums


def run(job: Job) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(Path(job.model).read_bytes(), options)
    decode = msgspec.json.Decoder(list[Payment]).decode
    consumer = Consumer(
        {
            "bootstrap.servers": job.broker,
            "group.id": job.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            # The default, 1 s, caps a fast loop at queued.min.messages (100,000) a second.
            "fetch.queue.backoff.ms": 10,
            **job.consumer,
        }
    )
    producer = Producer(
        {
            "bootstrap.servers": job.broker,
            "linger.ms": 5,
            "batch.num.messages": 10_000,
            "queue.buffering.max.messages": 1_000_000,
            **job.producer,
        }
    )
    consumer.subscribe([job.input])
    Users().features([Payment("", "", 0.0, 0)])  # compiled before the first poll
    users, tally, commit_at = Users(), Tally(), time.monotonic() + 1
    while tally.records < job.records:
        messages = job.take(consumer, min(BATCH, job.records - tally.records))
        if not messages:
            continue
        tally.add(len(messages))
        payments = decode(b"[" + b",".join([_value(m) for m in messages]) + b"]")
        scores = session.run(None, {"features": users.features(payments)})[0].tolist()
        batch = [
            {"key": m.key(), "value": f'{{"id":"{p.payment_id}","score":{s:.7g}}}'}
            for m, p, s in zip(messages, payments, scores, strict=True)
        ]
        producer.produce_batch(job.output, batch)
        producer.poll(0)
        if time.monotonic() >= commit_at:
            producer.flush()
            consumer.commit(asynchronous=True)
            commit_at = time.monotonic() + 1
    producer.flush()
    tally.report()
    consumer.commit(asynchronous=False)
    consumer.close()


def _value(message: Any) -> bytes:
    value: bytes = message.value()
    return value


if __name__ == "__main__":
    run(Job.from_arguments())
