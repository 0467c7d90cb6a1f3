"""Flat JSON records straight to columns, by compiled code that makes no Python object of a field.

It reads what nearly every record is: an object of plain texts, numbers, true, false and null. Whatever else stands in
a record, and whatever is wrong with it, makes it odd: it is left to msgspec, which decides what it means. So both give
the same values for all that this one reads.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

import msgspec
import numpy as np
from msgspec.inspect import BoolType, FloatType, IntType, NoneType, StrType, StructType
from numba import njit

_TEXT, _WHOLE, _REAL, _BOOL, _NULL = 1, 2, 4, 8, 16
_ANY = 31
"""What a value may be, as bits; a field that is not declared may be any."""
_TYPES: list[tuple[msgspec.inspect.Type, int]] = [
    (StrType(), _TEXT),
    (IntType(), _WHOLE),
    (FloatType(), _WHOLE | _REAL),
    (BoolType(), _BOOL),
    (NoneType(), _NULL),
]
"""Types without limits of their own: those with some are msgspec's to judge."""

_UNREAD, _INTS, _FLOATS, _TEXTS = range(4)
_MOST_FIELDS = 64
_END = b"\0"
"""Behind every record; none that is JSON holds one, so that it ends every loop over what is read."""
_QUOTE, _BACKSLASH, _OPEN, _CLOSE, _COLON, _COMMA = b'"\\{}:,'
_MINUS, _PLUS, _POINT, _ZERO, _NINE, _SMALL_E, _BIG_E = b"-+.09eE"
_T, _F, _N, _SPACE, _NEWLINE, _RETURN, _TAB = b"tfn \n\r\t"
_TRUE, _FALSE, _NONE = (np.frombuffer(word, dtype=np.uint8) for word in (b"true", b"false", b"null"))
_EXACT_DIGITS, _EXACT_POWER = 18, 22
"""Decimal digits that a uint64 holds whatever they are, and the highest power of ten that a float64 holds exactly."""
_SURE_POWER = 2
"""Digits of an exponent with which no number of that many digits is out of range."""
_POWERS = np.array([float(10**power) for power in range(_EXACT_POWER + 1)])


@dataclass(frozen=True)
class Read:
    """n records' columns, in which the rows `odd` (int64, rising) hold nothing yet.

    numbers: int64 or float64 [n] by field, NaN for null; texts: list [n] by field.
    longest: bytes of the longest record.
    """

    numbers: dict[str, np.ndarray]
    texts: dict[str, list[str | None]]
    odd: np.ndarray
    longest: int


class FlatJson:
    """Reads the records of one event type; `flat_json` makes one where the type can be read so."""

    def __init__(self, fields: Sequence[_Field], numbers: Mapping[str, type[Any]], texts: Collection[str]) -> None:
        self._ints = [name for name, dtype in numbers.items() if dtype is np.int64]
        self._floats = [name for name in numbers if name not in self._ints]
        self._texts = list(texts)
        places = {
            name: (kind, place)
            for kind, names in ((_INTS, self._ints), (_FLOATS, self._floats), (_TEXTS, self._texts))
            for place, name in enumerate(names)
        }
        names = [field.wire.encode() for field in fields]
        targets = [places.get(field.name, (_UNREAD, 0)) for field in fields]
        self._table = (
            np.frombuffer(b"".join(names), dtype=np.uint8),
            np.cumsum([0, *map(len, names)]),
            np.array([field.accepts for field in fields]),
            np.array([kind for kind, _ in targets]),
            np.array([place for _, place in targets]),
            np.array([field.required for field in fields]),
            np.array([field.default for field in fields]),
        )

    def read(self, values: Sequence[bytes]) -> Read | None:
        """The columns of the records `values`; None where some hold a zero byte. TypeError where some are None."""
        n = len(values)
        text = _END.join((*values, b""))
        ints, floats = np.zeros((len(self._ints), n), dtype=np.int64), np.zeros((len(self._floats), n))
        spans = np.zeros((len(self._texts), 2, n), dtype=np.int64)
        odd = np.zeros(n, dtype=np.bool_)
        hard = np.empty((len(self._floats) * n, 4), dtype=np.int64)
        found = np.frombuffer(text, dtype=np.uint8)
        columns = ints, floats, spans
        count, longest = _read(found, *self._table, *columns, hard, odd)
        if count < 0:
            return None
        for place, row, start, stop in hard[:count].tolist():
            floats[place, row] = number = float(text[start:stop])
            odd[row] |= math.isinf(number)
        return Read(
            dict(zip(self._ints, ints, strict=True)) | dict(zip(self._floats, floats, strict=True)),
            {name: _cut(found, of_field) for name, of_field in zip(self._texts, spans, strict=True)},
            np.flatnonzero(odd),
            longest,
        )


