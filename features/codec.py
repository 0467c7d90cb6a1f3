"""One entity's state as bytes, as a store keeps it; and the text that names an entity.

A packed row, little-endian:

    incarnation  u64
    streams      u32        S
    width        u32        W
    vector       i64 [S]    next offset of each stream: what is below is already in this row
    mask         u8 [M]     M = W / 8, rounded up: bit i % 8 of byte i // 8 is set where number i is not the template's
    state        f64 [k]    the k numbers that are not: most panes of most entities hold nothing
    key          utf-8      the rest: the entity's key text, echoed, so that another row's answer is not taken
    for it

The template is the row of an entity that has seen nothing (`features.layout`), int64 [W], floats by their bits. All
before the state has a fixed size, so that many rows are packed and unpacked as one matrix.
"""

from __future__ import annotations

import itertools
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


def pack(
    incarnation: int, vectors: np.ndarray, rows: np.ndarray, keys: Sequence[str], *, template: np.ndarray
) -> list[bytes]:
    """The packed rows of int64 vectors [n, S], float64 state [n, W] and n keys."""
    n, streams = vectors.shape
    at, size = _mask(streams, len(template))
    numbers = np.ascontiguousarray(rows, dtype="<f8").view("<i8")
    seen = numbers != template
    fixed = np.empty((n, size), dtype=np.uint8)
    fixed[:, : HEADER.size] = np.frombuffer(HEADER.pack(incarnation, streams, len(template)), dtype=np.uint8)
    fixed[:, HEADER.size : at] = np.ascontiguousarray(vectors, dtype="<i8").view(np.uint8)
    fixed[:, at:] = np.packbits(seen, axis=1, bitorder="little")
    data, state = fixed.tobytes(), numbers[seen].tobytes()
    cuts = itertools.pairwise([0, *(8 * np.cumsum(np.count_nonzero(seen, axis=1))).tolist()])
    return [
        data[place : place + size] + state[start:stop] + key.encode("utf-8", "surrogatepass")
        for place, (start, stop), key in zip(range(0, n * size, size), cuts, keys, strict=True)
    ]


def unpack(
    values: Sequence[bytes | None], keys: Sequence[str], *, incarnation: int, streams: int, template: np.ndarray
) -> Unpacked:
    """The rows among `values` that belong to `incarnation`; None and rows of other incarnations are absent.

    Raises CodecError where a value is not a row of `streams` offsets and as many numbers as `template` has, or echoes
    another key.
    """
    mine = incarnation.to_bytes(8, "little")
    shape = HEADER.pack(incarnation, streams, len(template))[8:]
    at, size = _mask(streams, len(template))
    places, heads, states = [], [], []
    for place, (value, key) in enumerate(zip(values, keys, strict=True)):
        if value is None:
            continue
        if len(value) < HEADER.size:
            raise CodecError(f"row of {key!r}: {len(value)} bytes are too few")
        if value[:8] == mine:
            end = _end_of_state(value, key, shape, at, size)
            places.append(place)
            heads.append(value[HEADER.size : size])
            states.append(value[size:end])
    fixed = np.frombuffer(b"".join(heads), dtype=np.uint8).reshape(len(places), size - HEADER.size)
    rows = np.broadcast_to(template, (len(places), len(template))).copy()
    _fill(rows, fixed[:, at - HEADER.size :], b"".join(states))
    vectors = np.ascontiguousarray(fixed[:, : at - HEADER.size]).view("<i8")
    return Unpacked(np.array(places, dtype=np.int64), vectors, rows.view(np.float64))


def unpack_states(
    values: Sequence[bytes | None], keys: Sequence[str], *, streams: int, template: np.ndarray
) -> np.ndarray:
    """The state float64 [1 + n, W] of n rows of any incarnation, after one of zeros; the template where there is none.

    Raises CodecError as `unpack` does.
    """
    shape = HEADER.pack(0, streams, len(template))[8:]
    at, size = _mask(streams, len(template))
    nothing = bytes(size - at)
    masks, states = [nothing], []
    for value, key in zip(values, keys, strict=True):
        if value is None:
            masks.append(nothing)
            continue
        end = _end_of_state(value, key, shape, at, size)
        masks.append(value[at:size])
        states.append(value[size:end])
    rows = np.broadcast_to(template, (len(masks), len(template))).copy()
    rows[0] = 0
    _fill(rows, np.frombuffer(b"".join(masks), dtype=np.uint8).reshape(len(masks), size - at), b"".join(states))
    return rows.view(np.float64)


def _mask(streams: int, width: int) -> tuple[int, int]:
    """Where the mask of a row begins and ends."""
    at = HEADER.size + 8 * streams
    return at, at + (width + 7) // 8


def _end_of_state(value: bytes, key: str, shape: bytes, at: int, size: int) -> int:
    """Where a row's key begins. Raises CodecError for what is no row of that shape, or another entity's.

    shape: the header's streams and width; at, size: where the mask begins and ends.
    """
    width = int.from_bytes(shape[4:], "little")
    if value[8 : HEADER.size] != shape or len(value) < size:
        raise CodecError(f"row of {key!r}: not {(at - HEADER.size) // 8} offsets and {width} numbers")
    mask = int.from_bytes(value[at:size], "little")
    if mask >> width:
        raise CodecError(f"row of {key!r}: it names a number beyond its {width}")
    end = size + 8 * mask.bit_count()
    if len(value) < end:
        raise CodecError(f"row of {key!r}: {len(value)} bytes are too few for the numbers that it names")
    if value[end:] != key.encode("utf-8", "surrogatepass"):
        raise CodecError(f"row of {key!r}: the stored row is of {value[end:].decode('utf-8', 'replace')!r}")
    return end


def _fill(rows: np.ndarray, masks: np.ndarray, states: bytes) -> None:
    """Puts the numbers of `states` where the masks uint8 [n, M] have them, into int64 rows [n, W]."""
    # As booleans: those that are set are found several times as fast.
    seen = np.unpackbits(masks, axis=1, count=rows.shape[1], bitorder="little").view(np.bool_)
    rows.reshape(-1)[np.flatnonzero(seen)] = np.frombuffer(states, dtype="<i8")


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
    at, size = _mask(streams, width)
    end = size + 8 * int.from_bytes(value[at:size], "little").bit_count()
    if len(value) < end:
        raise CodecError(f"{len(value)} bytes are too few for the numbers that it names")
    try:
        return value[end:].decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise CodecError(f"its key is no text: {error}") from None


def _header(value: bytes) -> tuple[int, int, int]:
    if len(value) < HEADER.size:
        raise CodecError(f"{len(value)} bytes are too few for a row")
    incarnation, streams, width = HEADER.unpack_from(value)
    if len(value) < _mask(streams, width)[1]:
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
