"""The boundary: what is committed and checkpointed, in which order, and what is kept when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from features.engine import FeatureEngine
from features.memory_store import MemoryStore
from features.store import Meta, RowKey
from monitors.metrics import Metrics
from streams import Event, Pipeline, Source
from streams.commit import Committer
from streams.decode import decoder_of
from streams.delivery import Positions
from streams.lane import Lane, Position
from streams.outputs import Outputs
from streams.rounds import assemble
from tests.streams.records import NOW, Record, batch


class Payment(Event):
    user: str
    ts: int


PAYMENTS = Source("payments", Payment, key="user", time="ts")
PIPELINE = Pipeline("p", score=PAYMENTS, features=[PAYMENTS.by("user").count("1h")], model="m")
STATE = PIPELINE.spec.state_hash


class Deliveries:
    """A guarantee without Kafka: what was committed, and an answer for each commit to come."""

    def __init__(self) -> None:
        self.committed: list[dict[tuple[int, int], Position]] = []
        self.answers: list[bool | Exception] = []
        self.delivering, self.committing = asyncio.Event(), asyncio.Event()
        """What the delivery waits for, and after it the offsets."""
        self.delivering.set()
        self.committing.set()

    async def commit(
        self, positions: Positions, give_up: Callable[[], bool], delivered: Callable[[], Positions]
    ) -> bool:
        await self.delivering.wait()
        positions = delivered()
        await self.committing.wait()
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, Exception):
            raise answer
        if answer:
            self.committed.append(dict(positions))
        return answer


class Sending:
    """Outputs of which only this is known: whether they are held, and what they were dropped for."""

    def __init__(self) -> None:
        self.held = False
        self.dropped: list[str] = []

    def hold(self) -> None:
        assert not self.held
        self.held = True

    def release(self) -> None:
        self.held = False

    def drop(self, error: BaseException) -> None:
        self.held = False
        self.dropped.append(str(error))


class Bench:
    """One owned partition with its lane, engine and store."""

    def __init__(self) -> None:
        self.store, self.metrics, self.delivery = MemoryStore(), Metrics(), Deliveries()
        self.engine = FeatureEngine(PIPELINE.spec, self.store)
        self.disowned: list[int] = []
        self.outputs = Sending()
        self.committer = Committer(
            self.delivery,
            cast(Outputs, self.outputs),
            self.engine,
            self.store,
            self.metrics,
            lambda partition, _: self.disowned.append(partition),
        )
        self.lane = Lane(0, [0], [Position(0)], 1)
        self.offset = 0

    async def own(self) -> None:
        epoch, _ = await self.store.claim(0)
        meta = Meta(epoch, epoch, STATE, (0,))
        await self.store.begin(0, meta)
        self.engine.own(0, meta, empty=True)
        self.committer.taken_over(0, [Position(0)])

    async def round(self, *users: str) -> None:
        records = [Record({"user": user, "ts": NOW}) for user in users]
        self.lane.add(decoder_of(PAYMENTS, 0, PIPELINE.spec).decode(batch(records, first=self.offset)))
        self.offset += len(users)
        take = self.lane.take()
        assert take is not None
        work = assemble([take], 1)
        await self.engine.load(work.columns)
        self.engine.process(work.columns)
        self.lane.drop(take)

    async def boundary(self, *, checkpoint: bool = True) -> bool:
        done = await self.committer.boundary({0: self.lane}, checkpoint=checkpoint, give_up=lambda: False)
        await self.committer.written()
        return done

    async def stored(self, *users: str) -> tuple[tuple[int, ...] | None, list[bool]]:
        """The vector that the store has, and which users' rows."""
        number = self.engine.layout.kinds[0].number
        found = (await self.store.read({0: [RowKey(number, user) for user in users]}))[0]
        return (None if found.meta is None else found.meta.vector), [row is not None for row in found.rows]


async def broken(*_: object) -> Meta:
    raise RuntimeError("no store")


@pytest.fixture
async def bench() -> Bench:
    made = Bench()
    await made.own()
    return made


