"""JSON lines: each is decoded as a record's value is, by the stream's own decoder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from streams.batches import RecordBatch
from streams.contract import STAGE
from streams.decode import Decoder
from streams.decoded import Decoded
from streams.errors import UsageError
from streams.offline.columns import TIMESTAMP
from streams.offline.rejects import Reject
from streams.offline.rows import TIME, Reading, Rows
from streams.offline.wanted import EXACT, Wanted
from streams.source import Source

_BYTES = 8 << 20
_PREFIX = "weir"
"""Before the name of a place column: a field's name may not begin with "_"."""


def json_rows(wanted: Wanted, path: Path, reading: Reading) -> Iterator[Rows]:
    """The rows of a file, some megabytes at a time."""
    if reading.sort is not None:
        raise UsageError(f"--sort {reading.sort}: {path} is JSON lines, which are read in their order")
    try:
        decoder, places = _decoder(wanted, path, reading)
        first = 1
        with path.open("rb") as file:
            while lines := file.readlines(_BYTES):
                batch = _batch(lines, first)
                decoded = decoder.decode(batch)
                rejects = [
                    Reject(wanted.topic, str(path), d.offset, d.stage, d.code, d.reason, d.field, _text(d.value))
                    for d in decoded.dead
                ]
                for name in wanted.exact:
                    decoded.fields[EXACT + name] = decoded.fields[name]
                    decoded.fields[name] = decoded.fields[name].astype(np.float64)
                decoded, ahead = _within_skew(wanted, path, decoded, lines, first)
                decoded, broken = _by_contract(wanted, path, decoded, lines, first)
                rejects = sorted([*rejects, *ahead, *broken], key=lambda reject: reject.row)
                yield Rows(_columns(wanted, decoded, places), rejects, len(batch))
                first += len(lines)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def _decoder(wanted: Wanted, path: Path, reading: Reading) -> tuple[Decoder, list[str]]:
    """A decoder of the event's fields and the place columns that there are; and what these are."""
    with path.open("rb") as file:
        line = file.readline()
    try:
        has = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        has = None
    places = reading.found(has if isinstance(has, dict) else ()).of()
    added: list[Any] = [(_PREFIX + what, int, msgspec.field(name=name)) for what, name in places.items()]
    time = wanted.time
    if time is None:
        time = f"{_PREFIX}_time"
        added.append((time, int, 0))
    event = msgspec.defstruct(wanted.event.__name__, added, bases=(wanted.event,), kw_only=True, gc=False)
    key = wanted.key or wanted.id or time
    source = Source(wanted.topic, event, key=key, id=wanted.id, time=time)  # type: ignore[arg-type]
    placed = {_PREFIX + what for what in places}
    naming = {name for name, dtype in wanted.numbers.items() if dtype is np.int64} | wanted.inexact | placed
    naming |= wanted.exact
    decoder = Decoder(source, 0, numbers={*wanted.numbers, *placed}, texts=set(wanted.texts), naming=naming)
    return decoder, list(places)


def _batch(lines: list[bytes], first: int) -> RecordBatch:
    """Lines as records, their offsets the numbers of the lines; without the empty ones."""
    numbers = np.arange(first, first + len(lines), dtype=np.int64)
    if b"\n" in lines:
        keep = [i for i, line in enumerate(lines) if line.strip()]
        lines, numbers = [lines[i] for i in keep], numbers[keep]
    never_ahead = np.full(len(lines), np.iinfo(np.int64).max // 2)  # `_within_skew` looks at it
    return RecordBatch(0, 0, [b""] * len(lines), list(lines), numbers, never_ahead, None, 0, 0)


def _within_skew(
    wanted: Wanted, path: Path, decoded: Decoded, lines: list[bytes], first: int
) -> tuple[Decoded, list[Reject]]:
    timestamps = decoded.fields.get(_PREFIX + TIMESTAMP)
    if timestamps is None or wanted.time is None:
        return decoded, []
    ahead = decoded.times - timestamps > wanted.max_skew_ms
    if not ahead.any():
        return decoded, []
    rejects = []
    for row in np.flatnonzero(ahead).tolist():
        number = int(decoded.offsets[row])
        reason = (
            f"event time {decoded.times[row]} is more than {wanted.max_skew_ms / 1000:.0f} s ahead of the record's "
            "timestamp"
        )
        value = _text(lines[number - first])
        rejects.append(Reject(wanted.topic, str(path), number, "time", "ahead", reason, wanted.time, value))
    return decoded.only(np.flatnonzero(~ahead)), rejects


def _by_contract(
    wanted: Wanted, path: Path, decoded: Decoded, lines: list[bytes], first: int
) -> tuple[Decoded, list[Reject]]:
    """Without what the rules of the source keep out of the stream."""
    if wanted.contract is None:
        return decoded, []
    timestamps = decoded.fields.get(_PREFIX + TIMESTAMP)
    behind_ms = None if timestamps is None else timestamps - decoded.times
    judged = wanted.contract.judged(decoded.fields, decoded.times, behind_ms)
    rejects = []
    for row in np.flatnonzero(judged.gone).tolist():
        number = int(decoded.offsets[row])
        value = _text(lines[number - first])
        rejects.append(Reject(wanted.topic, str(path), number, STAGE, *judged.why(row), value))
    return (decoded.only(np.flatnonzero(~judged.gone)) if rejects else decoded), rejects


def _columns(wanted: Wanted, decoded: Decoded, places: list[str]) -> dict[str, Any]:
    exact = [EXACT + name for name in wanted.exact]
    columns = {name: decoded.fields[name] for name in (*wanted.texts, *wanted.numbers, *exact)}
    columns |= {what: decoded.fields[_PREFIX + what] for what in places}
    if wanted.time is not None:
        columns[TIME] = decoded.times
    return columns


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace").rstrip("\r\n")
