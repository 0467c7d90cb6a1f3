"""The boundary between rounds: outputs delivered, offsets committed, and the state behind them copied for the store.

A checkpoint is copied at a boundary, before any later round touches the state, and written after the commit: the store
is never ahead of Kafka.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from features.checkpoint import Checkpoint
from features.engine import FeatureEngine
from features.progress import Progress
from features.store import Refused, Store, StoreUnavailable
from monitors.metrics import Metrics
from streams.delivery import Delivery, Positions
from streams.lane import Lane, Position
from streams.outputs import Outputs

log = structlog.get_logger(__name__)

_SLOW_S = 2.0
_WRITERS = 4
"""Partitions whose checkpoints are written at once: each waits for the server, and for rounds that are computed."""


@dataclass(frozen=True)
class Boundary:
    """Between two rounds: the positions to commit, and copies of the state behind them."""

    positions: Positions
    copies: list[Checkpoint]


class Committer:
    """Commits and checkpoints for the lanes of a worker.

    disowned: told of a partition whose checkpoint the store refused. progress: of the owner of a remote group, how far
    the lanes are, to be written with the checkpoints.
    """

    def __init__(
        self,
        delivery: Delivery,
        outputs: Outputs,
        engine: FeatureEngine,
        store: Store,
        metrics: Metrics,
        disowned: Callable[[int, str], None],
        progress: Callable[[Mapping[int, Lane]], Mapping[int, Progress]] | None = None,
    ) -> None:
        self._progress = progress
        self._delivery, self._outputs = delivery, outputs
        self._engine, self._store = engine, store
        self._metrics, self._disowned = metrics, disowned
        self.at_rest = asyncio.Lock()
        """Held from a `mark` to the end of its `finish`: who has it knows that no boundary is under way."""
        self._committed: dict[tuple[int, int], Position] = {}
        self._doubted = False  # whether Kafka may have older ones
        self._gone: set[int] = set()  # partitions forgotten since the last `mark`
        self._writing: asyncio.Task[None] | None = None
        self._pending_since: float | None = None  # monotonic; of the first commit since that was not done
        self._ended = asyncio.Event()
        self.hurried = False
        """Whether a checkpoint is wanted before its time."""
        self.store_away = ""
        """Why checkpoints cannot be written, in words; empty if they can."""

    def taken_over(self, partition: int, committed: list[Position]) -> None:
        """The partition is this worker's, with these positions committed."""
        for stream, position in enumerate(committed):
            self._committed[stream, partition] = position

    def forget(self, partition: int) -> None:
        """The partition is gone, or begins anew: what a boundary that is under way has of it is out of date."""
        self._gone.add(partition)
        self._committed = {at: position for at, position in self._committed.items() if at[1] != partition}

    def commit_anew(self) -> None:
        """Kafka may have older positions: the next boundary commits all, those too that have not moved."""
        self._doubted = True

    async def boundary(self, lanes: Mapping[int, Lane], *, checkpoint: bool, give_up: Callable[[], bool]) -> bool:
        """`mark` and `finish` at once, between rounds, with no round computing meanwhile."""
        return await self.finish(await self.mark(lanes, checkpoint=checkpoint), give_up=give_up)

    async def mark(self, lanes: Mapping[int, Lane], *, checkpoint: bool) -> Boundary:
        """What there is to commit now, between two rounds; with `checkpoint`, a copy of the state behind it.

        From here on outputs are held; `finish`, which must follow, ends that. Raises what the last checkpoint could not
        deal with.
        """
        await self.at_rest.acquire()
        self._gone.clear()
        try:
            boundary = self._marked(lanes, checkpoint)
        except BaseException:
            self.at_rest.release()
            raise
        self._outputs.hold()
        return boundary

    def _marked(self, lanes: Mapping[int, Lane], checkpoint: bool) -> Boundary:
        if self._writing is not None and self._writing.done():
            self._writing.result()
        if self._doubted:
            self._committed, self._doubted = {}, False
        ready = {p: lane for p, lane in lanes.items() if lane.recovered}
        positions = {
            (s, p): position
            for p, lane in ready.items()
            for s, position in enumerate(lane.positions)
            if position != self._committed.get((s, p))
        }
        copies: list[Checkpoint] = []
        if checkpoint and (self._writing is None or self._writing.done()):
            vectors = {p: tuple(x.next_offset for x in lane.positions) for p, lane in ready.items()}
            copies = self._engine.snapshot(vectors, None if self._progress is None else self._progress(ready))
            self.hurried = False
        return Boundary(positions, copies)

    async def finish(self, boundary: Boundary, *, give_up: Callable[[], bool]) -> bool:
        """Delivers what was sent, commits, and begins to write the copies.

        False if it could not commit; the same positions are tried at the next boundary. Raises what Delivery.commit and
        Outputs.release raise.
        """
        committed = False

        def delivered() -> Positions:
            self._outputs.release()
            return self._still(boundary.positions)

        try:
            committed = await self._commit(boundary.positions, give_up, delivered)
            self._outputs.release()
            if committed and (copies := [copy for copy in boundary.copies if copy.partition not in self._gone]):
                self._writing = asyncio.create_task(self._write(copies))
        except BaseException as error:
            committed = False  # as far as the copies go: what was sent behind them is missing
            self._outputs.drop(error)
            raise
        finally:
            if not committed:
                for copy in boundary.copies:
                    self._engine.write_failed(copy)
            self.at_rest.release()
        return committed

    def _still(self, positions: Positions) -> dict[tuple[int, int], Position]:
        """Those of partitions that have not gone meanwhile."""
        return {at: position for at, position in positions.items() if at[1] not in self._gone}

    async def relieve(self, within_s: float) -> None:
        """Wants a checkpoint now, and waits until the next one has been written or has failed, at most `within_s`."""
        self.hurried = True
        self._ended.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), within_s)

    async def written(self) -> None:
        """Waits until the checkpoint under way has been written, or has failed."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    @property
    def broker_away(self) -> str:
        """What Kafka has not taken for longer than a commit may take, in words; empty if nothing."""
        waited_s = 0.0 if self._pending_since is None else time.monotonic() - self._pending_since
        return f"Kafka has taken no commit for {waited_s:.0f} s" if waited_s > _SLOW_S else ""

    async def _commit(
        self, positions: Positions, give_up: Callable[[], bool], delivered: Callable[[], Positions]
    ) -> bool:
        if not positions:
            self._pending_since = None
            return True
        began = time.perf_counter()
        self._pending_since = self._pending_since or time.monotonic()
        committed = False
        try:
            committed = await self._delivery.commit(positions, give_up, delivered)
        finally:
            self._metrics.inc("weir_commits_total", result="ok" if committed else "failed")
        if committed:
            self._pending_since = None
            self._committed.update(self._still(positions))
            self._metrics.observe("weir_stage_seconds", time.perf_counter() - began, stage="commit")
        return committed

    async def _write(self, copies: list[Checkpoint]) -> None:
        began = time.perf_counter()
        writers = asyncio.Semaphore(_WRITERS)

        async def write(copy: Checkpoint) -> None:
            async with writers:
                await self._write_one(copy)

        try:
            ends = await asyncio.gather(*map(write, copies), return_exceptions=True)
        finally:  # whatever was not settled is dirty again
            for copy in copies:
                self._engine.write_failed(copy)
            self._ended.set()
        for error in filter(None, ends):
            raise error
        self._metrics.observe("weir_stage_seconds", time.perf_counter() - began, stage="checkpoint")

    async def _write_one(self, copy: Checkpoint) -> None:
        rows = copy.rows()
        try:
            meta = await self._store.write(copy.partition, copy.follows, copy.vector, rows)
        except StoreUnavailable as error:
            self._engine.write_failed(copy)
            self.store_away = f"checkpoints cannot be written: {error}"
            self._metrics.inc("weir_store_errors_total", operation="write")
            self._metrics.inc("weir_checkpoints_total", result="failed")
            log.warning("checkpoint failed, its rows are kept for the next", partition=copy.partition, error=str(error))
        except Refused as error:
            self._metrics.inc("weir_checkpoints_total", result="refused")
            if self._engine.write_failed(copy):  # else the partition went, or was taken over anew, meanwhile
                self._disowned(copy.partition, str(error))
        else:
            self._engine.written(copy, meta)
            self.store_away = ""
            self._metrics.inc("weir_checkpoints_total", result="written")
            self._metrics.inc("weir_checkpoint_rows_total", rows.count)
            self._metrics.inc("weir_checkpoint_bytes_total", rows.size)
