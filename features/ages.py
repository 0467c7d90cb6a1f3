"""How old what a row holds is: its newest event, and whether an output still counts it."""

from __future__ import annotations

import numpy as np

from features.kernel import (
    BANK_FOLD,
    BANK_FOLD_END,
    BANK_NEWEST,
    BANK_PANE_MS,
    FOLD_PANES,
    FOLD_WITHIN,
    FOLDED,
    LAG,
    LATEST_TIME,
    OUT_A,
    OUT_B,
    OUT_KIND,
    OUT_WITHIN,
    SPAN_FOLD,
    SPAN_FOLD_END,
    SPAN_NEWEST,
    SPAN_WITHIN,
    TRAIL_FOLD,
    TRAIL_FOLD_END,
    TRAIL_SEEN,
    TRAIL_SIZE,
    TRAIL_TIMES,
    UNSEEN,
)
from features.layout import Kind


def newest_ms(kind: Kind, ints: np.ndarray) -> int:
    """Event time of a row's newest event, or the start of its pane; UNSEEN if it has seen none. ints: its int64
    view [width].
    """
    times = [int(ints[latest[LATEST_TIME]]) for latest in kind.latest]
    times += [int(ints[span[SPAN_NEWEST]]) for span in kind.spans]
    times += [_nth_time(trail, ints, 1) for trail in kind.trails]
    panes = [(int(ints[bank[BANK_NEWEST]]), int(bank[BANK_PANE_MS])) for bank in kind.banks]
    return max([*times, *(pane * length for pane, length in panes if pane != UNSEEN)], default=UNSEEN)


def gone_at(kind: Kind, out: np.ndarray, ints: np.ndarray, at_ms: int) -> bool | None:
    """Whether all that an output of `kind.outs` covers is too old at `at_ms`; None where there was nothing."""
    if out[OUT_KIND] in FOLDED:
        return _fold_gone(kind, int(out[OUT_A]), ints, at_ms)
    if out[OUT_KIND] == LAG:
        newest = _nth_time(kind.trails[out[OUT_A]], ints, int(out[OUT_B]))
    else:
        newest = int(ints[out[OUT_A]])
    return None if newest == UNSEEN else newest < at_ms - int(out[OUT_WITHIN])


def _fold_gone(kind: Kind, fold: int, ints: np.ndarray, at_ms: int) -> bool | None:
    for bank in kind.banks:
        if bank[BANK_FOLD] <= fold < bank[BANK_FOLD_END]:
            newest = int(ints[bank[BANK_NEWEST]])
            oldest = at_ms // int(bank[BANK_PANE_MS]) - int(kind.folds[fold, FOLD_PANES])
            return None if newest == UNSEEN else newest <= oldest
    for span in kind.spans:
        if span[SPAN_FOLD] <= fold < span[SPAN_FOLD_END]:
            newest = int(ints[span[SPAN_NEWEST]])
            return None if newest == UNSEEN else newest < at_ms - int(span[SPAN_WITHIN])
    trail = next(t for t in kind.trails if t[TRAIL_FOLD] <= fold < t[TRAIL_FOLD_END])
    newest = _nth_time(trail, ints, 1)
    return None if newest == UNSEEN else newest < at_ms - int(kind.folds[fold, FOLD_WITHIN])


def _nth_time(trail: np.ndarray, ints: np.ndarray, n: int) -> int:
    """Event time of the nth latest event of a trail; UNSEEN if there were fewer."""
    seen = int(ints[trail[TRAIL_SEEN]])
    if seen < n:
        return UNSEEN
    return int(ints[trail[TRAIL_TIMES] + (seen - n) % int(trail[TRAIL_SIZE])])
