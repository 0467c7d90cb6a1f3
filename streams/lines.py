"""JSON lines from columns: the texts of whole columns, made at once, are cut and laid into lines by compiled code.

A line is fixed text with holes; each hole takes the next value of a column. What stands in a hole is JSON already and
is copied byte by byte, so that the cost of a line is that of its bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numba import njit

ITEMS, ROWS, PIECES = range(3)
"""How a column's text is cut: the values of a JSON array, however nested; its inner arrays whole; or by newlines."""

_OPEN, _CLOSE, _COMMA, _QUOTE, _BACKSLASH, _NEWLINE = b'[],"\\\n'


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
    if not n:
        return []
    text = b"".join(column.text for column in columns)
    around = b"".join(fixed)
    # An inner array is told from the outer one by beginning behind its bracket.
    starts = itertools.accumulate((len(column.text) for column in columns[:-1]), initial=0)
    cursors = [at + (column.kind == ROWS) for at, column in zip(starts, columns, strict=True)]
    out = np.empty(len(text) + n * (len(around) + 1), dtype=np.uint8)
    filled = _fill(
        np.frombuffer(text, dtype=np.uint8),
        np.array(cursors, dtype=np.int64),
        np.array([column.kind for column in columns], dtype=np.int64),
        np.array(holes, dtype=np.int64),
        np.frombuffer(around, dtype=np.uint8),
        np.array(list(itertools.accumulate(map(len, fixed))), dtype=np.int64),
        out,
        n,
    )
    return out[: filled - 1].tobytes().split(b"\n")


def compile_lines() -> None:
    """Compiles, or reads what was compiled, before a round waits for it."""
    lines([b"", b""], [0], [Column(b"[0]", ITEMS)], 1)
    plain([b""])


def plain(texts: Sequence[bytes]) -> bool:
    """Whether all of `texts` stand for themselves in a JSON string: printable ASCII without quotes and backslashes."""
    return bool(_plain(np.frombuffer(b"".join(texts), dtype=np.uint8)))


@njit(cache=True, nogil=True, error_model="numpy")
def _plain(text: np.ndarray) -> bool:
    odd = 0
    for byte in text:
        odd += (byte < 0x20) | (byte > 0x7E) | (byte == _QUOTE) | (byte == _BACKSLASH)
    return odd == 0


@njit(cache=True, nogil=True, error_model="numpy")
def _fill(
    text: np.ndarray,
    cursors: np.ndarray,
    kinds: np.ndarray,
    holes: np.ndarray,
    fixed: np.ndarray,
    fixed_ends: np.ndarray,
    out: np.ndarray,
    n: int,
) -> int:
    """text, fixed, out: uint8. cursors: where each column goes on; fixed_ends: of fixed texts. Each of the `n` lines
    ends with a newline, and holds no other; returns where the last one ends.
    """
    at = np.uintp(0)
    one = np.uintp(1)
    for _ in range(n):
        begin = np.uintp(0)
        for hole in range(len(holes)):
            stop = np.uintp(fixed_ends[hole])
            at = _copy(fixed, begin, stop, out, at)
            begin = stop
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
            at = _copy(text, start, end, out, at)
        at = _copy(fixed, begin, np.uintp(len(fixed)), out, at)
        out[at] = _NEWLINE
        at += one
    return int(at)


@njit(inline="always", error_model="numpy")
def _copy(text: np.ndarray, start: np.uintp, stop: np.uintp, out: np.ndarray, at: np.uintp) -> np.uintp:
    """text[start:stop] to out[at:]; returns where it ends. Places are unsigned: signed ones would be checked."""
    for i in range(stop - start):
        out[at + np.uintp(i)] = text[start + np.uintp(i)]
    return at + (stop - start)
