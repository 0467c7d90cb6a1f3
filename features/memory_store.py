"""A store within the process, for dry runs and tests: the contract whole, and gone with the process."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from features.store import Found, Meta, Refused, Row, RowKey, Vector, Wanted, check_load, of_incarnation


@dataclass
class _Partition:
    epoch: int | None = None
    partitions: int = 0
    meta: Meta | None = None
    rows: dict[RowKey, bytes] = field(default_factory=dict)


class MemoryStore:
    """See `features.store.Store`. No verb waits for anything."""

    def __init__(self) -> None:
        self._epoch = 0
        self._partitions: dict[int, _Partition] = {}

    async def claim(self, partition: int, partitions: int = 0) -> tuple[int, Meta | None]:
        self._epoch += 1  # one count for all partitions: unique after a wipe too
        held = self._held(partition)
        held.epoch = self._epoch
        held.partitions = partitions or held.partitions
        if held.meta is not None:
            held.meta = replace(held.meta, epoch=self._epoch, partitions=held.partitions)
        return self._epoch, held.meta

    async def begin(self, partition: int, meta: Meta) -> None:
        held = self._held(partition)
        if held.epoch != meta.epoch:
            raise Refused(partition, f"the owner epoch is {held.epoch}, not {meta.epoch}")
        there = held.meta
        if there is not None and there.incarnation == meta.incarnation and there.vector != meta.vector:
            raise Refused(partition, f"incarnation {meta.incarnation} has begun: {there}")
        held.meta = replace(meta, partitions=held.partitions, written_ms=_now_ms())

    async def load(self, wanted: Wanted, metas: Mapping[int, Meta]) -> dict[int, list[bytes | None]]:
        found = await self.read(wanted)
        for partition, (meta, _) in found.items():
            check_load(partition, metas[partition], meta)
        return {partition: rows for partition, (_, rows) in found.items()}

    async def read(self, wanted: Wanted, known: Mapping[int, Meta] | None = None) -> dict[int, Found]:
        answer: dict[int, Found] = {}
        for partition, keys in wanted.items():
            held = self._held(partition)
            if held.meta is None:
                answer[partition] = Found(None, [None] * len(keys))
            else:
                rows = of_incarnation(keys, [held.rows.get(key) for key in keys], held.meta)
                answer[partition] = Found(held.meta, rows)
        return answer

    async def write(self, partition: int, follows: Meta, vector: Vector, rows: Iterable[Row]) -> Meta:
        held = self._held(partition)
        if held.meta != follows:
            raise Refused(partition, f"the meta is {held.meta}, not {follows}")
        held.rows.update(rows)
        held.meta = replace(held.meta, vector=vector, written_ms=_now_ms())
        return held.meta

    async def close(self) -> None:
        """Nothing to close."""

    def _held(self, partition: int) -> _Partition:
        return self._partitions.setdefault(partition, _Partition())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