@dataclass(frozen=True)
class _Field:
    """required: a record without it is odd; default: else its number, NaN for null; a text is null then."""

    name: str
    wire: str
    accepts: int
    required: bool
    default: float


def flat_json(
    event: type[msgspec.Struct], *, numbers: Mapping[str, type[Any]], texts: Collection[str]
) -> FlatJson | None:
    """What reads the fields `numbers` (by their dtype, np.int64 or np.float64) and `texts` of `event`'s records.

    None where its type says more of a record than the types of its fields, or compiled code cannot hold it.
    """
    info = msgspec.inspect.type_info(event)
    assert isinstance(info, StructType)
    said = event.__struct_config__
    says_more = said.forbid_unknown_fields or said.array_like or said.tag is not None or hasattr(event, "__post_init__")
    fields = [_field(field, numbers, texts) for field in info.fields]
    known = [field for field in fields if field is not None]
    if says_more or len(known) < len(fields) or len(fields) > _MOST_FIELDS:
        return None
    return FlatJson(known, numbers, texts)


def _field(
    field: msgspec.inspect.Field, numbers: Mapping[str, type[Any]], texts: Collection[str]
) -> _Field | None:
    members = field.type.types if isinstance(field.type, msgspec.inspect.UnionType) else (field.type,)
    found = [bits for member in members for plain, bits in _TYPES if plain == member]
    if len(found) < len(members) or not _is_plain(field.encode_name):
        return None
    accepts = reduce(or_, found)
    whole = numbers.get(field.name) is np.int64
    if whole and accepts != _WHOLE:
        return None
    required, number = field.required, math.nan
    if field.name in texts or field.name in numbers:
        default = field.default
        if isinstance(default, int | float) and abs(default) < 2**53 and not accepts & _TEXT:
            number = float(default)
        else:
            required = default is not None or not accepts & _NULL
    return _Field(field.name, field.encode_name, accepts, required, number)


def _is_plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and not {'"', "\\"} & set(text)


def _cut(text: np.ndarray, spans: np.ndarray) -> list[str | None]:
    """The texts of a column, int64 [2, n]: where they begin and end, -1 for null. All is plain ASCII."""
    out = np.empty(_length(spans), dtype=np.uint8)
    nulls = _lay_out(text, spans, out)
    found: list[Any] = out.tobytes().decode("ascii").split("\n")
    found.pop()  # behind the last newline
    if nulls:
        for row in np.flatnonzero(spans[0] < 0).tolist():
            found[row] = None
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def _length(spans: np.ndarray) -> int:
    total = 0
    for row in range(spans.shape[1]):
        total += spans[1, row] - spans[0, row] + 1
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _lay_out(text: np.ndarray, spans: np.ndarray, out: np.ndarray) -> int:
    """Each text and a newline, one after the other; returns how many are null."""
    nulls, at, one = 0, np.uintp(0), np.uintp(1)
    for row in range(spans.shape[1]):
        nulls += spans[0, row] < 0
        place = np.uintp(spans[0, row])
        for _ in range(spans[1, row] - spans[0, row]):
            out[at] = text[place]
            at += one
            place += one
        out[at] = 10
        at += one
    return nulls


@njit(inline="always", error_model="numpy")
def _blank(text: np.ndarray, at: np.uintp) -> np.uintp:
    """The first place from `at` on that holds no white space."""
    while text[at] == _SPACE or text[at] == _NEWLINE or text[at] == _RETURN or text[at] == _TAB:
        at += np.uintp(1)
    return at


