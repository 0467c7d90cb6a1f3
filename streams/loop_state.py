"""All that the monitor knows between two commits, and how it is taken up again.

A commit covers the records read so far: their predictions and labels in the join, their statistics in the open blocks,
how far the clocks are. `snapshot` and the segment of what is new hold it; `restore` takes both up again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog

from features.spec import Category
from monitors.archive import Archive, Place, place_of
from monitors.block import Block, Positions
from monitors.blocks import FINISHED, BlockBuilder
from monitors.errors import RecordRefused
from monitors.join import JoinCounts, Joined, Label, LabelJoin
from monitors.join_store import Loaded, Segment
from monitors.predictions import Kinds, Prediction, SeenOffsets, prediction_decoder
from monitors.segments import Segments
from streams.batches import WATERMARK_HEADER
from streams.clocks import Clock
from streams.labels import LabelReader
from streams.pipeline import Pipeline
from streams.schemas.codec import Codec

log = structlog.get_logger(__name__)

WITHIN_MS = 7 * 24 * 3_600_000
"""How long predictions of a pipeline without labels are kept."""


def feature_kinds(pipeline: Pipeline) -> Kinds:
    """What predictions log of each feature."""
    return {
        feature.name: "category" if isinstance(feature, Category) else "number" for feature in pipeline.spec.features
    }


class _Snapshot(msgspec.Struct):
    """ends: by partition of the scored topic, the offset after the last that was predicted; clocks: by topic.

    sources: by partition, the id that the scored topic had. given_up: places of predictions that stay without a label,
    where the archive does not have them yet: they have been counted. gaps: by partition, offsets below its end whose
    predictions may still come: with exact remote groups they come in another order.
    """

    ends: dict[int, int]
    clocks: dict[str, dict[int, int]]
    blocks: bytes
    sources: dict[int, str] = {}
    given_up: list[tuple[int, int]] = []
    gaps: dict[int, list[int]] = {}


@dataclass
class Taken:
    """What a batch of predictions was: those not seen before, and the counts of the others."""

    new: list[Prediction] = field(default_factory=list)
    repeated: int = 0
    unscored: int = 0


class LoopState:
    """The join, the open blocks, the archive's next rows. Not for several threads.

    partitions: of each topic that is read. waits: whether events of a partition still wait for their predictions.
    source_id: the id that the scored topic has now, empty where it is not known. One that was deleted and made again
    has another, and counts its offsets anew: then an offset that comes again is no duplicate.
    codec: of the labels; None = plain JSON.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        archive: Archive,
        partitions: dict[str, int],
        waits: Callable[[int], bool] = lambda _: False,
        source_id: Callable[[], str] = lambda: "",
        codec: Codec | None = None,
    ) -> None:
        self._source_id = source_id
        self._sources: dict[int, str] = {}
        kinds = feature_kinds(pipeline)
        self._predictions_topic = pipeline.topics.predictions
        self._labels_topic = pipeline.labels.topic if pipeline.labels else None
        self._decode = prediction_decoder(kinds)
        self._reader = LabelReader(pipeline.labels, codec) if pipeline.labels else None
        self.join = LabelJoin(pipeline.labels.within_ms if pipeline.labels else WITHIN_MS)
        self.archive = archive
        self.blocks = BlockBuilder(
            pipeline.name,
            kinds,
            every_ms=pipeline.blocks.length_ms,
            every_events=pipeline.blocks.events,
            within_ms=self.join.within_ms,
        )
        self.counts_from: int | None = None
        """Where set: what is of an event time below counts in no block (ms)."""
        self.seen = SeenOffsets()
        self._reordered = any(group.exact for group in pipeline.groups)
        self.clocks = {
            topic: Clock(n, waits=waits) if topic == self._predictions_topic else Clock(n)
            for topic, n in partitions.items()
        }
        self._segments = Segments()
        self._needless: list[int] = []
        self._new_predictions: dict[tuple[int, int], bytes] = {}
        self._new_labels: dict[str, Label] = {}

    def take_predictions(self, messages: Sequence[Any]) -> tuple[Taken, list[Joined]]:
        """Records of the predictions topic, in the order read. Returns what was new, and the pairs that it made."""
        found = self._decoded(messages)
        _advance(self.clocks[self._predictions_topic], [(p.source.partition, p.time) for p, _ in found])
        is_new = self._new([p.place for p, _ in found])
        fresh = found if all(is_new) else [pair for pair, first in zip(found, is_new, strict=True) if first]
        new = [prediction for prediction, _ in fresh]
        self._new_predictions.update([(prediction.place, value) for prediction, value in fresh])
        taken = Taken(new, len(found) - len(new), sum([prediction.score is None for prediction in new]))
        least = self.counts_from
        self.blocks.predictions(new if least is None else [p for p in new if p.time >= least])
        return taken, self._let_go(self.join.predictions(new))

    def take_labels(self, messages: Sequence[Any]) -> tuple[int, list[Joined]]:
        """Records of the labels topic. Returns how many were not labels, and the pairs that they made.

        Raises RegistryAway, with nothing changed.
        """
        assert self._reader is not None
        assert self._labels_topic is not None
        self._reader.learn(message.value() for message in messages)
        clock = self.clocks[self._labels_topic]
        for message in messages:
            if message.value() is None and (mark := _watermark(message)) is not None:
                clock.advance(message.partition(), mark)
        found, bad = self._reader.read([m for m in messages if m.value() is not None])
        _advance(clock, [(label.partition, label.time) for label in found])
        joined = self.join.labels(found)
        self._new_labels.update([(label.id, label) for label in self.join.kept])
        return bad, self._let_go(joined)

    def expire(self, *, finished: bool = False) -> list[Joined]:
        """Gives up what can find no partner any more. finished: nothing more will come."""
        if finished:
            gone = self.join.finish()
        else:
            predicted = self.clocks[self._predictions_topic].now()
            gone = self.join.expire(predicted_ms=predicted, labelled_ms=self._labelled_ms)
        return self._let_go(gone)

    def close_blocks(self, positions: Positions, *, finished: bool = False) -> list[Block]:
        """The blocks that both clocks have passed."""
        watermark = FINISHED if finished else min(self.clocks[self._predictions_topic].now(), self._labelled_ms)
        return self.blocks.close(watermark, positions)

    def segment(self) -> Segment:
        """Predictions and labels that came since the last commit, and that may still be needed."""
        return Segment(tuple(self._new_predictions.values()), tuple(self._new_labels.values()))

    def snapshot(self) -> bytes:
        clocks = {topic: clock.times for topic, clock in self.clocks.items()}
        given_up = [row.prediction.place for row in self.archive.waiting if row.label is None]
        return msgspec.msgpack.encode(
            _Snapshot(
                self.seen.ends,
                clocks,
                self.blocks.snapshot(),
                self._sources,
                given_up,
                self.seen.gaps() if self._reordered else {},
            )
        )

    def committed(self, number: int, archived: Iterable[Joined]) -> list[int]:
        """The commit `number` was made, with these rows archived; returns the segments that nobody needs any more."""
        self._segments.add(number, self._new_predictions)
        self._segments.add(number, self._new_labels)
        self._new_predictions, self._new_labels = {}, {}
        empty, self._needless = self._needless, []
        empty += self._segments.remove(row.prediction.place for row in archived)
        # Who takes up needs the labels of rows that the archive does not have yet.
        needed = {row.prediction.id for row in self.archive.waiting} if self.join.forgotten else set()
        empty += self._segments.remove([name for name in self.join.forgotten if name not in needed])
        self.join.forgotten = [name for name in self.join.forgotten if name in needed]
        return empty

    def restore(self, loaded: Loaded, last: Block | None = None) -> None:
        """Takes up what was committed. Pairs that the archive does not have yet are its next rows.

        last: the newest block that was published; where the open ones cannot be taken up, they begin after it. Raises
        RecordRefused, with nothing changed, for what is no snapshot.
        """
        try:
            snapshot = msgspec.msgpack.decode(loaded.state, type=_Snapshot)
        except msgspec.MsgspecError as error:
            raise RecordRefused(f"not a snapshot: {error}") from None
        self.seen.restore(snapshot.ends, snapshot.gaps)
        self._sources = dict(snapshot.sources)
        for topic, times in snapshot.clocks.items():
            if topic in self.clocks:
                self.clocks[topic].restore(times)
        try:
            self.blocks.restore(snapshot.blocks)
        except RecordRefused as error:
            log.warning("the open blocks begin anew: the pipeline has changed", reason=str(error))
            if last is not None:
                self.blocks.resume(last)
        segments = [(n, self._still(segment.predictions), segment.labels) for n, segment in loaded.segments]
        # An id comes twice where its first label was forgotten, but not yet its segment.
        newest = {label.id: number for number, _, found in segments for label in found}
        # Labels, too, are of predictions that the archive may have: these are at most `within` older.
        reach = [p.time for _, predictions, _ in segments for p in predictions]
        reach += [label.time - self.join.within_ms for _, _, found in segments for label in found]
        oldest = min(reach, default=0)
        archived = self.archive.places(oldest)
        waiting: list[Prediction] = []
        labels: list[Label] = []
        for number, predictions, all_labels in segments:
            found = [label for label in all_labels if newest[label.id] == number]
            left = [p for p in predictions if _place(p) not in archived]
            self._segments.add(number, [p.place for p in left])
            self._segments.add(number, [label.id for label in found])
            if not left and not found:
                self._needless.append(number)
            waiting += left
            labels += found
        given_up = set(snapshot.given_up)
        self.archive.add([Joined(p, None) for p in waiting if p.place in given_up])
        waiting = [p for p in waiting if p.place not in given_up]
        self.archive.add(self.join.restore(waiting, labels, set(archived.values())))

    def _still(self, values: Iterable[bytes]) -> list[Prediction]:
        """Those that are predictions still: a feature may be of another kind by now."""
        found, reason, refused = [], "", 0
        for value in values:
            try:
                found.append(self._decode(value))
            except (msgspec.MsgspecError, RecursionError) as error:
                reason, refused = str(error), refused + 1
        if refused:
            log.warning("predictions that waited for labels are not any more", records=refused, reason=reason)
        return found

    def leave_out(self, archived: Container[Place]) -> None:
        """Forgets pairs and given-up predictions that the archive has already."""
        self.archive.leave_out(archived)
        for place, value in [*self._new_predictions.items()]:
            if _place(self._decode(value)) in archived:
                del self._new_predictions[place]

    def rebuilt(self) -> None:
        """What was read so far was read for the second time: it is not counted."""
        self.join.counts = JoinCounts()
        self.join.forgotten.clear()

    def _new(self, places: list[tuple[int, int]]) -> list[bool]:
        """Which of (partition, offset) have not been seen; marks them as seen."""
        is_new = self.seen.add(places)
        partitions = {partition for partition, _ in places}
        repeated = {partition for (partition, _), new in zip(places, is_new, strict=True) if not new}
        if repeated or not partitions <= self._sources.keys():
            found = self._source_id()
            for partition in partitions if found else ():
                if self._sources.setdefault(partition, found) != found and partition in repeated:
                    log.warning("the scored topic was made again, its offsets count anew", partition=partition)
                    self._sources[partition] = found
                    self.seen.forget(partition)
                    again = [at for at, place in enumerate(places) if place[0] == partition and not is_new[at]]
                    for at, new in zip(again, self.seen.add([places[at] for at in again]), strict=True):
                        is_new[at] = new
        return is_new

    def _decoded(self, messages: Sequence[Any]) -> list[tuple[Prediction, bytes]]:
        """Predictions with their raw values. Tried whole; only when that fails is each record tried alone."""
        values = [message.value() or b"" for message in messages]
        try:
            return list(zip(map(self._decode, values), values, strict=True))
        except (msgspec.MsgspecError, RecursionError):
            pass
        found = []
        for message, value in zip(messages, values, strict=True):
            try:
                found.append((self._decode(value), value))
            except (msgspec.MsgspecError, RecursionError) as error:
                log.warning("not a prediction", offset=message.offset(), reason=str(error))
        return found

    @property
    def _labelled_ms(self) -> int:
        return self.clocks[self._labels_topic or self._predictions_topic].now()

    def _let_go(self, joined: list[Joined]) -> list[Joined]:
        """Pairs, and predictions that stay without a label, go to the archive and count in their blocks."""
        self.archive.add(joined)
        least = self.counts_from
        self.blocks.joined(joined if least is None else [row for row in joined if self._known_ms(row) >= least])
        told = self.join.told
        for (what, time_ms), n in Counter(told).items() if told else ():
            if least is None or time_ms >= least:
                self.blocks.counts(**{what: n}, time_ms=time_ms)
        told.clear()
        return joined

    def _known_ms(self, row: Joined) -> int:
        """When it was known what the label is, or that there is none."""
        time_ms = row.prediction.time
        return time_ms + self.join.within_ms if row.label is None else max(time_ms, row.label.time)


def _advance(clock: Clock, seen: list[tuple[int, int]]) -> None:
    """Tells the clock the newest of (partition, event time in ms) of each partition."""
    for partition, time_ms in dict(sorted(seen)).items():
        clock.advance(partition, time_ms)


def _place(prediction: Prediction) -> Place:
    return place_of(Joined(prediction, None))


def _watermark(message: Any) -> int | None:
    for name, value in message.headers() or ():
        if name == WATERMARK_HEADER:
            try:
                return int(value)
            except (TypeError, ValueError):
                return None
    return None
