"""Questions about offsets, asked by a consumer that never joins the group, in a thread of its own.

The one that polls must not wait for the answers: Kafka gives the committed offsets of a partition only when the
transaction of its last owner has ended, which can take ten seconds after a crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from confluent_kafka import Consumer, KafkaException, TopicPartition

from streams.kafka import Config
from streams.lane import Position

T = TypeVar("T")
_REQUEST_S = 10.0
_LEADER_S = 3.0
_METADATA_S = 5.0
_METADATA = re.compile(r"weir (-?\d+) (-?\d+)")


class Offsets:
    """topics: of the streams. Every question may raise KafkaException: ask again."""

    def __init__(self, config: Config, topics: Sequence[str]) -> None:
        dynamic = {name: value for name, value in config.items() if name != "group.instance.id"}
        self._consumer = Consumer(dynamic)
        self._topics = list(topics)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="offsets")

    async def committed(self, partition: int) -> list[Position]:
        """What is committed, by stream; where nothing is, the oldest offset there is."""
        return await self._ask(lambda: self._committed(partition))

    async def bounds(self, partition: int) -> tuple[list[int], list[int]]:
        """The oldest offset that Kafka has, and the one after its newest, by stream."""
        found = await self._ask(lambda: [self._bounds(topic, partition) for topic in self._topics])
        return [low for low, _ in found], [high for _, high in found]

    async def since(self, partition: int, times: Sequence[int]) -> list[int]:
        """The first offset of each stream with a record timestamp from `times` (ms); -1 where the broker cannot say."""
        wanted = [TopicPartition(topic, partition, t) for topic, t in zip(self._topics, times, strict=True)]
        return await self._ask(lambda: self._since(wanted))

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._consumer.close)

    async def _ask(self, question: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, question)

    def _committed(self, partition: int) -> list[Position]:
        wanted = [TopicPartition(topic, partition) for topic in self._topics]
        return [self._position(found) for found in self._consumer.committed(wanted, timeout=_REQUEST_S)]

    def _position(self, committed: TopicPartition) -> Position:
        if committed.error is not None:
            raise KafkaException(committed.error)
        if committed.offset < 0:
            return Position(self._bounds(committed.topic, committed.partition)[0])
        found = _METADATA.fullmatch(committed.metadata or "")
        return Position(committed.offset, *map(int, found.groups())) if found else Position(committed.offset)

    def _bounds(self, topic: str, partition: int) -> tuple[int, int]:
        with self._of_leader(topic):
            low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_LEADER_S)
        return int(low), int(high)

    def _since(self, wanted: Sequence[TopicPartition]) -> list[int]:
        with self._of_leader(*self._topics):
            return [int(t.offset) for t in self._consumer.offsets_for_times(list(wanted), timeout=_LEADER_S)]

    @contextlib.contextmanager
    def _of_leader(self, *topics: str) -> Iterator[None]:
        """A question to the leader of a partition; where it fails, the next one asks first who leads now.

        librdkafka learns that from fetching, which this consumer never does: it would ask a dead broker for minutes.
        """
        try:
            yield
        except KafkaException:
            for topic in topics:
                with contextlib.suppress(KafkaException):
                    self._consumer.list_topics(topic, timeout=_METADATA_S)
            raise


def metadata_of(position: Position) -> str:
    """What is committed beside an offset: without the watermark the order after a restart would not be the same."""
    return f"weir {position.watermark} {position.time}"
