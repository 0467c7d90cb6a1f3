"""How many rows a call of a model takes at once."""

from __future__ import annotations

from collections.abc import Sequence

SIZES = (64, 256, 512, 1024, 2048, 4096)
"""Rows a call is padded to. From 64 rows on, a row's score does not depend on the rows beside it (on the CPU,
with MLPs, linear models and tree ensembles: the tests hold it). Smaller calls take other code paths and may
differ in the last bit; two replays, whose batches differ, would then not give equal scores."""


def padded(rows: int, sizes: Sequence[int] = SIZES) -> int:
    """What `rows`, at most the largest size, are padded to; what a model takes goes by that."""
    return next(size for size in sizes if size >= rows)


def asked(rows: int, sizes: Sequence[int] = SIZES) -> int:
    """The rows that a model is really asked for: `rows` in calls of the largest size, and one for the rest."""
    whole, rest = divmod(rows, sizes[-1])
    return whole * sizes[-1] + (padded(rest, sizes) if rest else 0)
