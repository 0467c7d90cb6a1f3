"""The compiled part of a read: packed rows in, values and what they are worth out.

A few rows at a time pass through the same rows of state, which stay in the processor's cache: as one matrix, the state
of a hundred entities of twenty features is 700 kB.

Compiled code is kept by this file's age. What it takes from other files goes by a digest of these, which is part of the
name that numba keeps it under (see `features.kernel`).
"""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from features import aggregations, codec, expiry, kernel
from features.codec import lay_out_row
from features.expiry import (
    EXPIRED,
    MISSING,
    NTH,
    PANE_MS,
    PANES,
    PRESENT,
    REBUILDING,
    RING,
    SEEN,
    SLOT,
)
from features.kernel import UNSEEN, walk

BLOCK = 16
"""Rows that are evaluated together."""
_LARGEST = float(np.finfo(np.float32).max)


def _compiled(digest: int) -> tuple[Any, Any]:
    """`read_rows` and `combine`, compiled, and kept under names to which `digest` belongs."""

    @njit(cache=True, nogil=True, error_model="numpy")
    def read_rows(
        banks: np.ndarray,
        accs: np.ndarray,
        folds: np.ndarray,
        latest: np.ndarray,
        spans: np.ndarray,
        trails: np.ndarray,
        outs: np.ndarray,
        feeds: np.ndarray,
        template: np.ndarray,
        data: np.ndarray,
        lengths: np.ndarray,
        keys: np.ndarray,
        key_lengths: np.ndarray,
        vector: np.ndarray,
        sources: np.ndarray,
        seen: np.ndarray,
        columns: np.ndarray,
        places: np.ndarray,
        aggregates: int,
        at_ms: int,
        values: np.ndarray,
        codes: np.ndarray,
        newest: np.ndarray,
    ) -> int:
        """Reads n packed rows at the time `at_ms`, into the columns `places` of values float64, codes uint8 and newest
        int64, each [n, ·].

        banks … feeds, template: of the `Kind`. data, lengths, keys, key_lengths: as `codec.laid_together` gives them;
        where there is no row, the template is read. vector: int64 [S], overwritten. sources: int64 [k, 6] of the
        outputs `columns` (see `expiry.sources_of`), seen: int64 [m, 6] of all that the kind has seen. aggregates: how
        many outputs there are. Returns the place of the first one that is no such row; -1 = all are.
        """
        if digest < 0:  # never: named here, it is part of what compiled code is kept under
            return 0
        n, nobody = len(lengths), len(feeds) - 1  # the stream that feeds nothing
        room = min(n, BLOCK)
        state = np.empty((1 + room, len(template)))
        state[0] = 0.0
        ints = state.view(np.int64)
        covered, dirty = np.zeros((1 + room, nobody + 1), dtype=np.int64), np.zeros(1 + room, dtype=np.uint8)
        rows, outputs = np.arange(1, 1 + room).astype(np.int32), np.arange(room).astype(np.int32)
        streams, offsets = np.full(room, nobody, dtype=np.int8), np.zeros(room, dtype=np.int64)
        times, nothing = np.full(room, at_ms, dtype=np.int64), np.zeros((room, 0))
        out, late = np.empty((room, aggregates)), np.zeros(len(folds), dtype=np.int64)
        begin, key_begin = 0, 0
        for start in range(0, n, BLOCK):
            some = min(n - start, BLOCK)
            for row in range(some):
                length, key_length = lengths[start + row], key_lengths[start + row]
                for column in range(len(template)):  # a third of the time of ints[1 + row] = template
                    ints[1 + row, column] = template[column]
                if length >= 0:
                    if not lay_out_row(data, begin, length, keys, key_begin, key_length, vector, ints[1 + row]):
                        return start + row
                    begin += length
                key_begin += key_length
            walk(
                banks, accs, folds, latest, spans, trails, outs, feeds,
                state, ints, covered, dirty,
                rows[:some], streams, offsets, times, nothing, outputs, out, late,
            )  # fmt: skip
            for row in range(some):
                place, last_ms = start + row, UNSEEN
                for source in range(len(seen)):
                    found = _newest(seen, source, ints, 1 + row)
                    if found != UNSEEN:
                        last_ms = max(last_ms, found * seen[source, PANE_MS])
                for source in range(len(sources)):
                    value, found = out[row, columns[source]], _newest(sources, source, ints, 1 + row)
                    code = MISSING if np.isnan(value) else PRESENT
                    if found == UNSEEN:
                        code = MISSING
                    elif found <= at_ms // sources[source, PANE_MS] - sources[source, PANES]:
                        code = EXPIRED
                    values[place, places[source]] = value
                    codes[place, places[source]] = code
                    newest[place, places[source]] = last_ms
        return -1

    @njit(cache=True, nogil=True, error_model="numpy")
    def combine(
        upper: np.ndarray,
        lower: np.ndarray,
        values: np.ndarray,
        codes: np.ndarray,
        newest: np.ndarray,
        missing: float,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Values float64, codes uint8 and newest int64, each [n, k], of the features asked, from those of the
        aggregates.

        upper, lower: int64 [k], of each feature its column among the aggregates; of a ratio the columns of its two,
        elsewhere lower is -1. See `features.read_plan.asked_of`.
        """
        if digest < 0:  # as above
            return values, codes, newest
        shape = len(values), len(upper)
        asked, worth = np.empty(shape), np.empty(shape, dtype=np.uint8)
        age = np.empty(shape, dtype=np.int64)
        for row in range(len(values)):
            for place in range(len(upper)):
                one, other = upper[place], lower[place]
                value, code, last_ms = values[row, one], codes[row, one], newest[row, one]
                if other >= 0:
                    last_ms = min(last_ms, newest[row, other])
                    value /= values[row, other]  # by 0: infinite, or NaN
                    if code == PRESENT or codes[row, other] == REBUILDING:
                        code = codes[row, other]
                if not abs(value) <= _LARGEST:
                    if code == PRESENT:
                        code = np.uint8(MISSING)
                    value = np.nan if code == REBUILDING else missing
                asked[row, place], worth[row, place], age[row, place] = value, code, last_ms
        return asked, worth, age

    return read_rows, combine


@njit(inline="always")
def _newest(sources: np.ndarray, source: int, ints: np.ndarray, row: int) -> Any:
    """The event time, or pane, of a source's newest event; UNSEEN where there is none."""
    slot, nth = sources[source, SLOT], sources[source, NTH]
    if nth == 0:
        return ints[row, slot]
    count = ints[row, sources[source, SEEN]]
    return ints[row, slot + (count - nth) % sources[source, RING]] if count >= nth else np.int64(UNSEEN)


def _digest() -> int:
    """Of the files whose constants and functions the compiled code holds."""
    found = hashlib.sha256(str(aggregations.sources_digest()).encode())
    for module in (codec, expiry, kernel):
        found.update(Path(inspect.getfile(module)).read_bytes())
    return int.from_bytes(found.digest()[:7], "little")


read_rows, combine = _compiled(_digest())