@njit(inline="always", error_model="numpy")
def _text_end(text: np.ndarray, at: np.uintp) -> np.uintp:
    """The first place that holds no character standing for itself: the closing quote of a plain text."""
    while 0x20 <= text[at] < 0x7F and text[at] != _QUOTE and text[at] != _BACKSLASH:
        at += np.uintp(1)
    return at


@njit(inline="always", error_model="numpy")
def _is(text: np.ndarray, at: np.uintp, length: int, name: np.ndarray, start: int) -> bool:
    same = 0
    while same < length and text[at + np.uintp(same)] == name[np.uintp(start + same)]:
        same += 1
    return same == length


@njit(inline="always", error_model="numpy")
def _divided(mantissa: np.uint64, power: np.int64) -> float:
    """mantissa / 10**power, rounded once; NaN where that cannot be told. mantissa < 10**18, power <= 22.

    The quotient of the nearest float64 and what both leave over make a sum that is exact to some 100 bits: where its
    rounding is the same a little below and a little above, it is that of the true quotient.
    """
    near = np.float64(mantissa)
    over = np.float64(np.int64(mantissa) - np.int64(near))
    if power == 0:
        return near
    by = _POWERS[power]
    quotient = near / by
    # quotient * by, as a sum of two (Dekker): what a float64 has no room for is in `low`.
    big = 134217729.0 * quotient
    high_q = big - (big - quotient)
    low_q = quotient - high_q
    big = 134217729.0 * by
    high_b = big - (big - by)
    low_b = by - high_b
    product = quotient * by
    low = ((high_q * high_b - product) + high_q * low_b + low_q * high_b) + low_q * low_b
    rest = (((near - product) - low) + over) / by
    below, above = quotient + rest * (1 - 1e-12), quotient + rest * (1 + 1e-12)
    return below if below == above else math.nan


