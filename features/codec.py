"""One entity's state as bytes, as a store keeps it; and the text that names an entity.

A packed row, little-endian:

    incarnation  u64
    streams      u32        S
    width        u32        W
    vector       i64 [S]    next offset of each stream: what is below is already in this row
    state        f64 [W]    as `features.layout` lays it out
    key          utf-8      the rest: the entity's key text, echoed, so that another row's answer is not taken
    for it

Everything before the key has a fixed size, so that many rows are packed and unpacked as one matrix.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

HEADER = struct.Struct("<QII")
SEPARATOR = "\x1f"
_ESCAPE = str.maketrans({"\\": "\\\\", SEPARATOR: "\\u"})
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


class CodecError(Exception):
    """A packed row that is not what was asked for: truncated, of another shape, or another entity's."""


class Unpacked(NamedTuple):
    """k rows that were present: their places in the list asked for, int64 vectors [k, S], float64 state [k,
    W].
    """

    places: np.ndarray
    vectors: np.ndarray
    rows: np.ndarray


def pack(incarnation: int, vectors: np.ndarray, rows: np.ndarray, keys: Sequence[str]) -> list[bytes]:
    """The packed rows of int64 vectors [n, S], float64 state [n, W] and n keys."""
    n, streams = vectors.shape
    width = rows.shape[1]
    size = HEADER.size + 8 * (streams + width)
    fixed = np.empty((n, size), dtype=np.uint8)
    at = HEADER.size + 8 * streams
    fixed[:, : HEADER.size] = np.frombuffer(HEADER.pack(incarnation, streams, width), dtype=np.uint8)
    fixed[:, HEADER.size : at] = np.ascontiguousarray(vectors, dtype="<i8").view(np.uint8)
    fixed[:, at:] = np.ascontiguousarray(rows, dtype="<f8").view(np.uint8)
    data = fixed.tobytes()
    return [
        data[start : start + size] + key.encode("utf-8", "surrogatepass")
        for start, key in zip(range(0, n * size, size), keys, strict=True)
    ]


def unpack(
    values: Sequence[bytes | None], keys: Sequence[str], *, incarnation: int, streams: int, width: int
) -> Unpacked:
    """The rows among `values` that belong to `incarnation`; None and rows of other incarnations are absent.

    Raises CodecError where a value is not a row of `streams` offsets and `width` numbers, or echoes another
    key.
    """
    size = HEADER.size + 8 * (streams + width)
    mine = incarnation.to_bytes(8, "little")
    shape = HEADER.pack(incarnation, streams, width)[8:]
    places = []
    for place, value in enumerate(values):
        if value is None:
            continue
        if len(value) < HEADER.size:
            raise CodecError(f"row of {keys[place]!r}: {len(value)} bytes are too few")
        if value[:8] != mine:
            continue
        if value[8 : HEADER.size] != shape or len(value) < size:
            raise CodecError(f"row of {keys[place]!r}: not {streams} offsets and {width} numbers")
        if value[size:] != keys[place].encode("utf-8", "surrogatepass"):
            raise CodecError(f"row of {keys[place]!r}: the stored row is of {key_of(value)!r}")
        places.append(place)
    data = b"".join([value[:size] for value in map(values.__getitem__, places) if value is not None])
    fixed = np.frombuffer(data, dtype=np.uint8).reshape(len(places), size)
    at = HEADER.size + 8 * streams
    return Unpacked(
        np.array(places, dtype=np.int64),
        np.ascontiguousarray(fixed[:, HEADER.size : at]).view("<i8"),
        np.ascontiguousarray(fixed[:, at:]).view("<f8"),
    )


