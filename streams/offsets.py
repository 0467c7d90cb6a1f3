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

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from streams.kafka import REQUEST_S, Config
from streams.lane import Position
from streams.topic_ids import TopicIds

log = structlog.get_logger(__name__)

T = TypeVar("T")
_LEADER_S = 3.0
_METADATA_S = 5.0
_METADATA = re.compile(r"weir (-?\d+) (-?\d+)(?: (\S+))?")


class Offsets:
    """topics: of the streams. Every question may raise KafkaException: ask again."""

    def __init__(self, config: Config, topics: Sequence[str], ids: TopicIds) -> None:
        dynamic = {name: value for name, value in config.items() if name != "group.instance.id"}
        self._consumer = Consumer(dynamic)
        self._topics, self._ids = list(topics), ids
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="offsets")

    async def committed(self, partition: int) -> list[Position]:
        """What is committed, by stream; where nothing is, the oldest offset there is."""
        return await self._ask(lambda: self._committed(partition))

    async def bounds(self, partition: int) -> tuple[list[int], list[int]]:
        """The oldest offset that Kafka has, and the one after its newest, by stream."""
        found = await self._ask(lambda: [self._bounds(topic, partition) for topic in self._topics])
        return [low for low, _ in found], [high for _, high in found]

    async def another_topic(self) -> str:
        """The topic that was deleted and made again since this worker began; empty if none was."""
        return await self._ask(self._ids.changed)

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
        return [self._position(found) for found in self._consumer.committed(wanted, timeout=REQUEST_S)]

    def _position(self, committed: TopicPartition) -> Position:
        if committed.error is not None:
            raise KafkaException(committed.error)
        if committed.offset < 0:
            return self._first(committed)
        found = _METADATA.fullmatch(committed.metadata or "")
        if found is None:
            return Position(committed.offset)
        watermark, time, topic_id = found.groups()
        if topic_id and self._ids[committed.topic] not in ("", topic_id):
            log.warning(
                "the topic was deleted and made again since its offset was committed: it is read from its beginning",
                topic=committed.topic,
                partition=committed.partition,
                committed=committed.offset,
            )
            return self._first(committed)
        return Position(committed.offset, int(watermark), int(time))

    def _first(self, of: TopicPartition) -> Position:
        return Position(self._bounds(of.topic, of.partition)[0])

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


def metadata_of(position: Position, topic_id: str) -> str:
    """What is committed beside an offset: the watermark, without which the order after a restart would not be the same,
    and which topic it is of.
    """
    return f"weir {position.watermark} {position.time} {topic_id}".rstrip()
