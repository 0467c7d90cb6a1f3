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
from collections.abc import Sequence, Sized
from typing import Any, NamedTuple

import numpy as np
from numba import njit

HEADER = struct.Struct("<QII")
VECTOR_AT = HEADER.size
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
    if not n == len(keys) or rows.shape != (n, len(template)):  # compiled code would read beyond the shorter ones
        raise ValueError(f"{n} vectors and states {rows.shape} for {len(keys)} keys and {len(template)} numbers")
    at, size = _mask(streams, len(template))
    texts = [key.encode("utf-8", "surrogatepass") for key in keys]
    together = b"".join(texts)
    out = np.empty(n * (size + 8 * len(template)) + len(together), dtype=np.uint8)
    ends = np.empty(n, dtype=np.int64)
    _fold(
        np.frombuffer(HEADER.pack(incarnation, streams, len(template)), dtype=np.uint8),
        np.ascontiguousarray(vectors, dtype=np.int64),
        np.ascontiguousarray(rows, dtype=np.float64).view(np.int64),
        template,
        np.frombuffer(together, dtype=np.uint8),
        np.array(list(map(len, texts)), dtype=np.int64),
        at,
        size,
        out,
        ends,
    )
    stops = ends.tolist()
    data = out[: stops[-1] if n else 0].tobytes()
    return [data[start:stop] for start, stop in itertools.pairwise([0, *stops])]


def unpack(
    values: Sequence[bytes | None], keys: Sequence[str], *, incarnation: int, streams: int, template: np.ndarray
) -> Unpacked:
    """The rows among `values` that belong to `incarnation`; None and rows of other incarnations are absent.

    Raises CodecError where a value is not a row of `streams` offsets and as many numbers as `template` has, or echoes
    another key.
    """
    mine = incarnation.to_bytes(8, "little")
    places = [
        place
        for place, value in enumerate(values)
        if value is not None and (value[:8] == mine or len(value) < HEADER.size)  # too short for any: said below
    ]
    vectors, rows = _unpacked([values[place] for place in places], [keys[place] for place in places], streams, template)
    return Unpacked(np.array(places, dtype=np.int64), vectors, rows[1:].view(np.float64))


def unpack_states(
    values: Sequence[bytes | None], keys: Sequence[str], *, streams: int, template: np.ndarray
) -> np.ndarray:
    """The state float64 [1 + n, W] of n rows of any incarnation, after one of zeros; the template where there is none.

    Raises CodecError as `unpack` does.
    """
    return _unpacked(values, keys, streams, template)[1].view(np.float64)


