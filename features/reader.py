"""An entity's online features: read from the store by who owns nothing, evaluated at the time of reading."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from features import codec
from features.ages import gone_at, newest_ms
from features.kernel import OUT_COLUMN, UNSEEN
from features.layout import Kind, Layout
from features.partitioner import Partitioner, partition_of
from features.spec import Aggregate, FeatureSpec, Ratio
from features.store import Found, Meta, RowKey, Store
from features.table import values_at

State = Literal["present", "missing", "expired"]
FieldValue = str | float | None
_LARGEST = float(np.finfo(np.float32).max)


class ReadError(Exception):
    """What was asked cannot be answered; the message says the mend."""


@dataclass(frozen=True)
class Reading:
    """One feature of one entity, as of the time of reading.

    value: what a model would get, None for NaN: of a state that is not present, 0 for count and sum.
    state: present; missing: the entity has not been seen, or not before that time; expired: too long ago.
    newest_ms: event time of the entity's newest event, or the start of its pane; None if it was never seen.
    """

    value: float | None
    state: State
    newest_ms: int | None

    def given(self, missing: float) -> Reading:
        """With `missing`, where that is a number, for a value that no model gets."""
        if self.value is not None and abs(self.value) <= _LARGEST:
            return self
        return replace(self, value=None if np.isnan(missing) else missing)


class FeatureReader:
    """Reads the aggregates of `spec` as its workers left them in `store`, at most a checkpoint interval ago.

    key: the field that keys the source's records; partitions and partitioner: of its topic.
    floats: the number fields that are not declared as integers, whose ids are as exact as a float64 is.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        store: Store,
        *,
        key: str,
        partitions: int,
        partitioner: Partitioner = "crc32",
        floats: Collection[str] = (),
    ) -> None:
        self._spec = spec
        self._store = store
        self._key = key
        self._partitions = partitions
        self._partitioner: Partitioner = partitioner
        self._floats = floats
        self._kinds = Layout(spec).kinds

    async def read(
        self, fields: Mapping[str, FieldValue], at_ms: int | None = None, *, ask_all: bool = False
    ) -> dict[str, Reading]:
        """The readings, by name, of the aggregates all of whose entity fields are in `fields`.

        at_ms: event time to read at; now, if not given. The store keeps no past: a time before the newest
            event is answered as far as the windows reach back.
        ask_all: asks every partition and takes the newest row, for records that another partitioner spread. A
            read whose fields lack the source's key does so too.

        Raises ReadError, StoreUnavailable, StoreMisconfigured.
        """
        at_ms = time.time_ns() // 1_000_000 if at_ms is None else at_ms
        wanted = self._wanted(fields)
        partitions = self._asked(fields, ask_all)
        keys = list(wanted.values())
        found = await self._store.read(dict.fromkeys(partitions, keys))
        readings: dict[str, Reading] = {}
        for place, index in enumerate(wanted):
            kind, key = self._kinds[index], wanted[index].key
            row = self._newest(kind, [(f.meta, f.rows[place]) for f in self._checked(found)], key)
            readings |= self._evaluate(kind, row, at_ms)
        return in_declared_order(self._spec, readings)

    def read_once(
        self, fields: Mapping[str, FieldValue], at_ms: int | None = None, *, ask_all: bool = False
    ) -> dict[str, Reading]:
        """As `read`, for a command line: runs an event loop of its own, and closes the store."""

        async def once() -> dict[str, Reading]:
            try:
                return await self.read(fields, at_ms, ask_all=ask_all)
            finally:
                await self._store.close()

        return asyncio.run(once())

    def _wanted(self, fields: Mapping[str, FieldValue]) -> dict[int, RowKey]:
        """The row to read of each entity kind that `fields` name, by the kind's index."""
        known = {name for entity in self._spec.entities for name in entity} | {self._key}
        for name in fields:
            if name not in known:
                raise ReadError(
                    f"field {name}: no feature is grouped by it; name some of {', '.join(sorted(known))}"
                )
        wanted: dict[int, RowKey] = {}
        for index, entity in enumerate(self._spec.entities):
            if all(name in fields for name in entity):
                key = codec.entity_key([self._typed(name, fields[name]) for name in entity])
                if key is None:
                    raise ReadError(
                        f"entity {', '.join(entity)}: null names no entity; give every field a value"
                    )
                wanted[index] = RowKey(index, key)
        if not wanted:
            groups = " or ".join("(" + ", ".join(entity) + ")" for entity in self._spec.entities)
            raise ReadError(f"no entity: give the fields {groups}")
        return wanted

    def _typed(self, name: str, value: FieldValue) -> FieldValue:
        """`value` as the events have it: a command line gives numbers as text, and an id of 64 bits is no float."""
        field = self._spec.streams[0].field(name)
        if field is None or field.kind == "string":
            return None if value is None else str(value)
        if isinstance(value, int | str) and name not in self._floats:
            try:
                whole = int(value)
            except ValueError:
                pass
            else:
                if -(2**63) <= whole < 2**63:
                    return whole
        try:
            return None if value is None else float(value)
        except (ValueError, OverflowError):
            raise ReadError(f"field {name}: {value!r} is not a number") from None

    def _asked(self, fields: Mapping[str, FieldValue], ask_all: bool) -> Sequence[int]:
        key = codec.entity_key([self._typed(self._key, fields.get(self._key))])
        if ask_all or not key:
            return range(self._partitions)
        encoded = key.encode("utf-8", "surrogatepass")
        return [partition_of(encoded, self._partitions, self._partitioner)]

    def _checked(self, found: Mapping[int, Found]) -> list[Found]:
        for partition, (meta, _) in found.items():
            if meta is not None and meta.state_hash != self._spec.state_hash:
                raise ReadError(
                    f"partition {partition}: the worker's features are of spec {meta.state_hash}, "
                    f"this one's of {self._spec.state_hash}; read with the pipeline that the worker runs"
                )
        return list(found.values())

    def _newest(
        self, kind: Kind, candidates: Sequence[tuple[Meta | None, bytes | None]], key: str
    ) -> np.ndarray:
        """Of one key's packed rows, the state float64 [width] with the newest event; empty if none."""
        best = kind.template.view(np.float64)
        for meta, value in candidates:
            if meta is None or value is None:
                continue
            rows = codec.unpack(
                [value],
                [key],
                incarnation=meta.incarnation,
                streams=len(self._spec.streams),
                width=kind.width,
            ).rows
            if newest_ms(kind, rows[0].view(np.int64)) > newest_ms(kind, best.view(np.int64)):
                best = rows[0]
        return best

    def _evaluate(self, kind: Kind, row: np.ndarray, at_ms: int) -> dict[str, Reading]:
        """The readings of one kind's aggregates at `at_ms`, of its state float64 [width]."""
        values = values_at(kind, row[np.newaxis], np.array([at_ms]), len(self._spec.aggregates))[0]
        newest = newest_ms(kind, row.view(np.int64))
        readings = {}
        for out in kind.outs:
            column = int(out[OUT_COLUMN])
            value = float(values[column])
            readings[self._spec.aggregates[column].name] = Reading(
                None if np.isnan(value) else value,
                _state(kind, out, row.view(np.int64), at_ms, value),
                None if newest == UNSEEN else newest,
            )
        return readings


