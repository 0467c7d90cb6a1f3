"""A member of a real group, in a process of its own: what a rebalance does in it must not end it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from confluent_kafka import Consumer

from loadtest.kafka import KafkaCluster

pytestmark = pytest.mark.integration

MEMBER = """
import asyncio, sys
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
    async def revoked(self, partitions): print("given up", *sorted(partitions))
    async def lost(self, partitions): ...
    def out_of_range(self, partition, reason): ...
    def failed(self, error):
        print("failed:", error.args[0].str())
        self.done.set()

async def main():
    owner, settings = Owner(), load_settings(broker=broker)
    base = client_config(settings, broker, "member", print)
    # librdkafka's own lines are callbacks too: some follow the assignment within the same poll.
    config = {**consumer_config(settings, base, topics[0], instance), "debug": "cgrp"}
    ids = TopicIds(None, topics)
    intake = Intake(config, topics, owner, print, ids=ids, max_records=10, rebalanced=lambda event, took_s: None)
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
