"""Label events, decoded: a batch of records in, labels out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import structlog

from monitors.join import Label
from streams.pipeline import Labels
from streams.schemas.codec import Codec

log = structlog.get_logger(__name__)

_AHEAD_MS = 3_600_000
"""How far a label's time may be ahead of its record's: one that is further would move the join's clock."""


class LabelReader:
    """Decodes label events; what is not one is counted.

    A batch is tried whole; only when that fails is each record tried alone.

    codec: of the Schema Registry's wire format; None = plain JSON.
    """

    def __init__(self, labels: Labels, codec: Codec | None = None) -> None:
        self.topic = labels.topic
        self._labels, self._codec = labels, codec
        self._decode: Callable[[bytes], Any] = (
            msgspec.json.Decoder(labels.event).decode if codec is None else codec.event
        )
        self._id = attrgetter(labels.id)
        self._time = attrgetter(labels.time) if labels.time else None
        self._numbers = [(f.name, attrgetter(f.name)) for f in labels.stream.fields if f.kind == "number"]
        self._texts = [(f.name, attrgetter(f.name)) for f in labels.stream.fields if f.kind == "string"]

    def learn(self, values: Iterable[bytes | None]) -> None:
        """Has the schemas that `values` need. Blocks. Raises RegistryAway: without them a label is no bad record."""
        if self._codec is not None and (headers := self._codec.unseen(values)):
            self._codec.learn(headers)

    def read(self, messages: list[Any]) -> tuple[list[Label], int]:
        """The label of each usable record, and how many were not usable."""
        if not messages:
            return [], 0
        try:
            found = self._labels_of(messages)
        except Exception:  # of whatever kind: the event type and the value function are the user's
            found = self._one_by_one(messages)
        return found, len(messages) - len(found)

    def _labels_of(self, messages: list[Any]) -> list[Label]:
        """Raises if any of the records is no label event."""
        events = [self._decode(message.value() or b"") for message in messages]
        columns: dict[str, Any] = {
            name: np.array(list(map(get, events)), dtype=np.float64) for name, get in self._numbers
        }
        columns.update({name: list(map(get, events)) for name, get in self._texts})
        values = self._labels.values(columns)
        written = [message.timestamp()[1] for message in messages]
        times = list(map(self._time, events)) if self._time else written
        return [
            Label(str(self._id(event)), time_ms, value, message.partition())
            for message, event, time_ms, written_ms, value in zip(
                messages, events, times, written, values.tolist(), strict=True
            )
            if value == value and 0 <= time_ms <= written_ms + _AHEAD_MS  # NaN: no label
        ]

    def _one_by_one(self, messages: list[Any]) -> list[Label]:
        found: list[Label] = []
        reason, bad = "", 0
        for message in messages:
            try:
                found += self._labels_of([message])
            except Exception as error:
                reason, bad = f"{type(error).__name__}: {error}", bad + 1
        if bad:
            log.warning("not labels", topic=self.topic, records=bad, last=reason)
        return found
