"""Partitions as Kafka's clients compute them."""

from __future__ import annotations

import pytest
from confluent_kafka import Message, Producer

from features.partitioner import Partitioner, murmur2, partition_of

KEYS = [f"user-{n}".encode() for n in range(500)] + [
    b"EWR",
    "Zürich 東京".encode(),
    b"\x00\xff",
    b"k" * 10_000,
]


@pytest.mark.parametrize(
    ("key", "signed"),  # from Kafka's own UtilsTest.testMurmur2
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_javas(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed % 2**32


def test_crc32_is_the_usual_one() -> None:
    assert partition_of(b"123456789", 2**32, "crc32") == 0xCBF43926


@pytest.mark.parametrize(
    ("partitioner", "setting"),
    [("crc32", "consistent_random"), ("crc32", "consistent"), ("murmur2", "murmur2_random")],
)
def test_keys_are_where_librdkafka_puts_them(partitioner: Partitioner, setting: str) -> None:
    """On librdkafka's mock cluster, whose topics have four partitions."""
    found: dict[bytes | None, int | None] = {}

    def delivered(error: object, message: Message) -> None:
        assert error is None
        found[message.key()] = message.partition()

    producer = Producer(
        {
            "bootstrap.servers": "unused",
            "test.mock.num.brokers": 1,
            "partitioner": setting,
            "log_level": 0,
        }
    )
    for key in KEYS:
        producer.produce("payments", key=key, value=b"", on_delivery=delivered)
    assert producer.flush(20) == 0
    assert found == {key: partition_of(key, 4, partitioner) for key in KEYS}


def test_confluent_kafkas_default_is_crc32() -> None:
    found: list[int | None] = []
    producer = Producer({"bootstrap.servers": "unused", "test.mock.num.brokers": 1, "log_level": 0})
    for key in KEYS[:50]:
        producer.produce(
            "payments", key=key, value=b"", on_delivery=lambda _, message: found.append(message.partition())
        )
    assert producer.flush(20) == 0
    assert sorted(p for p in found if p is not None) == sorted(partition_of(k, 4, "crc32") for k in KEYS[:50])
