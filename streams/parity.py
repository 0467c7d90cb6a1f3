"""Parity, all the time and on a sample: a worker computes one key's features again from its events alone, and compares.

One key of one partition is followed: each of its events that a round has worked off goes to an engine that began empty
and keeps to memory. What carries state from round to round in the worker (checkpoints, loads, evictions, recovery)
has no part in that, so that a value which differs was spoilt by it. A value is compared once its whole window lies
after the newest event that the partition had when the key was taken up: nothing that counts in it came before. Of what
never forgets an event wholly (`forever`, the decayed ones) that is never known, and it is left out.

        newest event then     the key is followed
    ------------|-----------------------------------------------------
                      |- window -|x      is compared
          |- window -|x                   is not: what lies left of | was not seen
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import structlog

from features.arrivals import picked
from features.engine import Features, Folded
from features.offline import OfflineEngine
from features.round import Round, Segment, StreamColumns
from features.spec import forgets, reach_ms
from monitors.metrics import Metrics
from streams.lane import Lane
from streams.pipeline import Pipeline
from streams.rounds import Work

log = structlog.get_logger(__name__)

PAUSE_S = 10.0
"""Between two keys."""

MAX_PER_S = 2_000
"""Events of a followed key; one that has more is let go, for it would cost too much."""

CHECKED = 1_000
"""Events of a key that are compared for each window of its turn, before another key has one."""

SILENT_S = 60.0
"""A key without events for so long, and for the length of its turn's window, is let go."""


@dataclass
class _Followed:
    """A key of a partition. floors int64 [S]: of each stream, the newest event time when it was taken up.

    reach_ms: of the longest window of its turn; seen_s: when its latest event came; checked: values by feature.
    """

    key: Any
    lane: Lane
    floors: np.ndarray
    engine: OfflineEngine
    reach_ms: int
    seen_s: float
    second: int = 0
    in_second: int = 0
    checked: dict[str, int] = field(default_factory=dict)


