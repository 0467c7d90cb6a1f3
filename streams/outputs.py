"""Where predictions and dead letters go: produced without waiting, delivered before their offsets are committed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from streams.alerts import Alerts
from streams.decoded import DeadLetter
from streams.errors import WeirError
from streams.kafka import MAX_OUTPUT_BYTES, Config
from streams.pipeline import Pipeline
from streams.rounds import ScoredRows

_NOW = 0
"""In place of a timestamp."""

_HEADER_ROOM = 4096
_FULL = 0.5
_MOST_KEPT = 32_768
"""Records that are kept while a commit is under way: a fifth of a second at the highest rate."""


class OutputFailed(WeirError):
    """Kafka refused a record for good: its offset may not be committed, so the process must end and start again."""


class Outputs:
    """An idempotent producer for one pipeline. `send`, `send_dead` and `forward` never wait; `flush` does.

    Between `hold` and `release` what is sent is kept: it belongs to the next commit, and the one that is under way must
    not wait for it. largest_dead_letter: bytes of a record that the dead-letter topic takes.
    """

    def __init__(self, pipeline: Pipeline, config: Config, largest_dead_letter: int = MAX_OUTPUT_BYTES) -> None:
        self._predictions = pipeline.topics.predictions
        self._dead_letters = pipeline.topics.dead_letters
        self._alerts = Alerts(pipeline.name, pipeline.topics.alerts, config)
        self._topics = [source.topic for source in pipeline.sources]
        self._failed: list[str] = []
        self._dropped: Exception | None = None  # why what was kept was not sent
        self._held: list[Callable[[], None]] | None = None  # None = nothing is held
        self._kept = 0  # records in it
        self._limit = int(config["queue.buffering.max.messages"] * _FULL)
        self._room = max(0, min(largest_dead_letter, MAX_OUTPUT_BYTES) - _HEADER_ROOM)
        self._config = config
        self._producer = self._new_producer()

    def start(self) -> None:
        """Readies the producer. Blocks."""

    def has_room(self, records: int) -> bool:
        """Whether `records` more fit the producer's queue and, while outputs are held, what may be kept, which a first
        round always does; wait before `send` while it is false.
        """
        kept = self._kept + records
        return len(self._producer) + kept <= self._limit and (not self._kept or kept <= _MOST_KEPT)

    def hold(self) -> None:
        """From here on what is sent is kept, until `release` or `drop`."""
        self._held = []

    def release(self) -> None:
        """Sends what was kept, in its order, if anything is held. Raises what `send` raises."""
        held, self._held, self._kept = self._held or (), None, 0
        for call in held:
            call()

    def drop(self, error: BaseException) -> None:
        """The commit failed for good: what was kept is not sent, nor is anything until all has begun again."""
        self._dropped = error if isinstance(error, Exception) else OutputFailed("a commit was broken off")
        self._held, self._kept = None, 0

    def then(self, call: Callable[[], None]) -> None:
        """Calls `call` once all that was sent so far is the producer's: at once, where nothing is held."""
        self._hand_over(call, 0)

    def _hand_over(self, call: Callable[[], None], records: int) -> None:
        self._check()
        if self._held is None:
            call()
        else:
            self._held.append(call)
            self._kept += records

    def send(self, rows: ScoredRows, values: Sequence[bytes], traces: Sequence[bytes | None] | None) -> None:
        """Predictions in the partitions and with the keys of their events; `traces`: traceparent headers [n]."""
        if not len(values) == len(rows) == len(rows if traces is None else traces):
            raise ValueError(f"{len(values)} predictions for {len(rows)} events")  # map ends with the shortest
        columns: list[Iterable[Any]] = [values, rows.keys, rows.partitions.tolist()]
        if traces is not None:
            headers = [[("traceparent", trace)] if trace else None for trace in traces]
            columns += [repeat(None), repeat(None), repeat(_NOW), headers]
        self._hand_over(lambda: self._produce_all(self._predictions, *columns), len(rows))

    def send_dead(self, letters: Sequence[DeadLetter]) -> None:
        """Dead letters with their raw bytes and error headers, truncated where Kafka would refuse them."""
        if letters:
            self._hand_over(lambda: self._produce_dead(letters), len(letters))

    def _produce_dead(self, letters: Sequence[DeadLetter]) -> None:
        self._begin()
        for letter in letters:
            headers: list[tuple[str, bytes]] = [
                ("weir.topic", self._topics[letter.stream].encode()),
                ("weir.partition", str(letter.partition).encode()),
                ("weir.offset", str(letter.offset).encode()),
                ("weir.stage", letter.stage.encode()),
                ("weir.reason", _cut(letter.reason, 1024)),
                ("weir.field", _cut(letter.field, 256)),
            ]
            key, value = letter.key, letter.value
            if len(key or b"") + len(value or b"") > self._room:
                whole = f"key {len(key or b'')} bytes, value {len(value or b'')} bytes"
                headers.append(("weir.truncated", whole.encode()))
                key = key and key[: self._room // 2]
                value = value and value[: self._room - len(key or b"")]
            self._produce(self._dead_letters, value, key, letter.partition, headers)
        self._check()

    def send_alert(self, kind: str, **detail: str | None) -> None:
        """An alert for whoever runs the pipeline, whatever becomes of the predictions; `kind` is one of a few words."""
        self._alerts.send(kind, **detail)

    def forward(self, topic: str, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Records of a remote group's topic, in the partitions of their keys."""
        if len(values) != len(keys):
            raise ValueError(f"{len(values)} records for {len(keys)} keys")
        self._hand_over(lambda: self._produce_all(topic, values, keys), len(keys))

    def flush(self, timeout_s: float) -> bool:
        """Waits until every record sent so far is delivered; False if `timeout_s` ran out. Blocks."""
        left = self._serve(lambda: self._producer.flush(timeout_s))
        self._check()
        return left == 0

    def _serve(self, call: Callable[[], int]) -> int:
        """A call that serves the producer's callbacks, and so raises the error that has ended it, if any."""
        try:
            return call()
        except KafkaException as exception:
            raise OutputFailed(f"the producer ended: {exception.args[0].str()}") from exception

    def _new_producer(self) -> Producer:
        return Producer({**self._config, "on_delivery": self._on_delivery})

    def _begin(self) -> None:
        """Whatever must come before the first record after a commit: here nothing."""

    def _produce_all(self, topic: str, *columns: Iterable[Any]) -> None:
        """Produces a record for each value, with what else `Producer.produce` takes, in its order.

        The client's own `produce_batch` asks each record's dict for six names and takes twice as long.
        """
        self._begin()
        try:
            deque(map(self._producer.produce, repeat(topic), *columns), maxlen=0)
        except (KafkaException, BufferError) as error:  # those after it are not sent: nothing of this is committed
            self._failed.append(str(error))
        self._serve(lambda: self._producer.poll(0))
        self._check()

    def _produce(
        self, topic: str, value: bytes | None, key: bytes | None, partition: int, headers: Any
    ) -> None:
        try:
            self._producer.produce(topic, value, key, partition, headers=headers)
        except (KafkaException, BufferError) as error:
            self._failed.append(str(error))

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed.append(f"{message.topic()}: {error.str()}")

    def _check(self) -> None:
        """Raises where something sent may be missing: nothing may be committed, nor sent in its place."""
        if self._dropped is not None:
            raise self._dropped
        if self._failed:
            raise self._undelivered(f"{len(self._failed)} records could not be delivered: {self._failed[0]}")

    def _undelivered(self, reason: str) -> Exception:
        return OutputFailed(reason)


def _cut(text: str, size: int) -> bytes:
    """UTF-8 of `text`, at most `size` bytes, cut between characters."""
    return text.encode()[:size].decode(errors="ignore").encode()
