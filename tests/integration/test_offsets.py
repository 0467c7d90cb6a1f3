"""Questions about offsets, asked of brokers of which one has died."""

from __future__ import annotations

import time
from pathlib import Path

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from loadtest.kafka import KafkaCluster
from streams.offsets import Offsets
from streams.topic_ids import TopicIds

PARTITIONS = 6


async def test_the_bounds_of_a_partition_whose_leader_died_are_those_of_its_new_leader(tmp_path: Path) -> None:
    with KafkaCluster(tmp_path, brokers=3) as cluster:
        cluster.create_topics("t", partitions=PARTITIONS)
        producer = Producer({"bootstrap.servers": cluster.address, "log_level": 0})
        for i in range(10 * PARTITIONS):
            producer.produce("t", b"x", partition=i % PARTITIONS)
        producer.flush()
        config = {"bootstrap.servers": cluster.address, "group.id": "g", "log_level": 0}
        offsets = Offsets(config, ["t"], TopicIds(None, []))
        for partition in range(PARTITIONS):
            assert await offsets.bounds(partition) == ([0], [10])
        admin = AdminClient({"bootstrap.servers": cluster.address, "log_level": 0})
        leaders = {p: found.leader for p, found in admin.list_topics(timeout=10).topics["t"].partitions.items()}
        cluster.kill(leaders[0])
        until = time.monotonic() + 30
        while True:
            try:
                assert await offsets.bounds(0) == ([0], [10])
                break
            except KafkaException:
                assert time.monotonic() < until, "nobody asked who leads the partition now"
        assert await offsets.since(0, [0]) == [0]
        await offsets.close()
