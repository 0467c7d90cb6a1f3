"""The same work on stock Faust: an agent over a topic, `take`, state in a dict, one ONNX call a batch.

aiokafka, JSON records, no changelog: what Faust's documentation leads to, with nothing tuned against it.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections import defaultdict
from pathlib import Path

import faust
import numpy as np
import onnxruntime

from loadtest.baselines.job import Job, Tally
from loadtest.baselines.panes import FEATURES, User


class Payment(faust.Record, serializer="json"):  # type: ignore[misc, call-arg, unused-ignore]
    payment_id: str
    user_id: str
    merchant: str
    amount: float
    ts: int


def build(job: Job) -> faust.App:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(Path(job.model).read_bytes(), options)
    app = faust.App(
        job.group,
        broker=f"kafka://{job.broker}",
        topic_partitions=4,
        topic_disable_leader=True,
        broker_commit_interval=1.0,
        consumer_auto_offset_reset="earliest",
        web_enabled=False,
        datadir=tempfile.mkdtemp(prefix="stock-faust-"),
    )
    payments = app.topic(job.input, key_type=str, value_type=Payment)
    predictions = app.topic(job.output, key_type=str, value_serializer="json")
    users: defaultdict[str, User] = defaultdict(User)
    tally = Tally()

    @app.agent(payments)  # type: ignore[untyped-decorator, arg-type, unused-ignore]
    async def score(stream: faust.Stream[Payment]) -> None:
        async for batch in stream.take(1000, within=0.1):
            tally.add(len(batch))
            rows = [users[p.user_id].score_then_add(p.amount, p.ts) for p in batch]
            scores = session.run(None, {"features": np.array(rows, np.float32)})[0].tolist()
            for payment, row, value in zip(batch, rows, scores, strict=True):
                prediction = {
                    "id": payment.payment_id,
                    "score": value,
                    "features": dict(zip(FEATURES, row, strict=True)),
                }
                await predictions.send(key=payment.user_id, value=prediction)
            if tally.records >= job.records:
                await app.producer.flush()
                tally.report()
                os.kill(os.getpid(), signal.SIGTERM)
                return

    return app


if __name__ == "__main__":
    worker = faust.Worker(build(Job.from_arguments()), loglevel="ERROR", quiet=True, redirect_stdouts=False)
    worker.spinner = None  # it writes escape sequences to stdout even where that is no terminal
    worker.execute_from_commandline()
