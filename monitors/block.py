"""The block record: what a stretch of event time looked like, as one record of `<pipeline>.blocks`.

Blocks are what detectors, the retrain policy and the roll-out fold over, in the order of `number`. Two runs over the
same records give the same blocks, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from monitors.errors import RecordRefused


class Column(msgspec.Struct, frozen=True, omit_defaults=True):
    """One signal's values in a block: a feature's or the score's.

    n: how many were there; nulls: how many were missing. mean, std (population), least, most: of the n; 0 where n is 0,
    and for categories. bins: of numbers, how many fell into each bin of `monitors.histogram`, by its number as text;
    of categories, how many by value.
    """

    n: int
    nulls: int = 0
    mean: float = 0.0
    std: float = 0.0
    least: float = 0.0
    most: float = 0.0
    bins: dict[str, int] = {}


class VersionLoss(msgspec.Struct, frozen=True, omit_defaults=True):
    """How good one model version was on the rows whose label became known in a block.

    n: labelled rows that it scored, on whatever arm; served: those of them that it was champion or canary for.
    loss: mean log loss; brier: mean squared error of the probability; errors: share on the wrong side of 0.5;
    score, label: their means (calibration: they agree). All 0 where n is 0.
    """

    n: int
    served: int = 0
    loss: float = 0.0
    brier: float = 0.0
    errors: float = 0.0
    score: float = 0.0
    label: float = 0.0


class Paired(msgspec.Struct, frozen=True):
    """Two versions on the same labelled rows: a shadow against the version that was served.

    n: rows; difference: sum of loss(shadow) − loss(served); squares: sum of its squares.
    """

    shadow: str
    served: str
    n: int
    difference: float
    squares: float


class Labelled(msgspec.Struct, frozen=True, omit_defaults=True):
    """Labels that became known in a block.

    n: labels that met a prediction; value: their mean; delay_s: mean time from prediction to label, seconds;
    late, missing, unmatched, duplicate, conflicting: as in monitors.join.JoinCounts, of this block alone.
    """

    n: int = 0
    value: float = 0.0
    delay_s: float = 0.0
    late: int = 0
    missing: int = 0
    unmatched: int = 0
    duplicate: int = 0
    conflicting: int = 0


class Block(msgspec.Struct, frozen=True, omit_defaults=True):
    """Predictions whose event time, and labels whose own time, lies in [start, end), ms since 1970.

    id: `<pipeline>-<number>`; number rises with time, and is what orders blocks (numbers without events are left out).
    predictions: how many; unscored: how many of them had no score; served: how many each version scored as champion or
    canary. late: records of an earlier block that came when that was closed, and count here.
    features, score: by name, the columns; score is of the arm that was served.
    versions: by version. positions: by topic and partition (as text), the offset after the last record that counts.
    """

    id: str
    pipeline: str
    number: int
    start: int
    end: int
    predictions: int = 0
    unscored: int = 0
    late: int = 0
    served: dict[str, int] = {}
    features: dict[str, Column] = {}
    score: Column = Column(0)
    labels: Labelled = Labelled()
    versions: dict[str, VersionLoss] = {}
    paired: tuple[Paired, ...] = ()
    positions: dict[str, dict[str, int]] = {}


_decode = msgspec.json.Decoder(Block).decode


def to_json(block: Block) -> bytes:
    return msgspec.json.encode(block, order="deterministic")


def from_json(data: bytes) -> Block:
    """Fields it does not know are ignored. Raises RecordRefused with the field that is wrong."""
    try:
        return _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RecordRefused(f"not a block: {error}") from None


Positions = Mapping[str, Mapping[int, int]]
"""By topic and partition, the offset of the next record to read."""


def positions_of(block: Block) -> dict[str, dict[int, int]]:
    """Its positions with partitions as numbers."""
    return {topic: {int(p): offset for p, offset in found.items()} for topic, found in block.positions.items()}


def texts(positions: Positions) -> dict[str, dict[str, int]]:
    """Positions as a block holds them."""
    return {topic: {str(p): o for p, o in sorted(found.items())} for topic, found in sorted(positions.items())}


def as_object(block: Block) -> dict[str, Any]:
    """The block as plain values, for people."""
    found: dict[str, Any] = msgspec.to_builtins(block)
    return found