async def test_a_boundary_commits_positions_and_writes_the_rows_behind_them(bench: Bench) -> None:
    await bench.round("a", "b")
    assert await bench.boundary()
    assert bench.delivery.committed == [{(0, 0): Position(2, time=NOW)}]
    assert await bench.stored("a", "b", "c") == ((2,), [True, True, False])


async def test_rows_and_bytes_are_counted_as_they_are_stored(bench: Bench) -> None:
    await bench.round("a", "long name")
    assert await bench.boundary()
    number = bench.engine.layout.kinds[0].number
    stored = (await bench.store.read({0: [RowKey(number, "a"), RowKey(number, "long name")]}))[0].rows
    assert bench.metrics.value("weir_checkpoint_rows_total") == 2
    assert bench.metrics.value("weir_checkpoint_bytes_total") == sum(len(row or b"") for row in stored) > 0


async def test_a_boundary_where_nothing_happened_commits_nothing(bench: Bench) -> None:
    assert await bench.boundary()
    await bench.round("a")
    assert await bench.boundary()
    assert await bench.boundary()
    assert len(bench.delivery.committed) == 1


async def test_where_kafka_may_have_older_offsets_all_are_committed_again_until_it_has_them(bench: Bench) -> None:
    await bench.round("a")
    assert await bench.boundary()
    bench.committer.commit_anew()
    bench.delivery.answers = [False]
    assert not await bench.boundary()
    assert await bench.boundary()
    assert await bench.boundary()
    assert bench.delivery.committed == [{(0, 0): Position(1, time=NOW)}] * 2


async def test_between_checkpoints_only_offsets_are_committed(bench: Bench) -> None:
    await bench.round("a")
    assert await bench.boundary(checkpoint=False)
    assert await bench.stored("a") == ((0,), [False])
    assert await bench.boundary()
    assert await bench.stored("a") == ((1,), [True])


async def test_the_store_is_never_ahead_of_a_commit_that_failed(bench: Bench) -> None:
    await bench.round("a")
    bench.delivery.answers = [False]
    assert not await bench.boundary()
    assert await bench.stored("a") == ((0,), [False])
    await bench.round("b")
    assert await bench.boundary()
    assert bench.delivery.committed == [{(0, 0): Position(2, time=NOW)}]
    assert await bench.stored("a", "b") == ((2,), [True, True])


async def test_a_commit_that_raises_keeps_the_rows_for_the_next_checkpoint(bench: Bench) -> None:
    await bench.round("a")
    bench.delivery.answers = [RuntimeError("gone")]
    with pytest.raises(RuntimeError, match="gone"):
        await bench.boundary()
    assert bench.outputs.dropped == ["gone"]
    assert await bench.boundary()
    assert await bench.stored("a") == ((1,), [True])


async def test_the_next_round_may_compute_while_a_commit_runs_and_is_not_in_its_checkpoint(bench: Bench) -> None:
    await bench.round("a")
    boundary = await bench.committer.mark({0: bench.lane}, checkpoint=True)
    await bench.round("b")
    assert await bench.committer.finish(boundary, give_up=lambda: False)
    assert bench.delivery.committed == [{(0, 0): Position(1, time=NOW)}]
    await bench.committer.written()
    assert await bench.stored("a", "b") == ((1,), [True, False])
    assert await bench.boundary()
    assert await bench.stored("a", "b") == ((2,), [True, True])


async def test_sending_goes_on_once_all_is_delivered_and_the_next_boundary_waits_for_the_commit(bench: Bench) -> None:
    await bench.round("a")
    bench.delivery.committing.clear()
    first = await bench.committer.mark({0: bench.lane}, checkpoint=True)
    assert bench.outputs.held
    finishing = asyncio.create_task(bench.committer.finish(first, give_up=lambda: False))
    await asyncio.sleep(0)
    assert not bench.outputs.held
    await bench.round("b")
    second = asyncio.create_task(bench.boundary())
    await asyncio.sleep(0.01)
    assert bench.delivery.committed == []
    assert not second.done()
    bench.delivery.committing.set()
    assert await finishing
    assert await second
    assert [committed[0, 0].next_offset for committed in bench.delivery.committed] == [1, 2]


