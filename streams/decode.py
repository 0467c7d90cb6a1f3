"""Typed decode, a batch at a time: records in, columns and dead letters out.

The batch is tried whole; only when that fails is each record tried alone, so that good records cost one comprehension
and bad ones end in dead letters with their reason.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from features.arrivals import picked
from features.spec import Category, Computed, FeatureSpec, Value, fields_read
from streams.batches import WATERMARK_HEADER, RecordBatch, one_after_the_other
from streams.contract import Contract
from streams.decoded import DeadLetter, Decoded
from streams.event import integer_fields
from streams.flat_json import FlatJson, Read, flat_json
from streams.schemas.codec import Codec
from streams.schemas.wire import Undecodable
from streams.source import Source

MAX_KEY_CHARS = 1024
"""Longer record keys and texts go to dead letters: they would be keys of the store and parts of predictions."""

MAX_NUMBER = float(np.finfo(np.float32).max)
MAX_EXACT = 2**53
"""float64 holds every integer below it; also the latest event time, in ms."""

_FEW = 1000
"""Records of a poll and stream, over all partitions, up to which the price of a batch is worth sharing."""

_MAX_INT64 = 2**63 - 1
_AT = re.compile(r"(.*) - at `\$\.(.+?)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.+)`")


class _Bad(Exception):
    def __init__(self, stage: str, code: str, reason: str = "", field_name: str = "") -> None:
        super().__init__(reason)
        self.stage, self.code, self.reason, self.field = stage, code, reason, field_name


@dataclass(frozen=True, slots=True)
class _Fields:
    """What a pipeline uses of n records. times: int64 [n]; ids: None where the source has none; longest: bytes of the
    longest record.
    """

    times: np.ndarray
    ids: list[Any] | None
    fields: dict[str, Any]
    longest: int

    def put(self, rows: np.ndarray, others: _Fields) -> None:
        """Gives the records `rows` what the `others` have."""
        self.times[rows] = others.times
        columns = [(column, others.fields[name]) for name, column in self.fields.items()]
        columns += [(self.ids, others.ids)] if self.ids is not None else []
        for column, given in columns:
            if isinstance(column, np.ndarray):
                column[rows] = given
            else:
                for row, value in zip(rows.tolist(), given, strict=True):
                    column[row] = value


class Decoder:
    """Decodes the batches of one source into the fields that the pipeline uses.

    numbers: fields to extract as float64; texts: fields to extract as strings (ids, entities, categories), which are
    bounded in length since they become part of store keys and predictions.
    codec: of the Schema Registry's wire format; None = plain JSON.
    contract: the source's rules; the fields that only they look at are not extracted for others (`hidden`).
    naming: those of the numbers that name entities. Integers among them come as int64; where they may be null, as
    float64, and what float64 does not hold exactly is a dead letter: two entities must not become one.
    """

    def __init__(
        self,
        source: Source,
        stream: int,
        *,
        numbers: set[str],
        texts: set[str],
        naming: Collection[str] = (),
        codec: Codec | None = None,
        contract: Contract | None = None,
        hidden: Collection[str] = (),
    ) -> None:
        self._stream = stream
        self._source = source
        self._codec = codec
        self._decode = msgspec.json.Decoder(source.event).decode if codec is None else codec.event
        self._time = attrgetter(source.time)
        self._id = attrgetter(source.id) if source.id else None
        self._id_is_text = any(f.name == source.id and f.kind == "string" for f in source.stream.fields)
        whole = integer_fields(source.event) & numbers & set(naming)
        nullable = {f.name for f in source.stream.fields if f.nullable}
        exact = whole - nullable
        self._inexact = whole & nullable
        self._numbers = [
            (name, attrgetter(name), np.int64 if name in exact else np.float64) for name in sorted(numbers)
        ]
        self._texts = [(name, attrgetter(name)) for name in sorted(texts)]
        self._flat = self._flat_of(source) if codec is None else None
        self.contract, self._hidden = contract, hidden

    @property
    def numbers(self) -> dict[str, type[Any]]:
        """The numbers that it extracts, with their dtype."""
        return {name: dtype for name, _, dtype in self._numbers}

    @property
    def texts(self) -> list[str]:
        """The texts that it extracts."""
        return [name for name, _ in self._texts]

    @property
    def inexact(self) -> frozenset[str]:
        """Those of the numbers that are float64, and must hold an integer exactly."""
        return self._inexact

    def prepare(self) -> None:
        """Compiles what it reads with, or reads what was compiled, before a round waits for it."""
        if self._flat is not None:
            self._flat.read([b"{}"])

    def decode_all(self, batches: Sequence[RecordBatch]) -> list[Decoded]:
        """`decode` of each; of few records at the price of one, where all of them are usable."""
        if len(batches) > 1 and sum(map(len, batches)) <= _FEW and (found := self._together(batches)) is not None:
            return found
        return [self.decode(batch) for batch in batches]

    def _together(self, batches: Sequence[RecordBatch]) -> list[Decoded] | None:
        """None where a record of them is not usable, or no event."""
        whole, dead = one_after_the_other(batches), list[DeadLetter]()
        decoded = self._at_once(whole, batches)
        if decoded is None:
            return None
        decoded = self._ruled(whole, decoded, dead)
        if dead:
            return None
        found, start = [], 0
        for batch in batches:
            piece = decoded.alone(start, start := start + len(batch))
            piece.partition, piece.next_offset, piece.polled_ns = batch.partition, batch.next_offset, batch.polled_ns
            found.append(piece)
        return found

    def decode(self, batch: RecordBatch) -> Decoded:
        """Columns of the usable records; the others are in `dead` and `marks`."""
        marks: list[tuple[int, int]] = []
        dead: list[DeadLetter] = []
        whole = batch
        decoded = self._at_once(batch, [batch])
        if decoded is None and None in batch.values:
            batch = self._without_marks(batch, marks, dead)
            decoded = self._at_once(batch, [batch])
        if decoded is None:
            batch, events = self._one_by_one(batch, dead)
            decoded = self._columns(batch, self._of_events(events, batch.values), [batch])
        decoded = self._ruled(batch, decoded, dead)
        decoded.next_offset = whole.next_offset
        decoded.dead = sorted(dead, key=attrgetter("offset"))
        decoded.marks = marks
        return decoded

    def _at_once(self, batch: RecordBatch, parts: Sequence[RecordBatch]) -> Decoded | None:
        """None where a record is not usable, or no event. parts: by partition."""
        try:
            return self._columns(batch, self._read(batch.values), parts)
        except Exception:  # whatever it is, it is found again and named record by record
            return None

    def _flat_of(self, source: Source) -> FlatJson | None:
        """What reads most records without msgspec; None where it does not give all that the pipeline wants of them."""
        numbers, texts = {**self.numbers, source.time: np.int64}, set(self.texts)
        if source.id and self._id_is_text:
            texts.add(source.id)
        elif source.id:
            if source.id not in integer_fields(source.event) or numbers.get(source.id) is np.float64:
                return None
            numbers[source.id] = np.int64
        return flat_json(source.event, numbers=numbers, texts=texts)

    def _read(self, values: Sequence[Any]) -> _Fields:
        """Raises _Bad, or what msgspec, the codec or a conversion raises, if any of the records is unusable."""
        if self._codec is not None:
            return self._of_events(self._codec.events(values), values)
        found = None if self._flat is None else self._flat.read(values)
        if found is None or 2 * len(found.odd) > len(values):
            if None in values:  # found before the others are decoded for nothing
                raise _Bad("decode", "empty")
            return self._of_events(list(map(self._decode, values)), values)
        fields = self._of_flat(found)
        if len(found.odd):
            odd = picked(values, found.odd)
            fields.put(found.odd, self._of_events(list(map(self._decode, odd)), odd))
        return fields

    def _of_events(self, events: list[Any], values: Sequence[Any]) -> _Fields:
        times = np.array(list(map(self._time, events)), dtype=np.int64)
        ids = None if self._id is None else list(map(self._id, events))
        if ids is not None and not (self._id_is_text and None not in ids):
            ids = list(map(str, ids))
        fields: dict[str, Any] = {
            name: np.array(list(map(get, events)), dtype=dtype) for name, get, dtype in self._numbers
        }
        if self._codec is not None:
            self._refuse_nan(events, fields)
        for name, get in self._texts:
            fields[name] = list(map(get, events))
        return _Fields(times, ids, fields, max(map(len, values), default=0))

    def _of_flat(self, found: Read) -> _Fields:
        times, numbers = found.numbers[self._source.time], found.numbers
        ids: list[Any] | None = None
        if self._source.id:
            name = self._source.id
            ids = found.texts[name] if self._id_is_text else list(map(str, numbers[name].tolist()))
        fields: dict[str, Any] = {name: numbers[name].astype(dtype, copy=False) for name, _, dtype in self._numbers}
        return _Fields(times, ids, fields | {name: found.texts[name] for name, _ in self._texts}, found.longest)

    def _ruled(self, batch: RecordBatch, decoded: Decoded, dead: list[DeadLetter]) -> Decoded:
        if self.contract is None:
            return decoded
        decoded = self.contract.applied(batch, decoded, dead)
        decoded.fields = {name: column for name, column in decoded.fields.items() if name not in self._hidden}
        return decoded

    def _columns(self, batch: RecordBatch, found: _Fields, parts: Sequence[RecordBatch]) -> Decoded:
        """Raises _Bad if any of the records is unusable, TypeError where one has no key. parts: by partition."""
        times, fields = found.times, found.fields
        if len(times):
            ahead = np.maximum.reduce(times - batch.timestamps) > self._source.max_skew_ms
            if ahead or np.minimum.reduce(times) < 0 or np.maximum.reduce(times) > MAX_EXACT:
                raise _Bad("time", "out_of_bounds")
        if max(map(len, batch.keys), default=0) > MAX_KEY_CHARS:  # type: ignore[arg-type]
            raise _Bad("key", "too_long")
        ids = [place for part in parts for place in self._places(part)] if found.ids is None else found.ids
        # A text is never longer than the value that it comes in.
        if found.longest > MAX_KEY_CHARS:
            texts = [ids, *(filter(None, fields[name]) for name, _ in self._texts)]
            if any(max(map(len, column), default=0) > MAX_KEY_CHARS for column in texts):
                raise _Bad("key", "too_long")
        for name, _, dtype in self._numbers:
            if dtype is np.float64 and np.count_nonzero(np.abs(fields[name]) > MAX_NUMBER):
                raise _Bad("decode", "out_of_range")
        for name in self._inexact:
            if np.count_nonzero(np.abs(fields[name]) >= MAX_EXACT):
                raise _Bad("decode", "out_of_range")
        return Decoded(
            stream=self._stream,
            partition=batch.partition,
            keys=batch.keys,
            ids=ids,
            offsets=batch.offsets,
            times=times,
            fields=fields,
            headers=batch.headers,
            next_offset=0,
            polled_ns=batch.polled_ns,
        )

    def _refuse_nan(self, events: list[Any], fields: dict[str, Any]) -> None:
        """JSON has no NaN; a binary number can be one, and would be taken for a null."""
        for name, get, _ in self._numbers:
            if np.isnan(fields[name]).any() and any(number != number for number in map(get, events)):
                raise _Bad("decode", "invalid")

    def _places(self, batch: RecordBatch) -> list[str]:
        """Where a record stands names it if its events have no id."""
        prefix = f"{self._source.topic}-{batch.partition}-"
        return [f"{prefix}{offset}" for offset in batch.offsets.tolist()]

    def _one_by_one(self, batch: RecordBatch, dead: list[DeadLetter]) -> tuple[RecordBatch, list[Any]]:
        keep: list[int] = []
        events: list[Any] = []
        for i in range(len(batch)):
            try:
                events.append(self._checked(batch, i))
                keep.append(i)
            except _Bad as bad:
                dead.append(_letter(batch, i, bad))
        return _select(batch, keep), events

    def _checked(self, batch: RecordBatch, i: int) -> Any:
        """The event of record i, or _Bad with the reason that a person needs."""
        value = batch.values[i]
        if not value:
            raise _Bad("decode", "empty", "empty value")
        try:
            event = self._decode(value)
        except Undecodable as error:
            raise _Bad("decode", error.code, str(error), error.field) from None
        except RecursionError:
            raise _Bad("decode", "too_deep", "nested too deep") from None
        except msgspec.ValidationError as error:
            raise _Bad("decode", "invalid", *explained(str(error))) from None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _Bad("decode", "malformed", str(error)) from None
        except Exception as error:  # the event type's own __post_init__
            raise _Bad("decode", "invalid", f"{type(error).__name__}: {error}") from None
        self._check_time(self._time(event), int(batch.timestamps[i]))
        key = batch.keys[i]
        if key is None:
            mend = f"null record key; produce with {self._source.key} as the key"
            raise _Bad("key", "null", mend, self._source.key)
        _bounded(self._source.key, key)
        if self._id:
            _bounded(self._source.id or "", str(self._id(event)))
        for name, get, dtype in self._numbers:
            number = get(event)
            try:
                np.array([number], dtype=dtype)
            except OverflowError:
                raise _Bad("decode", "out_of_range", f"an integer that {dtype.__name__} does not hold", name) from None
            if number != number:
                raise _Bad("decode", "invalid", "NaN is no number", name)
            if dtype is np.float64 and number is not None and abs(number) > MAX_NUMBER:
                raise _Bad("decode", "out_of_range", "beyond float32, which is what models and features hold", name)
            if name in self._inexact and number is not None and abs(number) >= MAX_EXACT:
                mend = "names an entity and may be null: from 2**53 on it must be a text"
                raise _Bad("decode", "out_of_range", mend, name)
        for name, get in self._texts:
            _bounded(name, get(event) or "")
        return event

    def _check_time(self, time_ms: int, timestamp_ms: int) -> None:
        name = self._source.time
        if time_ms < 0:
            reason = f"event time {time_ms} is before 1970; {name} is in ms since the epoch"
            raise _Bad("time", "negative", reason, name)
        if time_ms > MAX_EXACT:
            raise _Bad("time", "out_of_range", "event time is out of range; it is in ms since the epoch", name)
        if time_ms - timestamp_ms > self._source.max_skew_ms:
            ahead = f"{(time_ms - timestamp_ms) / 1000:.0f} s ahead of the record's timestamp"
            allowed = f"max_skew is {self._source.max_skew_ms / 1000:.0f} s"
            raise _Bad("time", "ahead", f"event time {time_ms} is {ahead}; {allowed}", name)

    def _without_marks(self, batch: RecordBatch, marks: list[tuple[int, int]], dead: list[DeadLetter]) -> RecordBatch:
        keep = []
        for i, value in enumerate(batch.values):
            if value is not None:
                keep.append(i)
            elif (mark := _watermark(batch, i)) is not None:
                marks.append((int(batch.offsets[i]), mark))
            else:
                dead.append(_letter(batch, i, _Bad("decode", "empty", "empty value")))
        return _select(batch, keep)


def decoder_of(source: Source, stream: int, spec: FeatureSpec, codec: Codec | None = None) -> Decoder:
    """A decoder that extracts the fields of `source` that the features read. codec: as in Decoder."""
    wanted = fields_read(spec, stream)
    naming = {name for a in spec.aggregates if stream in (0, a.stream) for name in a.entity}
    wanted |= naming
    if stream == 0:
        wanted |= {f.field for f in spec.features if isinstance(f, Value | Category)}
        if any(isinstance(f, Computed) for f in spec.features):
            wanted |= {f.name for f in source.stream.fields}
    contract = Contract(source.conditions) if source.conditions else None
    hidden = contract.fields - wanted if contract else set()
    wanted |= hidden
    fields = [f for f in source.stream.fields if f.name in wanted]
    return Decoder(
        source,
        stream,
        numbers={f.name for f in fields if f.kind == "number"},
        texts={f.name for f in fields if f.kind == "string"},
        naming=naming,
        codec=codec,
        contract=contract,
        hidden=hidden,
    )


def _watermark(batch: RecordBatch, i: int) -> int | None:
    headers = batch.headers[i] if batch.headers else None
    for name, value in headers or ():
        if name == WATERMARK_HEADER:
            try:
                return min(int(value), _MAX_INT64)
            except (TypeError, ValueError):
                return None
    return None


def _bounded(name: str, text: str | bytes) -> None:
    if len(text) > MAX_KEY_CHARS:
        raise _Bad("key", "too_long", f"{len(text)} long; at most {MAX_KEY_CHARS}", name)


def explained(message: str) -> tuple[str, str]:
    """Reason and field of a validation error, which ends in " - at `$.field`", or names the field that is missing."""
    if at := _AT.fullmatch(message):
        return at[1], at[2]
    missing = _MISSING.fullmatch(message)
    return message, missing[1] if missing else ""


def _letter(batch: RecordBatch, i: int, bad: _Bad) -> DeadLetter:
    return DeadLetter.of(batch, i, bad.stage, bad.code, bad.reason, bad.field)


def _select(batch: RecordBatch, keep: list[int]) -> RecordBatch:
    return RecordBatch(
        batch.stream,
        batch.partition,
        [batch.keys[i] for i in keep],
        [batch.values[i] for i in keep],
        batch.offsets[keep],
        batch.timestamps[keep],
        None if batch.headers is None else [batch.headers[i] for i in keep],
        batch.polled_ns,
        batch.generation,
    )
