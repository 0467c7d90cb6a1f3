"""Notes when each prediction could first be read, by the number in its id, from an isolated consumer's view."""

from __future__ import annotations

import argparse
import gc
import time

import numpy as np
from confluent_kafka import Consumer, KafkaException, TopicPartition

from loadtest.child import say
from streams.errors import WeirError

_ID = np.dtype([("before", "S8"), ("number", "S8")])
_BEFORE = b'{"id":"p'
_POLL_S = 0.2
_MOST = 10_000


def numbers(values: list[bytes]) -> np.ndarray:
    """int64 [n]: the number of each prediction's payment, read where every system writes it: `{"id":"p00000042"`.

    Raises WeirError for a value that begins otherwise.
    """
    heads = np.frombuffer(b"".join([value[:16].ljust(16) for value in values]), _ID)
    if (heads["before"] != _BEFORE).any():
        raise WeirError(f"not a payment's prediction: {values[int(np.argmax(heads['before'] != _BEFORE))][:80]!r}")
    return heads["number"].astype(np.int64)


class Arrivals:
    """Seconds (monotonic) at which each of `total` predictions first came, NaN until then."""

    def __init__(self, total: int) -> None:
        self.times_s = np.full(total, np.nan)
        self.received = self.duplicates = 0

    def add(self, found: np.ndarray, now_s: float) -> None:
        """`found`: int64 [n], numbers of predictions that came by `now_s`."""
        new = np.unique(found[np.isnan(self.times_s[found])])
        self.times_s[new] = now_s
        self.received += len(new)
        self.duplicates += len(found) - len(new)


def consumer_at_end(broker: str, topic: str) -> Consumer:
    """Reads committed records of all partitions of `topic`, from here on."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": "bench-receiver",  # commits nothing: the group is a name only
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.queue.backoff.ms": 2,
        }
    )
    found = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    ends = [
        TopicPartition(topic, p, consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1]) for p in found
    ]
    consumer.assign(ends)
    return consumer


def receive(consumer: Consumer, arrivals: Arrivals, until: int, idle_s: float) -> None:
    """Until `until` predictions have come, or none for `idle_s`."""
    last_s = time.monotonic()
    while arrivals.received < until and time.monotonic() - last_s < idle_s:
        first = consumer.poll(_POLL_S)
        if first is None:
            continue
        messages = [first, *consumer.consume(_MOST, 0)]
        now_s = last_s = time.monotonic()
        arrivals.add(numbers([_value(message) for message in messages]), now_s)


def _value(message: object) -> bytes:
    if (error := message.error()) is not None:  # type: ignore[attr-defined]
        raise KafkaException(error)
    value: bytes = message.value()  # type: ignore[attr-defined]
    return value


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--probes", type=int, required=True, help="predictions that show that the system is up")
    parser.add_argument("--records", type=int, required=True, help="predictions to come after those")
    parser.add_argument("--expected", type=int, required=True, help="how many of those can come: not the spoilt ones")
    parser.add_argument("--idle-s", type=float, required=True, help="silence after which the rest counts as lost")
    parser.add_argument("--start-s", type=float, required=True, help="silence before the first probe")
    parser.add_argument("--out", required=True, help="where the arrivals go: .npy, float64 [probes + records]")
    given = parser.parse_args()
    arrivals = Arrivals(given.probes + given.records)
    consumer = consumer_at_end(given.broker, given.topic)
    gc.collect()
    gc.disable()  # its pauses would be ours, not the system's
    say(ready=True)
    receive(consumer, arrivals, given.probes, given.start_s)
    say(probes=arrivals.received)
    receive(consumer, arrivals, given.probes + given.expected, given.idle_s)
    np.save(given.out, arrivals.times_s)
    say(received=arrivals.received, duplicates=arrivals.duplicates)
    consumer.close()


if __name__ == "__main__":
    main()
