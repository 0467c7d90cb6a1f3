"""A member of a real group, in a process of its own: what a rebalance does in it must not end it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from statistics import median

import pytest
from confluent_kafka import Consumer, Producer

from loadtest.kafka import KafkaCluster

pytestmark = pytest.mark.integration

MEMBER = """
import asyncio, sys, time
from streams.intake import Intake
from streams.kafka import client_config, consumer_config
from streams.settings import load_settings
from streams.topic_ids import TopicIds

broker, instance, *topics = sys.argv[1:]

class Owner:
    def __init__(self): self.done = asyncio.Event()
    def assigned(self, partitions):
        print("has", *sorted(partitions), flush=True)
        if not instance: self.done.set()
        for partition in partitions: intake.start(partition, [0] * len(topics), 1)
    async def revoked(self, partitions): print("given up", *sorted(partitions))
    async def lost(self, partitions): ...
    def out_of_range(self, partition, reason): ...
    def committed_late(self): ...
    def failed(self, error):
        print("failed:", error.args[0].str())
        self.done.set()

def deliver(poll):
    for batch in poll.batches: print("read", batch.partition, time.time(), flush=True)
    intake.done(poll)

async def main():
    global intake
    owner, settings = Owner(), load_settings(broker=broker)
    base = client_config(settings, broker, "member", print)
    # librdkafka's own lines are callbacks too: some follow the assignment within the same poll.
    config = {**consumer_config(settings, base, topics[0], instance), "debug": "cgrp"}
    ids = TopicIds(None, topics)
    intake = Intake(config, topics, owner, deliver, ids=ids, max_records=10, rebalanced=lambda event, took_s: None)
    intake.connect()
    intake.begin(asyncio.get_running_loop())
    await owner.done.wait()
    await intake.stop()

asyncio.run(asyncio.wait_for(main(), 60))
"""


def test_a_member_with_two_streams_takes_partitions_and_gives_them_up(kafka: KafkaCluster) -> None:
    topics = ("rebalance-a", "rebalance-b")
    kafka.create_topics(*topics, partitions=2)
    command = [sys.executable, "-c", MEMBER, kafka.address, "", *topics]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stdout) == (0, "has 0 1\ngiven up 0 1\n"), done.stderr[-2000:]


def test_a_member_whose_name_another_one_takes_fails_and_does_not_sit_idle(kafka: KafkaCluster) -> None:
    topic = "rebalance-name"
    kafka.create_topics(topic, partitions=2)
    command = [sys.executable, "-c", MEMBER, kafka.address, "one", topic]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as member:
        assert member.stdout is not None
        assert member.stdout.readline() == "has 0 1\n"
        settings = {"bootstrap.servers": kafka.address, "group.id": topic, "group.instance.id": "one"}
        other = Consumer({**settings, "partition.assignment.strategy": "cooperative-sticky"})
        other.subscribe([topic])
        while member.poll() is None:
            other.poll(0.1)
        said = member.stdout.read()
        other.close()
    assert "failed: " in said
    assert "fenced" in said


def test_partitions_that_stay_are_read_on_while_another_member_joins(kafka: KafkaCluster) -> None:
    """librdkafka pauses all of them for its callback, and left alone it fetches nothing for up to a second after it."""
    topic = "rebalance-stays"
    kafka.create_topics(topic, partitions=2)
    command = [sys.executable, "-c", MEMBER, kafka.address, "stays", topic]
    moved: list[float] = []
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as member,
        _sending(kafka.address, topic),
    ):
        assert member.stdout is not None
        said: list[str] = []
        reader = threading.Thread(target=lambda: said.extend(member.stdout or ()), daemon=True)
        reader.start()
        while not said or not said[-1].startswith("read"):
            assert member.poll() is None
            time.sleep(0.1)
        for _ in range(5):
            other = Consumer(
                {
                    "bootstrap.servers": kafka.address,
                    "group.id": topic,
                    "partition.assignment.strategy": "cooperative-sticky",
                    "auto.offset.reset": "latest",
                }
            )
            other.subscribe([topic])
            while not other.assignment():
                other.poll(0.1)
            moved.append(time.time())
            other.close()
            time.sleep(2.0)
        member.kill()
        reader.join(30)
    read = [(int(p), float(at)) for _, p, at in (line.split() for line in said if line.startswith("read "))]
    assert {p for p, _ in read} == {0, 1}
    times = sorted(at for _, at in read)
    stood = [max(b - a for a, b in pairwise(times) if b > at - 2.5 and a < at) for at in moved]
    assert median(stood) < 0.8, stood  # left alone: a second, each time; a busy machine makes some of them longer


@contextmanager
def _sending(broker: str, topic: str) -> Iterator[None]:
    """A record to each of two partitions, every 20 ms."""
    producer, halt = Producer({"bootstrap.servers": broker, "linger.ms": 0}), threading.Event()

    def send() -> None:
        while not halt.wait(0.02):
            for partition in (0, 1):
                producer.produce(topic, b"", partition=partition)
            producer.poll(0)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        halt.set()
        thread.join()
        producer.flush(10)
