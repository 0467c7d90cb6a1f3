"""A round: what the lanes give, laid out as the engine's columns and as the rows that predictions are made of."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from features.round import Round, Segment, StreamColumns
from streams.batches import Headers, changes
from streams.decoded import DeadLetter, Decoded
from streams.hop import Origin
from streams.lane import Take


@dataclass(frozen=True)
class ScoredRows:
    """The n scored records of a round, in the order of the features' rows.

    times, partitions, offsets: int64 [n]; headers: list [n], or None where no record has any.
    bits: int64 [n], the rules that each breaks; None where the source has none.
    origin: in a pipeline with remote groups. Partitions and offsets are then those of the events in their source.
    """

    ids: list[str]
    keys: list[bytes | None]
    times: np.ndarray
    partitions: np.ndarray
    offsets: np.ndarray
    headers: list[Headers | None] | None
    bits: np.ndarray | None = None
    origin: Origin | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def at(self, places: np.ndarray) -> ScoredRows:
        """Those at `places`, in that order."""
        order = places.tolist()
        return ScoredRows(
            [self.ids[i] for i in order],
            [self.keys[i] for i in order],
            self.times[places],
            self.partitions[places],
            self.offsets[places],
            None if self.headers is None else [self.headers[i] for i in order],
            None if self.bits is None else self.bits[places],
            None if self.origin is None else self.origin.at(places),
        )


@dataclass(frozen=True)
class Work:
    """One round of work: the engine's input, the rows to predict, the dead letters, and what it acknowledges."""

    columns: Round
    rows: ScoredRows
    dead: list[DeadLetter]
    takes: list[Take]
    records: int
    polled_ns: int

    @property
    def replays(self) -> bool:
        """Whether it only restores features, of events that were scored before."""
        return any(pieces for take in self.takes for pieces in take.replayed)

    @property
    def catches_up(self) -> bool:
        """Whether events are added that are not scored: replayed ones, or of before a remote group began."""
        return self.replays or any(c.stream == 0 and c.scored is not None for c in self.columns)


def assemble(takes: Sequence[Take], streams: int) -> Work:
    """Lays the takes of several partitions side by side; the order across partitions has no meaning."""
    base = 0
    parts: list[list[_Part]] = [[] for _ in range(streams)]
    for take in takes:
        base = _place(take, base, parts)
    lead = [part.piece for part in parts[0] if part.scored]
    return Work(
        columns=tuple(_columns(s, part, streams) for s, part in enumerate(parts) if part),
        rows=_rows(lead),
        dead=[letter for take in takes for letter in take.dead],
        takes=list(takes),
        records=base,
        polled_ns=min((part.piece.polled_ns for part in chain(*parts)), default=0),
    )


@dataclass(frozen=True)
class _Part:
    piece: Decoded
    places: np.ndarray
    scored: bool


def _place(take: Take, base: int, parts: list[list[_Part]]) -> int:
    """Adds the take's pieces with their places in the round's order; returns where the next take begins."""
    for stream, pieces in enumerate(take.replayed):
        for piece in pieces:
            parts[stream].append(_Part(piece, np.arange(base, base + len(piece)), scored=False))
            base += len(piece)
    for stream, pieces in enumerate(take.pieces):
        start = 0
        for whole in pieces:
            for piece, past in _by_past(whole):
                places = take.places[stream][start : start + len(piece)]
                parts[stream].append(_Part(piece, base + places, scored=stream == 0 and not past))
                start += len(piece)
    return base + sum(map(len, take.places))


def _by_past(piece: Decoded) -> list[tuple[Decoded, bool]]:
    """A piece as it is, or cut where events of before a group began meet others; and whether they are such."""
    if piece.origin is None or not piece.origin.past.any():
        return [(piece, False)]
    past = piece.origin.past
    cuts = itertools.pairwise([0, *changes(past), len(piece)])
    return [(piece.cut(start, stop), bool(past[start])) for start, stop in cuts]


def _columns(stream: int, parts: list[_Part], streams: int) -> StreamColumns:
    pieces = [part.piece for part in parts]
    scored = None
    if stream == 0 and not all(part.scored for part in parts):
        scored = np.repeat([part.scored for part in parts], [len(p) for p in pieces])
    return StreamColumns(
        stream=stream,
        segments=_segments(pieces),
        offsets=_joined([p.offsets for p in pieces]),
        times=_joined([p.times for p in pieces]),
        fields={name: _joined([p.fields[name] for p in pieces]) for name in pieces[0].fields},
        order=None if streams == 1 else np.concatenate([part.places for part in parts]),
        scored=scored,
    )


def _segments(pieces: Sequence[Decoded]) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    stop = 0
    for piece in pieces:
        start, stop = stop, stop + len(piece)
        if segments and segments[-1].partition == piece.partition:
            segments[-1] = Segment(piece.partition, segments[-1].start, stop)
        else:
            segments.append(Segment(piece.partition, start, stop))
    return tuple(segments)


def _rows(pieces: Sequence[Decoded]) -> ScoredRows:
    headers = None
    origins = [p.origin for p in pieces if p.origin is not None]
    origin = Origin.joined(origins) if origins else None
    if any(p.headers for p in pieces):
        headers = list(chain.from_iterable(p.headers or [None] * len(p) for p in pieces))
    return ScoredRows(
        ids=_joined([p.ids for p in pieces]) if pieces else [],
        keys=_joined([p.keys for p in pieces]) if pieces else [],
        times=_joined([p.times for p in pieces]) if pieces else np.empty(0, np.int64),
        partitions=np.repeat(np.array([p.partition for p in pieces], np.int64), list(map(len, pieces)))
        if origin is None
        else origin.partitions,
        offsets=(_joined([p.offsets for p in pieces]) if pieces else np.empty(0, np.int64))
        if origin is None
        else origin.offsets,
        headers=headers,
        bits=None if any(p.bits is None for p in pieces) or not pieces else _joined([p.bits for p in pieces]),
        origin=origin,
    )


def _joined(columns: Sequence[Any]) -> Any:
    if len(columns) == 1:
        return columns[0]
    if isinstance(columns[0], list):
        return list(chain.from_iterable(columns))
    return np.concatenate(columns)