def _state(kind: Kind, out: np.ndarray, ints: np.ndarray, at_ms: int, value: float) -> State:
    """What the value of an output is worth, of a row's int64 view [width]."""
    gone = gone_at(kind, out, ints, at_ms)
    if gone is None:
        return "missing"
    if gone:
        return "expired"
    return "missing" if np.isnan(value) else "present"


def in_declared_order(spec: FeatureSpec, readings: Mapping[str, Reading]) -> dict[str, Reading]:
    """The readings of features that can be read without an event: aggregates, and ratios of two that are there.

    A ratio is as old as the older of its two, and no better than the worse. What is missing, or beyond float32, has
    the spec's value for it.
    """
    found: dict[str, Reading] = {}
    for feature in spec.features:
        if isinstance(feature, Aggregate) and feature.name in readings:
            found[feature.name] = readings[feature.name]
        elif isinstance(feature, Ratio) and all(used.name in readings for used in feature.uses):
            upper, lower = (readings[used.name] for used in feature.uses)
            value = upper.value / lower.value if upper.value is not None and lower.value else None
            states = [reading.state for reading in (upper, lower) if reading.state != "present"]
            state: State = states[0] if states else "present" if value is not None else "missing"
            seen = [reading.newest_ms for reading in (upper, lower) if reading.newest_ms is not None]
            found[feature.name] = Reading(value, state, min(seen) if len(seen) == 2 else None)
    return {name: reading.given(spec.missing) for name, reading in found.items()}
