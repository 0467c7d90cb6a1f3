"""Where a record's latency goes: from its intended send time to the consumer's hand, stage by stage, from its trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from loadtest.spans import Trace

BEFORE, WAITING, AFTER = "to the worker", "waiting", "to the consumer"
"""Producer, broker and fetch; between the poll and the produce, outside of every stage; delivery, commit and fetch."""
ENGINE, TOTAL = "poll to produce", "all"
_ORDER = (BEFORE, WAITING, "decode", "remote", "features", "inference", "encode", "produce", AFTER)
COLUMNS = ("records/s", "system", "stage", "p50 ms", "p99 ms", "share")

Parts = Mapping[str, np.ndarray]
"""By stage, and ENGINE and TOTAL: ms float64 [n] of the n traced records."""


def parts(traces: Sequence[Trace], due_ns: np.ndarray, arrived_ns: np.ndarray) -> Parts:
    """The stages of the traced records. due_ns, arrived_ns: float64 [numbers], wall clock, NaN = not of the measured
    ones, or never came; these are left out.
    """
    known = [t for t in traces if t.number < len(due_ns) and np.isfinite(due_ns[t.number] + arrived_ns[t.number])]
    numbers = np.array([t.number for t in known], dtype=np.int64)
    began = np.array([t.began_ns for t in known], dtype=np.float64)
    ended = np.array([t.ended_ns for t in known], dtype=np.float64)
    names = dict.fromkeys(name for t in known for name in t.stages_ns)
    stages = {name: np.array([t.stages_ns.get(name, 0) for t in known], dtype=np.float64) for name in names}
    engine = ended - began
    found = {
        BEFORE: began - due_ns[numbers],
        WAITING: engine - sum(stages.values(), np.zeros(len(known))),
        **stages,
        AFTER: arrived_ns[numbers] - ended,
        ENGINE: engine,
        TOTAL: arrived_ns[numbers] - due_ns[numbers],
    }
    return {name: values / 1e6 for name, values in found.items()}


def merged(turns: Sequence[Parts]) -> Parts:
    """The records of all turns together; a stage that a turn does not have took no time in it."""
    names = dict.fromkeys(name for turn in turns for name in turn)
    return {name: np.concatenate([turn.get(name, np.zeros(len(turn[TOTAL]))) for turn in turns]) for name in names}


def summary(found: Parts) -> list[tuple[str, float, float, float]]:
    """(name, p50 ms, p99 ms, share of the mean latency), in a record's order; then ENGINE and TOTAL. Empty of none."""
    if not len(found[TOTAL]):
        return []
    stages = [name for name in found if name not in (ENGINE, TOTAL)]
    stages.sort(key=lambda name: _ORDER.index(name) if name in _ORDER else _ORDER.index(AFTER) - 0.5)
    mean = float(found[TOTAL].mean()) or 1.0
    rows = []
    for name in (*stages, ENGINE, TOTAL):
        p50, p99 = np.percentile(found[name], (50, 99), method="inverted_cdf").tolist()
        rows.append((name, p50, p99, float(found[name].mean()) / mean))
    return rows


def as_json(found: Parts) -> dict[str, Any]:
    """{"traced": n, "ms": {stage: {"p50", "p99", "share"}}}."""
    ms = {
        name: {"p50": round(p50, 3), "p99": round(p99, 3), "share": round(share, 4)}
        for name, p50, p99, share in summary(found)
    }
    return {"traced": len(found[TOTAL]), "ms": ms}


def as_rows(rate: int, system: str, found: Parts) -> list[tuple[str, ...]]:
    """Rows under COLUMNS."""
    return [
        (f"{rate:,}", system, name, f"{p50:,.2f}", f"{p99:,.2f}", f"{share:.1%}")
        for name, p50, p99, share in summary(found)
    ]
