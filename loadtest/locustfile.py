"""Load from outside, for locust: payments to Kafka and their predictions back; and POST /features.

    locust -f loadtest/locustfile.py KafkaUser --headless -u 50 -r 50 -t 60s --broker localhost:9092
    locust -f loadtest/locustfile.py FeaturesUser --headless -u 20 -r 20 -t 60s --host http://127.0.0.1:8321

For the payments example (`weir run examples.payments.pipeline:pipeline`, `weir features serve …`). A Kafka user sends a
payment, waits for its prediction and only then goes on: what locust shows is the time between the two, and a prediction
that does not come is a failure. How fast Weir is, `weir bench` says: locust is one Python process, and its own time is
in what it measures.
"""

from __future__ import annotations

import json
import os
import random
import time
from argparse import ArgumentParser
from typing import Any

import gevent
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from gevent.event import AsyncResult
from locust import FastHttpUser, User, constant_throughput, events, task

USERS = 10_000
"""Of the payments example: u00000 and on."""
PREDICTION_S = 10.0
_IDLE_S = 0.002


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator, unused-ignore]
def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--broker", default="localhost:9092", env_var="BROKER", help="host:port of Kafka")
    parser.add_argument("--topic", default="payments", help="the scored topic")
    parser.add_argument("--predictions", default="payments.predictions", help="the topic of predictions")
    parser.add_argument("--rate", type=float, default=5.0, help="payments, or requests, a second of each user at most")
    parser.add_argument("--entities", type=int, default=10, help="entities of a request to /features")


class Payments:
    """One producer and one consumer for all Kafka users of a process.

    librdkafka blocks where gevent cannot see it, so it is only ever asked for what it has already.
    """

    def __init__(self, broker: str, topic: str, predictions: str) -> None:
        self._topic = topic
        self._waiting: dict[str, AsyncResult[float]] = {}
        self._producer = Producer({"bootstrap.servers": broker, "linger.ms": 1, "message.timeout.ms": 10_000})
        self._consumer = Consumer(
            {"bootstrap.servers": broker, "group.id": "locust", "enable.auto.commit": False, "fetch.wait.max.ms": 20}
        )
        found = self._consumer.list_topics(predictions, timeout=10).topics[predictions]
        if found.error is not None or not found.partitions:
            raise RuntimeError(f"there is no topic {predictions} on {broker}: start the pipeline first")
        places = [TopicPartition(predictions, p) for p in found.partitions]
        for place in places:
            _, place.offset = self._consumer.get_watermark_offsets(place, timeout=10)
        self._consumer.assign(places)
        self._names = f"locust-{os.getpid()}-{time.time_ns()}"
        self._sent = 0
        self._greenlet = gevent.spawn(self._listen)

    def pay(self) -> float:
        """Sends a payment; seconds until its prediction came. Raises TimeoutError."""
        self._sent += 1
        name, user, now_ms = f"{self._names}-{self._sent}", f"u{random.randrange(USERS):05d}", time.time_ns() // 10**6
        amount = round(random.lognormvariate(3.2, 1.1), 2)
        payment = {"payment_id": name, "user_id": user, "merchant": "m001", "amount": amount, "ts": now_ms}
        self._waiting[name] = came = AsyncResult()
        began = time.perf_counter()
        try:
            self._producer.produce(self._topic, json.dumps(payment).encode(), user.encode(), timestamp=now_ms)
            return float(came.get(timeout=PREDICTION_S)) - began
        except gevent.Timeout:
            raise TimeoutError(f"no prediction in {PREDICTION_S:g} s") from None
        finally:
            del self._waiting[name]

    def close(self) -> None:
        self._greenlet.kill()
        self._producer.flush(5)
        self._consumer.close()

    def _listen(self) -> None:
        while True:
            self._producer.poll(0)
            messages: list[Any] = self._consumer.consume(500, 0)
            for message in messages:
                error = message.error()
                if error is not None:
                    if error.code() != KafkaError._PARTITION_EOF and not error.retriable():
                        raise RuntimeError(error.str())
                    continue
                came = self._waiting.get(json.loads(message.value())["id"])
                if came is not None:
                    came.set(time.perf_counter())
            gevent.sleep(0 if messages else _IDLE_S)


class KafkaUser(User):
    """Somebody who pays, and waits for what the model says."""

    payments: Payments | None = None

    def wait_time(self) -> float:
        return float(constant_throughput(self.environment.parsed_options.rate)(self))

    def on_start(self) -> None:
        options = self.environment.parsed_options
        if KafkaUser.payments is None:
            KafkaUser.payments = Payments(options.broker, options.topic, options.predictions)

    @task
    def pay(self) -> None:
        assert KafkaUser.payments is not None
        took_s, error = 0.0, None
        try:
            took_s = KafkaUser.payments.pay()
        except TimeoutError as failed:
            took_s, error = PREDICTION_S, failed
        self.environment.events.request.fire(
            request_type="KAFKA",
            name="payment to prediction",
            response_time=took_s * 1000,
            response_length=0,
            exception=error,
            context={},
        )


class FeaturesUser(FastHttpUser):
    """A service that asks for the features of some users at once."""

    host = "http://127.0.0.1:8321"

    def wait_time(self) -> float:
        return float(constant_throughput(self.environment.parsed_options.rate)(self))

    @task
    def ask(self) -> None:
        size = self.environment.parsed_options.entities
        entities = [{"user_id": f"u{random.randrange(USERS):05d}"} for _ in range(size)]
        with self.client.post("/features", json={"entities": entities}, catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"{answer.status_code}: {(answer.text or '')[:200]}")
            elif [one["entity"] for one in answer.json()["results"]] != entities:
                answer.failure("not the entities that were asked for")


@events.test_stop.add_listener  # type: ignore[untyped-decorator, unused-ignore]
def _stop(**_: Any) -> None:
    if KafkaUser.payments is not None:
        KafkaUser.payments.close()
        KafkaUser.payments = None