async def test_what_was_held_is_sent_where_the_commit_has_to_be_tried_again(bench: Bench) -> None:
    await bench.round("a")
    bench.delivery.answers = [False]
    assert not await bench.boundary()
    assert not bench.outputs.held
    assert bench.outputs.dropped == []


async def test_what_is_held_and_cannot_be_sent_after_all_costs_the_checkpoint_of_before_nothing(bench: Bench) -> None:
    await bench.round("a")
    bench.outputs.release = broken_off  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="no broker"):
        await bench.boundary()
    assert bench.outputs.dropped == ["no broker"]
    assert await bench.stored("a") == ((0,), [False])
    bench.outputs.release = lambda: setattr(bench.outputs, "held", False)  # type: ignore[method-assign]
    await bench.round("b")
    assert await bench.boundary()
    assert await bench.stored("a", "b") == ((2,), [True, True])


async def test_at_rest_no_boundary_is_under_way(bench: Bench) -> None:
    await bench.round("a")
    bench.delivery.committing.clear()
    marked = await bench.committer.mark({0: bench.lane}, checkpoint=False)
    finishing = asyncio.create_task(bench.committer.finish(marked, give_up=lambda: False))
    resting = asyncio.create_task(rest(bench.committer))
    await asyncio.sleep(0.01)
    assert not resting.done()
    bench.delivery.committing.set()
    assert await finishing
    await asyncio.wait_for(resting, 1)


async def rest(committer: Committer) -> None:
    async with committer.at_rest:
        pass


def broken_off() -> None:
    raise RuntimeError("no broker")


async def test_a_partition_that_goes_while_its_outputs_are_delivered_is_neither_committed_nor_written(
    bench: Bench,
) -> None:
    # Somebody else has it by then, or this worker once more, from another position: its own would set offsets back, and
    # what the store had of it would be ahead of them.
    await bench.round("a")
    bench.delivery.delivering.clear()
    boundary = await bench.committer.mark({0: bench.lane}, checkpoint=True)
    finishing = asyncio.create_task(bench.committer.finish(boundary, give_up=lambda: False))
    await asyncio.sleep(0)
    bench.engine.release(0)
    bench.committer.forget(0)
    bench.committer.taken_over(0, [Position(9)])
    bench.delivery.delivering.set()
    await finishing
    await bench.committer.written()
    assert bench.delivery.committed == [{}]
    assert await bench.stored("a") == ((0,), [False])
    bench.lane = Lane(0, [9], [Position(9)], 2)
    assert await bench.boundary()
    assert bench.delivery.committed == [{}], "9 is committed already"


async def test_a_checkpoint_that_failed_for_good_is_said_at_the_next_boundary_which_holds_nothing(bench: Bench) -> None:
    await bench.round("a")
    bench.store.write = broken  # type: ignore[method-assign, assignment]
    assert await bench.boundary()
    with pytest.raises(RuntimeError, match="no store"):
        await bench.committer.mark({0: bench.lane}, checkpoint=False)
    assert not bench.outputs.held
    with pytest.raises(RuntimeError, match="no store"):  # and not a lock that is held for ever
        await asyncio.wait_for(bench.committer.mark({0: bench.lane}, checkpoint=False), 1)


async def test_a_partition_that_the_store_refuses_is_disowned_and_loses_no_commit(bench: Bench) -> None:
    await bench.round("a")
    await bench.store.claim(0)  # another worker
    assert await bench.boundary()
    assert bench.disowned == [0]
    assert bench.delivery.committed == [{(0, 0): Position(1, time=NOW)}]
    assert await bench.stored("a") == ((0,), [False])


async def test_a_lane_that_has_not_recovered_commits_nothing(bench: Bench) -> None:
    bench.lane = Lane(0, [0], [Position(5)], 2)
    assert await bench.boundary()
    assert bench.delivery.committed == []


async def test_a_forgotten_partition_is_committed_anew_from_what_it_is_taken_over_with(bench: Bench) -> None:
    await bench.round("a")
    assert await bench.boundary()
    bench.committer.forget(0)
    bench.committer.taken_over(0, [Position(1, time=NOW)])
    assert await bench.boundary()
    assert len(bench.delivery.committed) == 1
