"""Features of entities that another worker keeps: its rows, read from the store as of each event's own time.

A round costs one request to the store, whatever the number of its events, and one call of the kernel.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from features.codec import CodecError, entity_keys, unpack_states
from features.layout import Layout
from features.partitioner import partitions_of
from features.progress import NEVER, PROGRESS, UNKNOWN, progress_of
from features.reader import behind
from features.spec import Columns, FeatureSpec
from features.store import Found, Meta, RowKey, Store
from features.table import values_at, values_of
from features.trusted import TrustedReads


class Remote(NamedTuple):
    """What n events get of a remote group.

    values: float64 [n] by aggregate; NaN where missing, or where the owner's state is not known.
    lag_s: float64 [n], the event's time less the newest event time that is in the owner's state of that partition:
        negative where the owner is ahead. NaN where that is not known, or the event names no entity.
    age_s: float64 [n], seconds by the clock since everything sent to that partition was in; infinite where that is not
        known, NaN where the event names no entity.
    """

    values: dict[str, np.ndarray]
    lag_s: np.ndarray
    age_s: np.ndarray

    @classmethod
    def unknown(cls, spec: FeatureSpec, n: int) -> Remote:
        """Of a group whose state cannot be asked for."""
        return cls({a.name: np.full(n, np.nan) for a in spec.kept}, np.full(n, np.nan), np.full(n, np.inf))


class GroupReader:
    """Reads the one entity kind of `spec` as its owners left it in `store`.

    partitions: of the group's topic, by CRC32 of the entity's text. now_ms, monotonic_s: the clocks.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        store: Store,
        partitions: int,
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spec = spec
        self._trusted, self._partitions = TrustedReads(store, monotonic_s), partitions
        (self._kind,) = Layout(spec).kinds
        self._now_ms = now_ms
        self.refused = ""
        """Why what is stored cannot be used, in words; empty if it can."""
        values_at(self._kind, np.empty((0, self._kind.width)), np.empty(0, dtype=np.int64), len(spec.aggregates))

    async def read(self, fields: Columns, times: np.ndarray) -> Remote:
        """Of n events, by their `fields` and event times int64 [n] in ms. Raises what `Store.read` raises."""
        self.refused = ""
        texts = entity_keys([fields[name] for name in self._kind.fields])
        named = dict.fromkeys(text for text in texts if text is not None)
        rows = {text: row for row, text in enumerate(named, start=1)}
        wanted: dict[int, list[RowKey]] = {}
        places: dict[int, list[int]] = {}
        for (text, row), partition in zip(rows.items(), partitions_of(rows, self._partitions, "crc32"), strict=True):
            wanted.setdefault(partition, []).append(RowKey(self._kind.number, text))
            places.setdefault(partition, []).append(row)
        for asked in wanted.values():
            asked.append(PROGRESS)
        found = await self._found(wanted) if wanted else {}
        row_of = [0 if text is None else rows[text] for text in texts]
        return self._read(list(rows), row_of, times, places, found)

    async def _found(self, wanted: dict[int, list[RowKey]]) -> dict[int, Found]:
        found = dict(await self._trusted.read(wanted))
        for partition, (meta, rows) in found.items():
            if meta is not None and not self._keeps(meta):
                self.refused = f"its owner keeps other features ({meta.state_hash}, not {self.spec.state_hash})"
                found[partition] = Found(None, [None] * len(rows))
        return found

    def _keeps(self, meta: Meta) -> bool:
        """Whether the rows that a partition's owner keeps are those that are read here."""
        group = meta.groups.get(self._kind.number)
        return meta.state_hash == self.spec.state_hash or (group is not None and group.hash == self._kind.hash)

    def _read(
        self,
        names: list[str],
        row_of: list[int],
        times: np.ndarray,
        places: dict[int, list[int]],
        found: dict[int, Found],
    ) -> Remote:
        """names: of the entities, whose rows of the state begin with 1; row_of: each event's, 0 = none; places: the
        rows that were asked of each partition.
        """
        packed: list[bytes | None] = [None] * len(names)
        unknown = np.zeros(1 + len(names), dtype=np.bool_)
        newest, complete = np.full(1 + len(names), NEVER), np.full(1 + len(names), NEVER)
        for partition, (meta, values) in found.items():
            progress = UNKNOWN if meta is None else progress_of(values[-1], meta.incarnation, len(self.spec.streams))
            begun = meta is not None and meta.incarnation_of(self._kind.number) == meta.incarnation
            until = meta.until if meta is not None and begun else ()
            # An owner that has said nothing yet may not have read what there is.
            rebuilt = meta is None or (begun and meta.rebuilding) or progress == UNKNOWN
            for row, value in zip(places[partition], values[:-1], strict=True):
                if value is not None and not (until and behind(value, until)):
                    packed[row - 1] = value
                elif rebuilt or value is not None:
                    unknown[row] = True
            newest[places[partition]], complete[places[partition]] = progress
        try:
            state = unpack_states(packed, names, streams=len(self.spec.streams), template=self._kind.template)
        except CodecError as error:
            self.refused = f"what is stored is no row of it: {error}"
            return Remote.unknown(self.spec, len(times))
        at = np.array(row_of, dtype=np.int32)
        matrix = values_of(self._kind, state, times, len(self.spec.aggregates), at)
        matrix[unknown[at]] = np.nan
        lag_s = np.where(newest[at] == NEVER, np.nan, (times - newest[at]) / 1000)
        age_s = np.where(complete[at] == NEVER, np.inf, np.maximum(self._now_ms() - complete[at], 0) / 1000)
        age_s[at == 0] = np.nan
        columns = {a.name: matrix[:, place] for place, a in enumerate(self.spec.aggregates)}
        return Remote(columns, lag_s, age_s)


def is_stale(age_s: np.ndarray, fresh_ms: int | None) -> np.ndarray:
    """bool [n]: which ages are beyond the bound; None = there is none. NaN never is: the event names no entity."""
    return np.zeros(len(age_s), dtype=np.bool_) if fresh_ms is None else age_s > fresh_ms / 1000
