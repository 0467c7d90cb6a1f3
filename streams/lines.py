"""JSON lines from columns: the texts of whole columns, made at once, are cut and laid into lines by compiled code.

A line is fixed text with holes; each hole takes the next value of a column. What stands in a hole is JSON already and
is copied as it is, so that the cost of a line is that of its bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

ITEMS, ROWS, PIECES = range(3)
"""How a column's text is cut: the values of a JSON array, however nested; its inner arrays whole; or by newlines."""

_OPEN, _CLOSE, _COMMA, _QUOTE, _BACKSLASH, _NEWLINE = b'[],"\\\n'
_WORD = 8
"""Bytes that are copied at once, some of them beyond what was to be copied: so many must be there."""
_PAD = b"\0" * _WORD
_BLOCK = 256
"""Lines that are laid out together, each in as much room: an uncommonly long one makes these alone wide."""
_SPARE = 32
"""Bytes that a line may be longer than they are on average before there is too little room."""


class Column(NamedTuple):
    """Values one after the other, in one text."""

    text: bytes
    kind: int


def pieces(values: Sequence[bytes]) -> Column:
    """A column of JSON values. None holds a newline: JSON escapes those in its strings."""
    return Column(b"\n".join(values) + b"\n", PIECES)


def lines(fixed: Sequence[bytes], holes: Sequence[int], columns: Sequence[Column], n: int) -> list[bytes]:
    """`n` lines: fixed[0], a value of columns[holes[0]], fixed[1], … fixed[-1].

    Holes that share a column take its values in turns. Every column must hold a value for each of its holes and lines.
    """
    if len(fixed) != len(holes) + 1:
        raise ValueError(f"{len(holes)} holes need {len(holes) + 1} fixed texts, not {len(fixed)}")
    texts = [column.text for column in columns]
    text, around = b"".join((*texts, _PAD)), b"".join((*fixed, _PAD))
    columns_text, kinds = np.frombuffer(text, dtype=np.uint8), np.array([c.kind for c in columns], dtype=np.int64)
    # An inner array is told from the outer one by beginning behind its bracket.
    cursors = np.cumsum([0, *map(len, texts)])[:-1] + (kinds == ROWS)
    fixed_text, ends = np.frombuffer(around, dtype=np.uint8), np.cumsum(list(map(len, fixed)))
    filled_from = np.array(holes, dtype=np.int64)
    usual = width = len(around) + len(text) // max(n, 1) + _SPARE
    found: list[bytes] = []
    while len(found) < n:
        out = np.empty(min(_BLOCK, n - len(found)) * width + _WORD, dtype=np.uint8)
        after = cursors.copy()
        if _fill(columns_text, after, kinds, filled_from, fixed_text, ends, out, width):
            # numpy makes them faster than a cut by newlines; no line ends with a zero byte.
            found += out[:-_WORD].view(f"S{width}").tolist()
            cursors, width = after, usual
        else:
            width *= 2
    return found


def compile_lines() -> None:
    """Compiles, or reads what was compiled, before a round waits for it."""
    lines([b"", b""], [0], [Column(b"[0]", ITEMS)], 1)
    plain(pieces([b""]), 1)


def plain(column: Column, n: int) -> bool:
    """Whether all `n` texts of a column of pieces stand for themselves in a JSON string: printable ASCII without quotes
    and backslashes.
    """
    return bool(_plain(np.frombuffer(column.text, dtype=np.uint8), n))


@njit(cache=True, nogil=True, error_model="numpy")
def _plain(text: np.ndarray, n: int) -> bool:
    odd, newlines = 0, 0
    for byte in text:
        odd += (byte < 0x20) | (byte > 0x7E) | (byte == _QUOTE) | (byte == _BACKSLASH)
        newlines += byte == _NEWLINE
    return odd == newlines == n


@njit(cache=True, nogil=True, error_model="numpy")
def _fill(
    text: np.ndarray,
    cursors: np.ndarray,
    kinds: np.ndarray,
    holes: np.ndarray,
    fixed: np.ndarray,
    fixed_ends: np.ndarray,
    out: np.ndarray,
    width: int,
) -> bool:
    """Lays the lines for which `out` has room into it, each in `width` bytes with zeros behind it; False where one
    takes more.

    text, fixed, out: uint8, with a word to spare at their ends. cursors: where each column goes on; fixed_ends: of
    fixed texts.
    """
    one = np.uintp(1)
    for line in range(len(out) // width):
        at = np.uintp(line * width)
        limit = at + np.uintp(width)
        begin = np.uintp(0)
        for hole in range(len(holes)):
            stop = np.uintp(fixed_ends[hole])
            column = holes[hole]
            start, kind = np.uintp(cursors[column]), kinds[column]
            if kind == PIECES:
                end = start
                while text[end] != _NEWLINE:
                    end += one
                cursors[column] = end + one
            elif kind == ROWS:
                while text[start] != _OPEN:
                    start += one
                end = start + one
                while text[end] != _CLOSE:
                    end += one
                end += one
                cursors[column] = end
            else:
                while text[start] == _OPEN or text[start] == _CLOSE or text[start] == _COMMA:
                    start += one
                end = start + one
                if text[start] == _QUOTE:
                    while text[end] != _QUOTE:
                        end += np.uintp(2) if text[end] == _BACKSLASH else one
                    end += one
                else:
                    while text[end] != _COMMA and text[end] != _CLOSE:
                        end += one
                cursors[column] = end
            if at + (stop - begin) + (end - start) > limit:
                return False
            at = _copy(fixed, begin, stop, out, at)
            at = _copy(text, start, end, out, at)
            begin = stop
        stop = np.uintp(fixed_ends[len(holes)])
        if at + (stop - begin) > limit:
            return False
        at = _copy(fixed, begin, stop, out, at)
        while at < limit:
            out[at] = 0
            at += one
    return True


@njit(inline="always", error_model="numpy")
def _copy(text: np.ndarray, start: np.uintp, stop: np.uintp, out: np.ndarray, at: np.uintp) -> np.uintp:
    """text[start:stop] to out[at:], and up to a word less one byte beyond; returns where it ends. Places are unsigned:
    signed ones would be checked.
    """
    end = at + (stop - start)
    while at < end:
        word = np.uint64(0)
        for byte in range(_WORD):  # one load, and one store
            word |= np.uint64(text[start + np.uintp(byte)]) << np.uint64(8 * byte)
        for byte in range(_WORD):
            out[at + np.uintp(byte)] = np.uint8(word >> np.uint64(8 * byte) & np.uint64(0xFF))
        start += np.uintp(_WORD)
        at += np.uintp(_WORD)
    return end
