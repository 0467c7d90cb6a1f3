"""Compares what was committed with what must have come of the feed."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
import orjson

from tests.faults.feed import Feed, Load
from tests.faults.table import Row
from tests.faults.watch import Seen
from tests.integration.tape import Place

_SCORE_RTOL = 1e-5


Dead = set[tuple[str, int, int]]
"""Topic, partition and offset of records that must be dead letters."""


def verify(
    row: Row,
    feed: Feed,
    predictions: Sequence[Seen],
    dead: Sequence[Seen],
    poison: Dead,
    model: Path,
    load: Load,
    again: Mapping[Place, int] | None = None,
) -> Row:
    """Fills in the row's counts; see Row.judge. again: how often more than once records are to be scored."""
    predictions = _without_first(predictions, again) if again else predictions
    parsed = [orjson.loads(seen.value) for seen in predictions]
    places = [(p["source"]["partition"], p["source"]["offset"]) for p in parsed]
    copies = Counter(places)
    row.events = len(feed)
    row.lost = len(feed.rows.keys() - copies.keys())
    row.duplicated = len(places) - len(copies)
    if strange := copies.keys() - feed.rows.keys():
        row.problems.append(f"{len(strange)} predictions of records that must have none, such as {sorted(strange)[:3]}")
    letters = Counter(_source(seen) for seen in dead)
    row.lost += len(poison - letters.keys())
    row.duplicated += sum(letters.values()) - len(letters)
    if strange := letters.keys() - poison:
        row.problems.append(f"{len(strange)} dead letters of good records, such as {sorted(strange)[:3]}")
    row.disordered = _disordered(predictions, parsed)
    known = [i for i, place in enumerate(places) if place in feed.rows]
    _compare([parsed[i] for i in known], [feed.rows[places[i]] for i in known], feed, model, row)
    row.stall_s = round(longest_stall(predictions), 2)
    waits = [
        s.arrived_s - load.sent_s[0, p][o] for s, (p, o) in zip(predictions, places, strict=True) if copies[p, o] == 1
    ]
    row.p99_s = round(float(np.percentile(waits, 99)), 3) if waits else 0.0
    return row


def longest_stall(predictions: Sequence[Seen]) -> float:
    """Seconds between two consecutive predictions of a partition, where it was longest."""
    by_partition: dict[int, list[float]] = defaultdict(list)
    for seen in predictions:
        by_partition[seen.partition].append(seen.appended_s)
    gaps = [b - a for times in by_partition.values() for a, b in itertools.pairwise(times)]
    return max(gaps, default=0.0)


def _compare(parsed: Sequence[dict], rows: Sequence[int], feed: Feed, model: Path, row: Row) -> None:
    if not parsed:
        return
    nan = np.float32(np.nan)
    found = np.array([[nan if v is None else v for v in p["features"].values()] for p in parsed], dtype=np.float32)
    wanted = feed.matrix[rows]
    same = (found.view(np.uint32) == wanted.view(np.uint32)) | (np.isnan(found) & np.isnan(wanted))
    marked = np.array(["degraded" in p for p in parsed])
    row.degraded = int(marked.sum())
    wrong = ~same.all(axis=1) & ~marked
    row.mismatched = int(wrong.sum())
    for i in np.flatnonzero(wrong)[:2].tolist():
        source = parsed[i]["source"]
        row.notes.append(
            f"{source['topic']}/{source['partition']}/{source['offset']}: {found[i].tolist()}, not {wanted[i].tolist()}"
        )
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    scores = session.run(None, {session.get_inputs()[0].name: found})[0].reshape(-1)
    given = np.array([np.nan if p["score"] is None else p["score"] for p in parsed])
    row.wrong_scores = int((~np.isclose(given, scores, rtol=_SCORE_RTOL, atol=1e-7)).sum())


def _without_first(predictions: Sequence[Seen], again: Mapping[Place, int]) -> list[Seen]:
    """The predictions without the earliest of those records that are scored again: the later one counts."""
    left = Counter(again)
    kept = []
    for seen in predictions:
        source = orjson.loads(seen.value)["source"]
        place = source["partition"], source["offset"]
        if left[place] > 0:
            left[place] -= 1
        else:
            kept.append(seen)
    return kept


def _disordered(predictions: Sequence[Seen], parsed: Sequence[dict]) -> int:
    """Predictions that come after one of a later event of their key; a copy of one is not out of order."""
    newest: dict[tuple[int, str], int] = {}
    wrong = 0
    for seen, p in zip(predictions, parsed, strict=True):
        key = seen.partition, p["key"]
        offset = p["source"]["offset"]
        wrong += offset < newest.get(key, -1)
        newest[key] = max(offset, newest.get(key, -1))
    return wrong


def _source(seen: Seen) -> tuple[str, int, int]:
    headers = dict(seen.headers)
    return headers["weir.topic"].decode(), int(headers["weir.partition"]), int(headers["weir.offset"])
