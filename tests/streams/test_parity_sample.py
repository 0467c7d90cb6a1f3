"""A worker checks itself: a followed key's values, computed again from its events alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import structlog

from features.offline import OfflineEngine
from features.round import StreamColumns
from features.spec import forgets
from monitors.metrics import Metrics
from streams.lane import Lane, Position
from streams.offline.reading import chunks
from streams.offline.rows import Reading
from streams.offline.wanted import wanted_of
from streams.parity import ParitySample
from streams.rounds import Work, assemble
from tests.integration.shop import shop, wide_shop
from tests.integration.tape import Tape
from tests.parity.sides import inputs


@pytest.fixture
def tape(tmp_path: Path) -> Tape:
    return shop(tmp_path, "shop", 1500)


def rounds(tape: Tape, folder: Path, lane: Lane) -> Iterator[Work]:
    """What a worker of one partition works off, as it comes: both streams in turn, a few records a round."""
    given = inputs(tape, folder)
    spec = tape.pipeline.spec
    streams = [
        chunks(wanted_of(source, s, spec), s, given[source.topic], Reading(rows=100 * (s + 1)))
        for s, source in enumerate(tape.pipeline.sources)
    ]
    for both in zip(*streams, strict=False):
        for chunk in both:
            for piece in chunk.pieces:
                if piece.partition == lane.partition:
                    lane.add(piece)
        take = lane.take()
        if take is not None and take.records:
            lane.drop(take)
            yield assemble([take], len(streams))


def new_lane() -> Lane:
    return Lane(1, [0, 0], [Position(0), Position(0)], 0)


def checked(
    tape: Tape, folder: Path, spoil: Callable[[int, np.ndarray], None] | None = None, lost_at: int | None = None
) -> Metrics:
    """The metrics of a worker whose values `spoil` changes, or whose state is lost at a round."""
    metrics, lane = Metrics(), new_lane()
    sample, engine = ParitySample(tape.pipeline, metrics), OfflineEngine(tape.pipeline.spec)
    for i, work in enumerate(rounds(tape, folder, lane)):
        if i == lost_at:
            engine = OfflineEngine(tape.pipeline.spec)
        features = engine.process(work.columns)
        if spoil is not None:
            spoil(i, features.aggregates)
        sample.round(work, features, {1: lane}, [], float(i))
    return metrics


def test_right_values_are_checked_and_none_differs(tape: Tape, tmp_path: Path) -> None:
    metrics = checked(tape, tmp_path)
    for aggregate in tape.pipeline.spec.aggregates:
        assert metrics.value("weir_parity_checked_total", feature=aggregate.name) > 5, aggregate.name
    assert metrics.total("weir_parity_mismatches_total") == 0


def test_rounds_of_which_some_events_are_not_scored_are_left_out(tape: Tape, tmp_path: Path) -> None:
    metrics, lane = Metrics(), new_lane()
    sample, engine = ParitySample(tape.pipeline, metrics), OfflineEngine(tape.pipeline.spec)
    with structlog.testing.capture_logs() as logs:
        for i, work in enumerate(rounds(tape, tmp_path, lane)):
            if i % 4 == 3:
                work = replace(work, columns=tuple(map(half_scored, work.columns)))
            sample.round(work, engine.process(work.columns), {1: lane}, [], 100.0 * i)
    assert metrics.total("weir_parity_checked_total") > 0
    assert metrics.total("weir_parity_mismatches_total") == 0
    assert logs == []


def half_scored(columns: StreamColumns) -> StreamColumns:
    return columns if columns.stream else replace(columns, scored=np.arange(len(columns)) % 2 == 1)


def test_every_aggregation_is_checked_that_forgets_what_was_before_its_key_was_followed(tmp_path: Path) -> None:
    tape = wide_shop(tmp_path, "shop", 1500)
    metrics = checked(tape, tmp_path)
    for aggregate in tape.pipeline.spec.aggregates:
        seen = metrics.value("weir_parity_checked_total", feature=aggregate.name)
        assert seen > 5 if forgets(aggregate) else seen == 0, aggregate.name
    assert [a.name for a in tape.pipeline.spec.aggregates if not forgets(a)] == [
        "user_count_forever",
        "visitor_streak_page_forever",
        "visitor_decayed_count_10m",
        "visitor_decayed_mean_seconds_10m",
    ]
    assert metrics.total("weir_parity_mismatches_total") == 0


def test_a_wrong_value_is_counted_under_its_feature(tape: Tape, tmp_path: Path) -> None:
    names = [a.name for a in tape.pipeline.spec.aggregates]

    def spoil(_: int, aggregates: np.ndarray) -> None:
        aggregates[:, 1] += 1.0

    metrics = checked(tape, tmp_path, spoil)
    wrong = metrics.value("weir_parity_mismatches_total", feature=names[1])
    assert wrong == metrics.value("weir_parity_checked_total", feature=names[1]) > 0
    assert metrics.total("weir_parity_mismatches_total") == wrong


def test_state_that_was_lost_is_noticed(tape: Tape, tmp_path: Path) -> None:
    assert checked(tape, tmp_path, lost_at=8).total("weir_parity_mismatches_total") > 0


def test_a_partition_that_was_taken_over_anew_or_is_guessed_lets_the_key_go(tape: Tape, tmp_path: Path) -> None:
    metrics, lane = Metrics(), new_lane()
    sample, engine = ParitySample(tape.pipeline, metrics), OfflineEngine(tape.pipeline.spec)
    for i, work in enumerate(rounds(tape, tmp_path, lane)):
        features = engine.process(work.columns)
        features.aggregates[:] = -1.0  # whatever were compared would differ
        sample.round(work, features, {} if i % 2 else {1: lane}, [1] if i % 4 == 2 else [], float(20 * i))
    assert metrics.total("weir_parity_checked_total") == 0