@njit(cache=True, nogil=True, error_model="numpy")
def _read(
    text: np.ndarray,
    names: np.ndarray,
    cuts: np.ndarray,
    accepts: np.ndarray,
    kinds: np.ndarray,
    places: np.ndarray,
    required: np.ndarray,
    defaults: np.ndarray,
    ints: np.ndarray,
    floats: np.ndarray,
    spans: np.ndarray,
    hard: np.ndarray,
    odd: np.ndarray,
) -> tuple[int, int]:
    """Reads the records of `text`, each with a zero byte behind it. By field: where its name is in `names`, what it
    accepts, its kind of column, its place among those, whether it must be there, and its number where it is not.

    hard: int64 [·, 4], place, row, begin and end of numbers that take more to read. Returns how many there are, and the
    bytes of the longest record; -1 and 0 where there are more zero bytes than records.
    """
    one = np.uintp(1)
    everything = np.uint64(0)
    for field in range(len(accepts)):
        everything |= np.uint64(1) << np.uint64(field)
    count, longest = 0, np.int64(0)
    begin = np.uintp(0)
    for row in range(len(odd)):
        before = count
        seen = np.uint64(0)
        expected = 0
        fine = False
        at = _blank(text, begin)
        if text[at] == _OPEN:
            at = _blank(text, at + one)
            more = text[at] != _CLOSE
            fine = True
            while more:
                fine = False
                if text[at] != _QUOTE:
                    break
                at += one
                # Which field: as a rule the one after the last.
                field = -1
                if expected < len(accepts):
                    length = cuts[expected + 1] - cuts[expected]
                    if _is(text, at, length, names, cuts[expected]) and text[at + np.uintp(length)] == _QUOTE:
                        field = expected
                        at += np.uintp(length)
                if field < 0:
                    start = at
                    at = _text_end(text, at)
                    if text[at] != _QUOTE:
                        break
                    for other in range(len(accepts)):
                        length = cuts[other + 1] - cuts[other]
                        if np.uintp(length) == at - start and _is(text, start, length, names, cuts[other]):
                            field = other
                            break
                at = _blank(text, at + one)
                if text[at] != _COLON:
                    break
                at = _blank(text, at + one)
                allowed, kind, place = _ANY, _UNREAD, 0
                if field >= 0:
                    bit = np.uint64(1) << np.uint64(field)
                    if seen & bit:
                        break
                    seen |= bit
                    expected = field + 1
                    allowed, kind, place = accepts[field], kinds[field], places[field]
                first = text[at]
                if first == _QUOTE:
                    start = at + one
                    at = _text_end(text, start)
                    if text[at] != _QUOTE or not allowed & _TEXT:
                        break
                    if kind == _TEXTS:
                        spans[place, 0, row] = start
                        spans[place, 1, row] = at
                    at += one
                elif first == _MINUS or _ZERO <= first <= _NINE:
                    start = at
                    negative = first == _MINUS
                    if negative:
                        at += one
                    digits = at
                    mantissa = np.uint64(0)
                    while _ZERO <= text[at] <= _NINE:
                        mantissa = mantissa * np.uint64(10) + np.uint64(text[at] - _ZERO)
                        at += one
                    size = np.int64(at - digits)
                    if size == 0 or (size > 1 and text[digits] == _ZERO):
                        break
                    fraction = np.int64(0)
                    whole = True
                    if text[at] == _POINT:
                        whole = False
                        at += one
                        digits = at
                        while _ZERO <= text[at] <= _NINE:
                            mantissa = mantissa * np.uint64(10) + np.uint64(text[at] - _ZERO)
                            at += one
                        fraction = np.int64(at - digits)
                        if fraction == 0:
                            break
                    sure = size + fraction <= _EXACT_DIGITS  # to be in range
                    raised = text[at] == _SMALL_E or text[at] == _BIG_E
                    if raised:
                        whole = False
                        at += one
                        if text[at] == _PLUS or text[at] == _MINUS:
                            at += one
                        digits = at
                        while _ZERO <= text[at] <= _NINE:
                            at += one
                        if at == digits:
                            break
                        sure = sure and np.int64(at - digits) <= _SURE_POWER
                    if not allowed & (_WHOLE if whole else _REAL):
                        break
                    simple = sure and not raised
                    if not simple and not (kind == _FLOATS and allowed & _REAL) and not (kind == _UNREAD and sure):
                        break
                    if negative and whole and mantissa == 0:
                        break
                    if kind == _INTS:
                        ints[place, row] = -np.int64(mantissa) if negative else np.int64(mantissa)
                    elif kind == _FLOATS:
                        number = _divided(mantissa, fraction) if simple and fraction <= _EXACT_POWER else math.nan
                        if number == number:
                            floats[place, row] = -number if negative else number
                        else:
                            hard[count, 0] = place
                            hard[count, 1] = row
                            hard[count, 2] = start
                            hard[count, 3] = at
                            count += 1
                elif first in (_T, _F, _N):
                    word, number = _TRUE, 1.0
                    if first == _F:
                        word, number = _FALSE, 0.0
                    elif first == _N:
                        word, number = _NONE, math.nan
                    if not allowed & (_NULL if first == _N else _BOOL) or not _is(text, at, len(word), word, 0):
                        break
                    at += np.uintp(len(word))
                    if kind == _FLOATS:
                        floats[place, row] = number
                    elif kind == _TEXTS:
                        spans[place, 0, row] = spans[place, 1, row] = -1
                else:
                    break
                at = _blank(text, at)
                fine = text[at] == _CLOSE
                more = text[at] == _COMMA
                if more:
                    at = _blank(text, at + one)
            at += one
        end = _blank(text, at) if fine else begin
        if fine and text[end] == 0:
            if seen != everything:
                for field in range(len(accepts)):
                    if seen >> np.uint64(field) & np.uint64(1):
                        continue
                    fine = fine and not required[field]
                    if kinds[field] == _FLOATS:
                        floats[places[field], row] = defaults[field]
                    elif kinds[field] == _INTS:
                        ints[places[field], row] = np.int64(defaults[field])
                    elif kinds[field] == _TEXTS:
                        spans[places[field], 0, row] = spans[places[field], 1, row] = -1
        else:
            fine = False
        if not fine:
            odd[row] = True
            count = before
            for place in range(spans.shape[0]):
                spans[place, 0, row] = spans[place, 1, row] = 0
            while text[end] != 0:
                end += one
        longest = max(longest, np.int64(end - begin))
        begin = end + one
    return (count, int(longest)) if begin == np.uintp(len(text)) else (-1, 0)