class ParitySample:
    """Sees the rounds of a worker, after they are acknowledged. What goes wrong here is said, and scoring goes on.

    Keys are followed one after another, each until the windows of its turn have been compared: first the shortest, then
    longer ones, and so on round.
    """

    def __init__(self, pipeline: Pipeline, metrics: Metrics) -> None:
        self._spec, self._metrics = pipeline.spec, metrics
        self._key = pipeline.lead.key
        # What another owner keeps is as of what had come to it: it is not here that it could be recomputed.
        self._aggregates = [
            (column, a, reach_ms(a))
            for column, a in enumerate(self._spec.aggregates)
            if a.name not in self._spec.given and self._key in a.entity and forgets(a)
        ]
        self._turns = sorted({reach for _, _, reach in self._aggregates})
        self._turn = 0
        self._followed: _Followed | None = None
        self._next_s = 0.0

    def round(
        self, work: Work, features: Features | Folded, lanes: Mapping[int, Lane], guessed: list[int], now_s: float
    ) -> None:
        """One round; `guessed`: partitions whose state lacks what the store has. now_s: monotonic."""
        if not self._aggregates:
            return
        try:
            self._round(work, features, lanes, guessed, now_s)
        except Exception as error:
            log.warning("parity could not be checked", error=f"{type(error).__name__}: {error}")
            self._let_go(now_s)

    def _round(
        self, work: Work, features: Features | Folded, lanes: Mapping[int, Lane], guessed: list[int], now_s: float
    ) -> None:
        followed = self._followed
        if followed is None:
            if now_s >= self._next_s and not work.catches_up:
                self._take_up(work, lanes, guessed, now_s)
            return
        partition = followed.lane.partition
        if lanes.get(partition) is not followed.lane or partition in guessed or work.catches_up:
            self._let_go(now_s)  # taken over anew, or elsewhere: what was seen is not what the worker goes on from
            return
        mine, rows = _of_key(work.columns, self._key, followed.key, partition)
        if not mine:
            if now_s - followed.seen_s > followed.reach_ms / 1000 + SILENT_S:
                self._let_go(now_s)
            return
        followed.seen_s = now_s
        again = followed.engine.process(mine)
        if len(rows):
            self._compare(followed, mine, features.aggregates[rows], again.aggregates)
        if self._too_many(followed, sum(map(len, mine)), now_s) or self._enough(followed):
            self._let_go(now_s)

    def _take_up(self, work: Work, lanes: Mapping[int, Lane], guessed: list[int], now_s: float) -> None:
        """Follows the key of the round's last scored event, from the next round on."""
        lead = next((columns for columns in work.columns if columns.stream == 0), None)
        if lead is None or not len(lead):
            return
        partition = lead.segments[-1].partition
        lane = lanes.get(partition)
        if lane is None or partition in guessed:
            return
        positions = lane.positions
        if any(position.time < 0 < position.next_offset for position in positions):
            self._next_s = now_s + PAUSE_S  # it is not known how new the events were
            return
        key = lead.fields[self._key][-1]
        if key is not None:
            floors = np.array([position.time for position in positions], dtype=np.int64)
            reach = self._turns[self._turn % len(self._turns)]
            self._turn += 1
            self._followed = _Followed(key, lane, floors, OfflineEngine(self._spec), reach, now_s)

    def _let_go(self, now_s: float) -> None:
        self._followed, self._next_s = None, now_s + PAUSE_S

    def _compare(self, followed: _Followed, mine: Round, found: np.ndarray, again: np.ndarray) -> None:
        times = next(columns.times for columns in mine if columns.stream == 0)
        for column, aggregate, reach in self._aggregates:
            whole = times - reach > followed.floors[aggregate.stream]
            n = int(np.count_nonzero(whole))
            if not n:
                continue
            a, b = found[whole, column], again[whole, column]
            wrong = np.flatnonzero((a != b) & ~(np.isnan(a) & np.isnan(b)))
            followed.checked[aggregate.name] = followed.checked.get(aggregate.name, 0) + n
            self._metrics.inc("weir_parity_checked_total", n, feature=aggregate.name)
            if len(wrong):
                self._metrics.inc("weir_parity_mismatches_total", len(wrong), feature=aggregate.name)
                first = wrong[0]
                log.error(
                    "a feature is not what its events give",
                    feature=aggregate.name,
                    key=str(followed.key),
                    partition=followed.lane.partition,
                    time=int(times[whole][first]),
                    served=float(a[first]),
                    recomputed=float(b[first]),
                    mend="weir features diff finds the others",
                )

    def _too_many(self, followed: _Followed, events: int, now_s: float) -> bool:
        if int(now_s) != followed.second:
            followed.second, followed.in_second = int(now_s), 0
        followed.in_second += events
        return followed.in_second > MAX_PER_S

    def _enough(self, followed: _Followed) -> bool:
        turn = [a.name for _, a, reach in self._aggregates if reach <= followed.reach_ms]
        return all(followed.checked.get(name, 0) >= CHECKED for name in turn)


def _of_key(columns: Round, name: str, key: Any, partition: int) -> tuple[Round, np.ndarray]:
    """The events of a key alone as a round of one partition; and the rows of its scored events in the whole round."""
    places: list[tuple[StreamColumns, np.ndarray]] = []
    scored = np.empty(0, dtype=np.int64)
    for stream in columns:
        rows = _rows(stream, name, key, partition)
        if len(rows):
            places.append((stream, rows))
            if stream.stream == 0:
                scored = rows
    if not places:
        return (), scored
    orders = [rows if stream.order is None else stream.order[rows] for stream, rows in places]
    ranks = np.argsort(np.argsort(np.concatenate(orders)))
    cuts = np.cumsum([len(rows) for _, rows in places])[:-1]
    made = tuple(
        StreamColumns(
            stream=stream.stream,
            segments=(Segment(partition, 0, len(rows)),),
            offsets=stream.offsets[rows],
            times=stream.times[rows],
            fields={field_: picked(values, rows) for field_, values in stream.fields.items()},
            order=order,
        )
        for (stream, rows), order in zip(places, np.split(ranks, cuts), strict=True)
    )
    return made, scored


def _rows(columns: StreamColumns, name: str, key: Any, partition: int) -> np.ndarray:
    """int64 [m]: the rows of the key in the partition's segment."""
    found = next((segment for segment in columns.segments if segment.partition == partition), None)
    values = columns.fields.get(name)
    if found is None or values is None:
        return np.empty(0, dtype=np.int64)
    part = values[found.start : found.stop]
    if isinstance(part, list):
        if key not in part:
            return np.empty(0, dtype=np.int64)
        return found.start + np.array([row for row, value in enumerate(part) if value == key], dtype=np.int64)
    return found.start + np.flatnonzero(part == key)
