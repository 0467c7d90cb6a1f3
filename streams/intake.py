"""The consumer of a worker: it alone owns group membership, offsets and rebalances, and fills the agent's channel.

A few full polls at most are in hand until they are done, so that a backlog stays in Kafka. The group subscribes to the
scored stream only; the same partitions of the other streams are assigned and released beside it, and their offsets are
committed in the same group.

The consumer lives in a thread of its own. Rebalance callbacks run in it, and hand over to the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol, TypeVar

import structlog
from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.batches import End, Poll, batch_of, by_place
from streams.errors import WeirError
from streams.kafka import REQUEST_S, Config, is_fatal
from streams.lane import Position
from streams.offsets import metadata_of
from streams.topic_ids import TopicIds

log = structlog.get_logger(__name__)

T = TypeVar("T")
_OPEN_POLLS = 3
"""Full ones, in hand at once: one is worked on, one waits, one is being read."""
_IDLE_S = 0.1
_ANSWER_S = 0.005
"""Between two looks for a commit's answer while nothing is to be read."""
_FULL_S = 0.5
_REVOKE_S = 30.0
_SEEK_TRIES = 10
_WAKE_S = 1.0  # for as long as that those threads would sleep


class Owner(Protocol):
    """Who keeps the state of the partitions. All run in the event loop."""

    def assigned(self, partitions: Sequence[int]) -> None:
        """The partitions are this worker's; it calls `Intake.start` once their state is ready."""

    async def revoked(self, partitions: Sequence[int]) -> None:
        """They move elsewhere when this returns: finish, commit, checkpoint, forget."""

    async def lost(self, partitions: Sequence[int]) -> None:
        """They are somebody else's already: forget, and commit nothing."""

    def out_of_range(self, partition: int, reason: str) -> None:
        """Where it was to be read from there is nothing: begin again."""

    def committed_late(self) -> None:
        """Kafka may have older offsets than were committed last."""

    def failed(self, error: BaseException) -> None:
        """The intake cannot go on."""


class _Command(NamedTuple):
    """Something to do in the consumer's thread; a question's answer is waited for."""

    call: Callable[[], None]
    question: bool


class _Commit(NamedTuple):
    """One that Kafka has not answered. whole: whether it is of all positions that were to be committed."""

    offsets: list[TopicPartition]
    whole: bool
    answer: Future[bool]


