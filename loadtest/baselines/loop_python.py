"""A bare loop, an afternoon's work: librdkafka, orjson, features in plain Python, one ONNX call a batch."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnxruntime
import orjson
from confluent_kafka import Consumer, Producer

from loadtest.baselines.job import Job, Tally
from loadtest.baselines.panes import FEATURES, User

BATCH = 4000


def run(job: Job) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(Path(job.model).read_bytes(), options)
    consumer = Consumer(
        {
            "bootstrap.servers": job.broker,
            "group.id": job.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 10,  # as the compiled loop has it
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
    users: defaultdict[str, User] = defaultdict(User)
    tally, commit_at = Tally(), time.monotonic() + 1
    while tally.records < job.records:
        messages = job.take(consumer, min(BATCH, job.records - tally.records))
        if not messages:
            continue
        tally.add(len(messages))
        payments = [orjson.loads(m.value() or b"") for m in messages]
        rows = [users[p["user_id"]].score_then_add(p["amount"], p["ts"]) for p in payments]
        scores = session.run(None, {"features": np.array(rows, np.float32)})[0].tolist()
        for message, payment, row, score in zip(messages, payments, rows, scores, strict=True):
            prediction = {
                "id": payment["payment_id"],
                "score": score,
                "features": dict(zip(FEATURES, row, strict=True)),
            }
            producer.produce(job.output, orjson.dumps(prediction), message.key())
        producer.poll(0)
        if time.monotonic() >= commit_at:
            producer.flush()
            consumer.commit(asynchronous=True)
            commit_at = time.monotonic() + 1
    producer.flush()
    tally.report()
    consumer.commit(asynchronous=False)
    consumer.close()


if __name__ == "__main__":
    run(Job.from_arguments())
