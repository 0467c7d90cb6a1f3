"""Which partition a key is in: what Kafka's clients compute, so that a reader asks one partition only."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Literal

Partitioner = Literal["crc32", "murmur2"]


def partition_of(key: bytes, partitions: int, partitioner: Partitioner) -> int:
    """The partition of `key` among `partitions`. An empty or null key has none: clients choose one at random.

    >>> partition_of(b"user-1", 12, "crc32"), partition_of(b"user-1", 12, "murmur2")
    (8, 8)
    """
    return _HASHES[partitioner](key) % partitions


def partitions_of(keys: Iterable[str], partitions: int, partitioner: Partitioner) -> list[int]:
    """Those of many key texts."""
    of = _HASHES[partitioner]
    return [of(key.encode("utf-8", "surrogatepass")) % partitions for key in keys]


def murmur2(key: bytes) -> int:
    """Kafka's murmur2 (seed 0x9747b28c) of the Java client, unsigned 32 bits.

    Source: org.apache.kafka.common.utils.Utils.murmur2.
    """
    mask, multiplier = 0xFFFFFFFF, 0x5BD1E995
    length = len(key)
    value = 0x9747B28C ^ length
    whole = length - length % 4
    for start in range(0, whole, 4):
        word = int.from_bytes(key[start : start + 4], "little") * multiplier & mask
        word = (word ^ word >> 24) * multiplier & mask
        value = (value * multiplier & mask) ^ word
    if whole < length:
        value = (value ^ int.from_bytes(key[whole:], "little")) * multiplier & mask
    value = (value ^ value >> 13) * multiplier & mask
    return value ^ value >> 15


def _positive_murmur2(key: bytes) -> int:
    return murmur2(key) & 0x7FFFFFFF


_HASHES: dict[str, Callable[[bytes], int]] = {"crc32": zlib.crc32, "murmur2": _positive_murmur2}
