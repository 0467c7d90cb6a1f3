"""A worker with one of its protections off, to see that the suite notices: `python -m … PROTECTION worker PIPELINE`.

Only here: the product has no such switch.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer

from features.engine import FeatureEngine
from features.store import Meta
from streams import cli, ownership, recovery, worker
from streams.commit import Boundary, Committer
from streams.intake import Intake
from streams.lane import Position
from streams.ownership import Ownership
from streams.pulse import Pulse


def state_dropped() -> None:
    """A partition that moves begins with empty state, where it was committed."""

    async def nothing_to_read(
        self: Ownership, partition: int, committed: list[Position], low: list[int], found: recovery.Plan
    ) -> list[int]:
        return [p.next_offset for p in committed]

    def dropped(_: Meta | None, hashes: Mapping[int, str], *__: Any) -> recovery.Plan:
        return recovery.rebuild_all(hashes, "dropped")

    ownership.plan = dropped  # type: ignore[attr-defined]
    Ownership._rebuild_start = nothing_to_read  # type: ignore[method-assign]


def written_first() -> None:
    """State is written before the commit, and taken as it is found, rows beyond the commit too."""
    mark, finish, own = Committer.mark, Committer.finish, FeatureEngine.own

    def trusting(self: FeatureEngine, partition: int, meta: Meta, *, empty: bool = False, **_: Any) -> None:
        own(self, partition, meta, empty=empty)

    def always_mark(self: Committer, lanes: Any, *, checkpoint: bool) -> Boundary:
        return mark(self, lanes, checkpoint=True)

    async def write_then_commit(self: Committer, boundary: Boundary, *, give_up: Callable[[], bool]) -> bool:
        await self.written()
        await self._write(boundary.copies)
        await asyncio.sleep(0.5)  # what a kill must hit
        return await finish(self, Boundary(boundary.positions, []), give_up=give_up)

    def as_found(
        meta: Meta | None, hashes: Mapping[int, str], committed: Sequence[int], low: Sequence[int]
    ) -> recovery.Plan:
        if meta is None:
            return recovery.plan(meta, hashes, committed, low)
        return recovery.Plan({n: g._replace(since=tuple(committed)) for n, g in meta.groups.items()}, {})

    FeatureEngine.own = trusting  # type: ignore[method-assign]
    Committer.mark = always_mark  # type: ignore[method-assign]
    Committer.finish = write_then_commit  # type: ignore[method-assign]
    ownership.plan = as_found  # type: ignore[attr-defined]


def no_fencing() -> None:
    """Offsets are committed for the group by anybody; partitions that were lost are given up as if revoked."""
    transactional_config = worker.transactional_config

    async def as_anybody(self: Intake, positions: Any) -> Any:
        if not hasattr(self, "_anybody"):
            self._anybody = Consumer({**self._config, "group.instance.id": None})  # type: ignore[attr-defined]
        return self._offsets(positions), self._anybody.consumer_group_metadata()  # type: ignore[attr-defined]

    Intake.offsets_and_group = as_anybody  # type: ignore[method-assign]
    Ownership.lost = Ownership.revoked  # type: ignore[method-assign]
    Pulse.stood_still_s = lambda self: 0.0  # type: ignore[method-assign]
    worker.transactional_config = lambda *a: {  # type: ignore[attr-defined]
        **transactional_config(*a),
        "transaction.timeout.ms": 60_000,
    }


PROTECTIONS: dict[str, Callable[[], None]] = {
    "state_dropped": state_dropped,
    "written_first": written_first,
    "no_fencing": no_fencing,
}

if __name__ == "__main__":
    PROTECTIONS[sys.argv.pop(1)]()
    sys.exit(cli.main())