def _unpacked(
    values: Sequence[bytes | None], keys: Sequence[str], streams: int, template: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors int64 [n, S] and states int64 [1 + n, W], the first one of zeros; the template where there is no row."""
    n = len(values)
    vectors = np.zeros((n, streams), dtype=np.int64)
    rows = np.empty((1 + n, len(template)), dtype=np.int64)
    rows[0], rows[1:] = 0, template
    broken: int = _lay_out(*laid_together(values, keys), vectors, rows)
    if broken >= 0:
        raise error_of(values[broken], keys[broken], streams, len(template))
    return vectors, rows


def laid_together(
    values: Sequence[bytes | None], keys: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """n rows as compiled code takes them: those that there are, one behind the other, uint8, and their lengths int64
    [n], -1 where there is none; the keys that they have to echo likewise.
    """
    if len(keys) != len(values):  # compiled code would read beyond the shorter one
        raise ValueError(f"{len(values)} rows for {len(keys)} keys")
    together = "".join(keys)
    texts: Sequence[Sized] = keys if together.isascii() else [key.encode("utf-8", "surrogatepass") for key in keys]
    return (
        np.frombuffer(b"".join(filter(None, values)), dtype=np.uint8),
        np.array([-1 if value is None else len(value) for value in values], dtype=np.int64),
        np.frombuffer(together.encode("utf-8", "surrogatepass"), dtype=np.uint8),
        np.array(list(map(len, texts)), dtype=np.int64),
    )


def error_of(value: bytes | None, key: str, streams: int, width: int) -> CodecError:
    """What to say of a value that is not the row of `key`."""
    return CodecError(f"row of {key!r}: {_wrong(value or b'', streams, width)}")


def _mask(streams: int, width: int) -> tuple[int, int]:
    """Where the mask of a row begins and ends."""
    at = HEADER.size + 8 * streams
    return at, at + (width + 7) // 8


@njit(cache=True, nogil=True, error_model="numpy")
def _fold(
    header: np.ndarray,
    vectors: np.ndarray,
    rows: np.ndarray,
    template: np.ndarray,
    keys: np.ndarray,
    key_lengths: np.ndarray,
    at: int,
    size: int,
    out: np.ndarray,
    ends: np.ndarray,
) -> None:
    """Packs int64 vectors [n, S] and rows [n, W] into uint8 `out`, one behind the other: `_lay_out`'s inverse.

    ends: where each ends.
    """
    begin, key_begin = 0, 0
    for place in range(len(ends)):
        out[begin : begin + len(header)] = header
        for stream in range(vectors.shape[1]):
            _put(vectors[place, stream], out, begin + 16 + 8 * stream)
        out[begin + at : begin + size] = 0
        cursor = begin + size
        for column in range(len(template)):
            if rows[place, column] != template[column]:
                out[begin + at + column // 8] |= np.uint8(1 << column % 8)
                _put(rows[place, column], out, cursor)
                cursor += 8
        for letter in range(key_lengths[place]):
            out[cursor + letter] = keys[key_begin + letter]
        key_begin += key_lengths[place]
        begin = ends[place] = cursor + key_lengths[place]


@njit(cache=True, inline="always")
def _put(number: np.int64, out: np.ndarray, at: int) -> None:
    """The number's 8 bytes, little-endian, from `at` on."""
    for byte in range(8):
        out[at + byte] = np.uint8(number >> np.int64(8 * byte) & 0xFF)


@njit(cache=True, error_model="numpy")
def _lay_out(
    data: np.ndarray,
    lengths: np.ndarray,
    keys: np.ndarray,
    key_lengths: np.ndarray,
    vectors: np.ndarray,
    rows: np.ndarray,
) -> int:
    """Puts n packed rows (see `laid_together`) into int64 vectors [n, S] and rows [1 + n, W], whose first is left as it
    is, and so is that of a row that is not there. Returns the place of the first one that is no such row; -1 = all are.
    """
    begin, key_begin = 0, 0
    for place in range(len(lengths)):
        if lengths[place] >= 0:
            if not lay_out_row(
                data, begin, lengths[place], keys, key_begin, key_lengths[place], vectors[place], rows[1 + place]
            ):
                return place
            begin += lengths[place]
        key_begin += key_lengths[place]
    return -1


@njit(inline="always", error_model="numpy")
def lay_out_row(
    data: np.ndarray,
    begin: int,
    length: int,
    keys: np.ndarray,
    key_begin: int,
    key_length: int,
    vector: np.ndarray,
    row: np.ndarray,
) -> bool:
    """Puts the packed row of `length` bytes from `begin` on into int64 vector [S] and row [W], which held the template.

    False where it is no such row, or does not echo the key.
    """
    streams, width, end = len(vector), len(row), begin + length
    at = begin + VECTOR_AT + 8 * streams
    cursor = at + (width + 7) // 8
    if end < cursor or _number(data, begin + 8) != streams | width << 32:
        return False
    for stream in range(streams):
        vector[stream] = _number(data, begin + VECTOR_AT + 8 * stream)
    for byte in range(cursor - at):
        bits, column = data[at + byte], 8 * byte
        while bits:
            if bits & 1:
                if column >= width or cursor + 8 > end:
                    return False
                row[column] = _number(data, cursor)
                cursor += 8
            bits >>= 1
            column += 1
    if end - cursor != key_length:
        return False
    for letter in range(key_length):  # noqa: SIM110 - compiled, a generator costs
        if data[cursor + letter] != keys[key_begin + letter]:
            return False
    return True


@njit(inline="always")
def _number(data: np.ndarray, at: int) -> np.int64:
    """The little-endian int64 at `at`, wherever that lies: a single load, for the places are unsigned."""
    place, number = np.uintp(at), np.uint64(0)
    for byte in range(8):
        number |= np.uint64(data[place + np.uintp(byte)]) << np.uint64(8 * byte)
    return np.int64(number)


def _wrong(value: bytes, streams: int, width: int) -> str:
    """Why a value is not the row that was asked for."""
    at, size = _mask(streams, width)
    if len(value) < HEADER.size:
        return f"{len(value)} bytes are too few"
    if HEADER.unpack_from(value)[1:] != (streams, width) or len(value) < size:
        return f"not {streams} offsets and {width} numbers"
    mask = int.from_bytes(value[at:size], "little")
    if mask >> width:
        return f"it names a number beyond its {width}"
    end = size + 8 * mask.bit_count()
    if len(value) < end:
        return f"{len(value)} bytes are too few for the numbers that it names"
    return f"the stored row is of {value[end:].decode('utf-8', 'replace')!r}"


def vector_of(value: bytes) -> tuple[int, ...]:
    """What a packed row covers. Raises CodecError if it is no packed row."""
    if len(value) < HEADER.size:
        raise CodecError(f"{len(value)} bytes are too few for a row")
    _, streams, width = HEADER.unpack_from(value)
    if len(value) < _mask(streams, width)[1]:
        raise CodecError(f"{len(value)} bytes are too few for {streams} offsets and {width} numbers")
    return struct.unpack_from(f"<{streams}q", value, HEADER.size)


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
