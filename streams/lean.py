"""How a worker's process uses its memory: set once, for a process that works in batches until it ends."""

from __future__ import annotations

import ctypes
import gc
import sys

ARENAS = 4
"""Heaps that the C library may have. Its own choice is eight a core, each of which keeps what it has freed."""
KEPT_BYTES = 8 * 1024**2
"""Freed memory that stays with the process; pieces of half of it and more do not come from its heap. A round takes and
frees the same few megabytes again and again; given back each time, every page of them is zeroed and mapped anew."""
YOUNG = 50_000
"""Objects made before the collector looks at the young ones: a poll's records are thousands, and none is in a cycle."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h


def begin_imports() -> None:
    """The collector rests until `end_of_imports`: what is imported stays, and looking through it again and again takes
    a tenth of a start.
    """
    gc.disable()


def end_of_imports() -> None:
    """The collector works again, seldom, and never looks at what was imported."""
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 100)
    gc.enable()


def keep_heaps() -> None:
    """Few heaps, which keep what is freed, for threads that begin from now on. Without glibc it does nothing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and sys.platform == "linux":
        mallopt(_M_ARENA_MAX, ARENAS)
        mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES // 2)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
