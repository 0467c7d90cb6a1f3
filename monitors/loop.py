"""The loop's events: a drift (`<pipeline>.drift`) and a retrain event (`<pipeline>.retrain`).

Their ids are hashes of what caused them, so that whoever makes one again, after a crash, makes the same.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal, TypeVar

import msgspec

from monitors.errors import RecordRefused

Reason = Literal["no_champion", "drift", "max_age", "schedule", "manual"]


class Side(msgspec.Struct, frozen=True):
    """One side of a change: the mean of the signal over `blocks` blocks, and how many events they hold."""

    mean: float
    blocks: int
    n: int


class Drift(msgspec.Struct, frozen=True):
    """A signal has changed, confirmed over the blocks `first` to `last` (numbers of blocks).

    time: end of the last block, ms. signal: `score`, `label`, `loss`, `errors`, `feature.<name>` or `null.<name>`.
    statistic beyond threshold: the detector's own. severity: 0 to 1, how far beyond.
    """

    id: str
    pipeline: str
    time: int
    signal: str
    detector: str
    statistic: float
    threshold: float
    before: Side
    after: Side
    first: int
    last: int
    severity: float


class Range(msgspec.Struct, frozen=True):
    """The examples to train on: those whose label was known before `to`; of events from `from` on. ms."""

    start: int = msgspec.field(name="from")
    to: int


class RetrainEvent(msgspec.Struct, frozen=True):
    """Train a new version. time: of the block that brought it (event time), ms; of a manual one, when it was asked.

    reason, drifts: why; drifts holds ids of drift events. labels: labelled rows there are up to range.to;
    new_labels: those since the retrain event before; coverage: share of predictions that got a label.
    policy: the declared policy, as plain values.
    """

    id: str
    pipeline: str
    time: int
    reason: Reason
    range: Range
    labels: int
    new_labels: int
    coverage: float
    spec_hash: str
    drifts: tuple[str, ...] = ()
    policy: dict[str, Any] = {}


def event_id(*parts: object) -> str:
    """16 hex digits of what made an event."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]


def to_json(event: Drift | RetrainEvent) -> bytes:
    return msgspec.json.encode(event, order="deterministic")


def drift_from_json(data: bytes) -> Drift:
    """Raises RecordRefused."""
    return _read(data, _drift, "drift event")


def retrain_from_json(data: bytes) -> RetrainEvent:
    """Raises RecordRefused."""
    return _read(data, _retrain, "retrain event")


_E = TypeVar("_E", Drift, RetrainEvent)
_drift = msgspec.json.Decoder(Drift)
_retrain = msgspec.json.Decoder(RetrainEvent)


def _read(data: bytes, decoder: msgspec.json.Decoder[_E], what: str) -> _E:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RecordRefused(f"not a {what}: {error}") from None