def unpack_states(
    values: Sequence[bytes | None], keys: Sequence[str], *, streams: int, width: int, empty: bytes
) -> np.ndarray:
    """The state float64 [1 + n, width] of n rows of any incarnation, after one of zeros; `empty` where there is none.

    The state alone, in one copy. Raises CodecError as `unpack` does.
    """
    at = HEADER.size + 8 * streams
    size = at + 8 * width
    shape = HEADER.pack(0, streams, width)[8:]
    parts: list[Any] = [bytes(8 * width)]
    for value, key in zip(values, keys, strict=True):
        if value is None:
            parts.append(empty)
            continue
        if value[8 : HEADER.size] != shape or len(value) < size:
            raise CodecError(f"row of {key!r}: not {streams} offsets and {width} numbers")
        if value[size:] != key.encode("utf-8", "surrogatepass"):
            raise CodecError(f"row of {key!r}: the stored row is of {key_of(value)!r}")
        parts.append(memoryview(value)[at:size])
    return np.frombuffer(bytearray().join(parts), dtype="<f8").reshape(len(parts), width)


def vector_of(value: bytes) -> tuple[int, ...]:
    """What a packed row covers. Raises CodecError if it is no packed row."""
    streams = _header(value)[1]
    return struct.unpack_from(f"<{streams}q", value, HEADER.size)


def incarnation_of(value: bytes) -> int:
    """The incarnation a packed row belongs to. Raises CodecError if it is no packed row."""
    return _header(value)[0]


def key_of(value: bytes) -> str:
    """The key that a packed row echoes. Raises CodecError if it is no packed row."""
    _, streams, width = _header(value)
    return value[HEADER.size + 8 * (streams + width) :].decode("utf-8", "surrogatepass")


def _header(value: bytes) -> tuple[int, int, int]:
    if len(value) < HEADER.size:
        raise CodecError(f"{len(value)} bytes are too few for a row")
    incarnation, streams, width = HEADER.unpack_from(value)
    if len(value) < HEADER.size + 8 * (streams + width):
        raise CodecError(f"{len(value)} bytes are too few for {streams} offsets and {width} numbers")
    return incarnation, streams, width


def entity_key(components: Sequence[str | float | None]) -> str | None:
    """The key text of one entity; None if a component is null. `entity_keys` for a single record."""
    columns: list[Any] = [[c] if c is None or isinstance(c, str) else np.array([c]) for c in components]
    return entity_keys(columns)[0]


def entity_keys(columns: Sequence[Any]) -> list[str | None]:
    """Key texts of n records, from one column an entity field: list of str | None, or number [n] (NaN =
    null).

    One string field is its own key. Several are joined by U+001F; that and the backslash are escaped inside
    them. A number is written as an integer where it is one, so that 7, 7.0 and "7" name the same entity.
    """
    texts: list[list[Any]] = [c if isinstance(c, list) else _number_texts(c) for c in columns]
    if len(texts) == 1:
        return texts[0]
    try:
        clean = [text if _plain(text) else [part.translate(_ESCAPE) for part in text] for text in texts]
        return list(map(SEPARATOR.join, zip(*clean, strict=True)))
    except TypeError:  # a null among them
        return [
            None if None in parts else SEPARATOR.join([part.translate(_ESCAPE) for part in parts])
            for parts in zip(*texts, strict=True)
        ]


def components_of(key: str, n: int) -> list[str]:
    """The n texts that a key was made of: the inverse of `entity_keys`. Raises CodecError if they are not n.

    >>> components_of("JFK\\x1f7", 2)
    ['JFK', '7']
    """
    if n == 1:
        return [key]
    found = [_ESCAPED.sub(_unescaped, part) for part in key.split(SEPARATOR)]
    if len(found) != n:
        raise CodecError(f"{key!r} names {len(found)} fields, not {n}")
    return found


def _unescaped(escape: re.Match[str]) -> str:
    return SEPARATOR if escape[1] == "u" else escape[1]


def _plain(texts: list[str]) -> bool:
    """Whether none holds a character to escape: one search over all of them is cheaper than one a text."""
    together = "".join(texts)
    return SEPARATOR not in together and "\\" not in together


def _number_texts(column: np.ndarray) -> list[str | None]:
    if column.dtype.kind in "iub":
        return [str(int(number)) for number in column.tolist()]
    return [
        str(int(number)) if number.is_integer() else None if math.isnan(number) else repr(number)
        for number in column.tolist()
    ]