class Intake:
    """topics: of the streams, the scored one first. `deliver` puts a poll on the agent's channel, in the loop.

    rebalanced: told of each rebalance ("assigned", "revoked", "lost"), and for how many seconds nothing was read.
    """

    def __init__(
        self,
        config: Config,
        topics: Sequence[str],
        owner: Owner,
        deliver: Callable[[Poll], Any],
        *,
        ids: TopicIds,
        max_records: int,
        rebalanced: Callable[[str, float], None],
    ) -> None:
        # Where a position is outside of the log, the owner must know: whatever librdkafka did would lose records.
        self._config = {**config, "auto.offset.reset": "error", "on_commit": self._on_commit}
        self._ids = ids
        self._topics = list(topics)
        self._streams = {topic: s for s, topic in enumerate(topics)}
        self._owner, self._deliver, self._rebalanced = owner, deliver, rebalanced
        self._max_records = max_records
        self._commands: queue.SimpleQueue[_Command] = queue.SimpleQueue()
        self._deferred: list[Callable[[], None]] = []
        self._polled: dict[tuple[int, int], int] = {}  # the offsets after the last records that were handed over
        self._reached: dict[tuple[int, int], int] = {}  # the ends that have been read up to
        self._most_open = _OPEN_POLLS * max_records
        self._open = 0  # records of polls in hand, and ends that they tell
        self._full_since = 0.0
        self._standing_by = False
        self._asleep = False  # whether partitions may be fetched that were not
        self._halt = threading.Event()
        self._generations: dict[int, int] = {}  # of the partitions that have been started
        self._recovering: set[int] = set()
        self._lost: set[int] = set()  # while the owner is told of it
        self._commit_open: _Commit | None = None
        self._rebalancing = False  # inside a callback, from which nothing can be polled
        self._paused: set[tuple[int, int]] = set()  # (stream, partition) whose merge buffer is full
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def connect(self) -> None:
        """Looks for the group's coordinator, which takes its time; joins nothing yet."""
        self._consumer = Consumer(self._config)

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Joins the group. `connect` comes before."""
        self._loop = loop
        self._thread.start()

    async def stop(self) -> None:
        """Leaves the group: partitions are revoked in the ordinary way."""
        self._halt.set()
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def start(self, partition: int, offsets: Sequence[int], generation: int) -> None:
        """Reads the partition from `offsets` (one a stream); its batches carry `generation`."""
        self._order(lambda: self._start(partition, offsets, generation))

    def recovered(self, partition: int) -> None:
        """The ends of the partition's streams need not be told any more."""
        self._order(lambda: self._recovering.discard(partition))

    def hold(self, stream: int, partition: int) -> None:
        """Stops reading one stream of a partition for a while: it is far ahead of the others."""
        self._order(lambda: self._hold(stream, partition))

    def go_on(self, stream: int, partition: int) -> None:
        """Ends `hold`."""
        self._order(lambda: self._go_on(stream, partition))

    def done(self, poll: Poll) -> None:
        """One poll, or several in one, has been dealt with: there is room again."""
        size = poll.size
        self._order(lambda: self._close(size))

    async def commit(self, positions: Mapping[tuple[int, int], Position]) -> bool:
        """Commits by (stream, partition); False where some are not this worker's any more. Raises KafkaException.

        Reading goes on meanwhile.
        """
        answer: Future[bool] = Future()
        self._commands.put(_Command(lambda: self._commit(positions, answer), question=True))
        return await asyncio.wrap_future(answer)

    async def offsets_and_group(
        self, positions: Mapping[tuple[int, int], Position]
    ) -> tuple[list[TopicPartition], Any]:
        """What a transaction commits: the offsets, and the membership of now, by which a zombie is fenced."""
        return self._offsets(positions), await self._in_thread(self._consumer.consumer_group_metadata)

    async def ends(self, partitions: Sequence[int]) -> dict[tuple[int, int], int]:
        """By (stream, partition), the offset at which all that is there will have been worked off.

        That is the end as last heard, and once it has been read up to, the offset after the last record: a topic that
        is written in transactions ends in a marker. Nothing of those whose end has not been heard since they began.
        """
        return await self._in_thread(lambda: self._ends(partitions))

    async def done_up_to(self, partition: int, end: int) -> bool:
        """Whether all of the scored stream's partition below `end` has been read, and every poll is dealt with."""
        return await self._in_thread(lambda: not self._open and self._reached.get((0, partition)) == end)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        """Runs `call` in the consumer's thread: a consumer that is being polled lets no other thread in."""
        answer: Future[T] = Future()

        def run() -> None:
            if not answer.set_running_or_notify_cancel():
                return  # who asked was cancelled
            try:
                answer.set_result(call())
            except BaseException as error:
                answer.set_exception(error)

        self._commands.put(_Command(run, question=True))
        return await asyncio.wrap_future(answer)

    # In the thread.

    def _run(self) -> None:
        try:
            self._consumer.subscribe(
                self._topics[:1], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            while not self._halt.is_set():
                self._serve(0 if self._has_room else _ANSWER_S if self._commit_open is not None else _IDLE_S)
                if self._asleep:
                    self._wake()
                if self._has_room:
                    self._read(_IDLE_S, self._max_records)
                elif time.monotonic() - self._full_since > _FULL_S:
                    self._stand_by()
                elif self._commit_open is not None:
                    self._read(0, 1)  # its answer comes before any record
            self._consumer.close()
        except BaseException as error:
            if self._commit_open is not None:
                self._commit_open.answer.set_exception(error)
            self._loop.call_soon_threadsafe(self._owner.failed, error)

    def _read(self, wait_s: float, most: int) -> None:
        first = self._consumer.poll(wait_s)
        if first is None:
            return
        # What has been fetched by now comes along; waiting for more would only add latency.
        rest = self._consumer.consume(most - 1, 0) if most > 1 else []
        poll = self._poll([first, *rest], time.monotonic_ns())
        if poll.batches or poll.ends:
            self._open += poll.size
            self._full_since = time.monotonic()
            self._loop.call_soon_threadsafe(self._deliver, poll)

    def _stand_by(self) -> None:
        """The agent is held up (by the store, say): answer the group, and read no further."""
        self._standing_by = True
        self._consumer.pause(self._consumer.assignment())
        while not self._halt.is_set() and not self._has_room:
            self._serve(0)
            self._read(_IDLE_S, self._max_records)  # rebalances; a record that was on its way is taken above the bound
        self._standing_by = False
        self._consumer.resume(self._readable())
        self._asleep = True

    def _wake(self) -> None:
        """librdkafka lets partitions go on without waking the threads that fetch them, which sleep for up to a second
        where they had none left. An answer of their brokers wakes them: one request a broker.
        """
        self._asleep = False
        if self._halt.is_set():  # a consumer that is being closed may never answer
            return
        with contextlib.suppress(KafkaException):  # no broker answers
            if read := [TopicPartition(t.topic, t.partition, OFFSET_END) for t in self._consumer.assignment()]:
                self._consumer.offsets_for_times(read, timeout=_WAKE_S)

    def _poll(self, messages: list[Message], polled_ns: int) -> Poll:
        ends: list[End] = []
        if any(map(Message.error, messages)):
            for message in messages:
                if (error := message.error()) is not None:
                    self._on_error(message, error, ends)
            messages = [message for message in messages if message.error() is None]
        batches = [
            batch_of(stream, partition, group, polled_ns, self._generations[partition])
            for (stream, partition), group in by_place(messages, self._streams).items()
            if partition in self._generations  # a poll may run a rebalance inside, and still return what has gone
        ]
        for batch in batches:
            self._polled[batch.stream, batch.partition] = batch.next_offset
        return Poll(batches, ends)

    def _on_error(self, message: Message, error: KafkaError, ends: list[End]) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            stream, partition = self._streams[str(message.topic())], int(message.partition() or 0)
            self._reached[stream, partition] = int(message.offset() or 0)
            if partition in self._recovering and partition in self._generations:
                ends.append(End(stream, partition, int(message.offset() or 0), self._generations[partition]))
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            partition = int(message.partition() or 0)
            if partition in self._generations:
                self._loop.call_soon_threadsafe(self._owner.out_of_range, partition, error.str())
        elif is_fatal(error):  # of the client: it has no topic
            raise KafkaException(error)
        else:
            log.warning("kafka error", topic=message.topic(), partition=message.partition(), error=error.str())

    @property
    def _has_room(self) -> bool:
        return self._open < self._most_open

    def _close(self, size: int) -> None:
        self._open -= size

    def _serve(self, wait_s: float) -> None:
        """Runs the commands that are there; waits for one if there is none."""
        deferred, self._deferred = self._deferred, []
        for call in deferred:
            call()
        try:
            (self._commands.get(timeout=wait_s) if wait_s else self._commands.get_nowait()).call()
            while True:
                self._commands.get_nowait().call()
        except queue.Empty:
            return

    def _answer(self, wait_s: float) -> None:
        """Answers a question, inside a poll. Orders wait: none may begin a partition anew while a poll is under way,
        whose records in hand would be taken for those of the new beginning.
        """
        with contextlib.suppress(queue.Empty):
            command = self._commands.get(timeout=wait_s)
            if command.question:
                command.call()
            else:
                self._deferred.append(command.call)

    def _order(self, call: Callable[[], None]) -> None:
        self._commands.put(_Command(call, question=False))

    def _commit(self, positions: Mapping[tuple[int, int], Position], answer: Future[bool]) -> None:
        if not answer.set_running_or_notify_cancel():
            return  # who asked was cancelled
        try:
            self._settle()  # that of one who was cancelled since
            held = self._held()
            mine = {at: position for at, position in positions.items() if at[1] in held}
            self._commit_open = _Commit(self._offsets(mine), len(mine) == len(positions), answer)
            if self._rebalancing or not mine:
                self._settle()
            else:
                self._consumer.commit(offsets=self._commit_open.offsets, asynchronous=True)
        except BaseException as error:
            self._commit_open = None
            answer.set_exception(error)

    def _settle(self) -> None:
        """Waits for the commit that is open, if one is. It is made once more, for its answer would come with a poll:
        of what is held now.
        """
        if self._commit_open is None:
            return
        (offsets, whole, answer), self._commit_open = self._commit_open, None
        try:
            held = self._held()
            still = [t for t in offsets if t.partition in held]
            for result in self._consumer.commit(offsets=still, asynchronous=False) if still else ():
                if result.error is not None:
                    raise KafkaException(result.error)
        except BaseException as error:  # that of who asked for it
            answer.set_exception(error)
        else:
            answer.set_result(whole and len(still) == len(offsets))

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """Called inside a poll. One that was settled before is answered all the same: it may have come to Kafka behind
        newer offsets, where its coordinator was asked again.
        """
        if self._commit_open is None or _named(self._commit_open.offsets) != _named(partitions):
            self._loop.call_soon_threadsafe(self._owner.committed_late)
            return
        (_, whole, answer), self._commit_open = self._commit_open, None
        found = next((t.error for t in partitions if t.error is not None), error)
        if found is None:
            answer.set_result(whole)
        else:
            answer.set_exception(KafkaException(found))

    def _held(self) -> set[int]:
        """Partitions may have been lost since: a commit of theirs would get this member fenced for good."""
        return {t.partition for t in self._consumer.assignment()} - self._lost

    def _offsets(self, positions: Mapping[tuple[int, int], Position]) -> list[TopicPartition]:
        return [
            TopicPartition(
                topic := self._topics[stream], partition, position.next_offset, metadata_of(position, self._ids[topic])
            )
            for (stream, partition), position in positions.items()
        ]

    def _ends(self, partitions: Sequence[int]) -> dict[tuple[int, int], int]:
        found = {}
        for stream, topic in enumerate(self._topics):
            for partition in self._generations.keys() & partitions:
                try:
                    _, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
                except KafkaException:
                    continue
                at = stream, partition
                polled = self._polled[at]
                if high >= max(polled, 0):  # else it is not known, or was heard before others had the partition
                    found[at] = polled if self._reached.get(at) == high else high
        return found

    def _start(self, partition: int, offsets: Sequence[int], generation: int) -> None:
        owned = {(t.topic, t.partition) for t in self._consumer.assignment()}
        if (self._topics[0], partition) not in owned:
            return  # it has gone meanwhile; the owner was told
        self._generations[partition] = generation
        self._recovering.add(partition)
        for stream, (topic, offset) in enumerate(zip(self._topics, offsets, strict=True)):
            self._polled[stream, partition] = offset
            self._reached.pop((stream, partition), None)
            self._seek(TopicPartition(topic, partition, offset))
        if not self._standing_by:
            self._consumer.resume(self._everywhere([partition]))
            self._asleep = True

    def _seek(self, to: TopicPartition) -> None:
        for _ in range(_SEEK_TRIES):
            try:
                self._consumer.seek(to)
            except KafkaException as error:
                if error.args[0].code() != KafkaError._STATE:
                    raise
                time.sleep(0.02)  # it is being opened or closed just now
            else:
                return
        # librdkafka has stopped it: its last position was outside of the log.
        self._consumer.incremental_unassign([to])
        self._consumer.incremental_assign([to])
        self._consumer.pause([to])

    def _hold(self, stream: int, partition: int) -> None:
        if partition in self._generations:
            self._paused.add((stream, partition))
            self._consumer.pause([TopicPartition(self._topics[stream], partition)])

    def _go_on(self, stream: int, partition: int) -> None:
        if (stream, partition) in self._paused:
            self._paused.discard((stream, partition))
            if not self._standing_by:
                self._consumer.resume([TopicPartition(self._topics[stream], partition)])

    def _everywhere(self, partitions: Sequence[int]) -> list[TopicPartition]:
        return [TopicPartition(topic, p) for p in partitions for topic in self._topics]

    def _readable(self) -> list[TopicPartition]:
        return [
            TopicPartition(topic, p)
            for p in self._generations
            for s, topic in enumerate(self._topics)
            if (s, p) not in self._paused
        ]

    # Rebalances, in the thread too.

    def _on_assign(self, consumer: Consumer, assigned: list[TopicPartition]) -> None:
        with self._timed("assigned"):
            self._take(consumer, [t.partition for t in assigned])

    def _take(self, consumer: Consumer, partitions: Sequence[int]) -> None:
        if not partitions:
            consumer.incremental_assign([])
            return
        for topic in self._topics[1:]:
            # Topics outside the subscription start two seconds late unless their metadata is known by now. It comes
            # with this answer; `list_topics`, called inside a callback, would have the next callback end the process.
            with contextlib.suppress(KafkaException):
                consumer.get_watermark_offsets(TopicPartition(topic, partitions[0]), timeout=REQUEST_S)
        # Nothing is read until the owner has the state: `start` seeks to where that begins.
        consumer.incremental_assign([TopicPartition(t.topic, t.partition, 0) for t in self._everywhere(partitions)])
        consumer.pause(self._everywhere(partitions))
        self._loop.call_soon_threadsafe(self._owner.assigned, partitions)

    def _on_revoke(self, consumer: Consumer, revoked: list[TopicPartition]) -> None:
        with self._timed("revoked"):
            partitions = [t.partition for t in revoked]
            self._ask_owner(self._owner.revoked, partitions)
            self._release(consumer, partitions)

    def _on_lost(self, consumer: Consumer, lost: list[TopicPartition]) -> None:
        with self._timed("lost"):
            partitions = [t.partition for t in lost]
            self._lost = set(partitions)
            self._ask_owner(self._owner.lost, partitions)
            self._release(consumer, partitions)
            self._lost = set()

    @contextlib.contextmanager
    def _timed(self, event: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._wake()  # all partitions, also those that stay, stood still until the answer to this
        self._rebalanced(event, time.perf_counter() - began)

    def _ask_owner(self, ask: Callable[[Sequence[int]], Any], partitions: Sequence[int]) -> None:
        for partition in partitions:
            self._generations.pop(partition, None)
            self._recovering.discard(partition)
        self._paused = {(s, p) for s, p in self._paused if p not in partitions}
        self._rebalancing = True
        self._settle()
        answer = asyncio.run_coroutine_threadsafe(ask(partitions), self._loop)
        until = time.monotonic() + _REVOKE_S
        while not answer.done() and time.monotonic() < until:
            self._answer(0.01)  # the owner commits through this thread
        self._rebalancing = False
        try:
            answer.result(0)
        except TimeoutError:
            raise WeirError(f"partitions {partitions} could not be given up in {_REVOKE_S:.0f} s") from None

    def _release(self, consumer: Consumer, partitions: Sequence[int]) -> None:
        consumer.incremental_unassign(self._everywhere(partitions))


def _named(offsets: Sequence[TopicPartition]) -> set[tuple[str, int, int]]:
    return {(t.topic, t.partition, t.offset) for t in offsets}
