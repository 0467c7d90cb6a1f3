"""Blocks and samples made up for the drift tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from monitors.block import Block, Column, Labelled, VersionLoss
from monitors.detectors import DETECTORS
from monitors.detectors.base import Sample, Takes
from monitors.histogram import counts

DAY = 86_400_000
EVENTS = 400


def number(values: np.ndarray) -> Sample:
    return Sample(float(values.mean()), len(values), counts(values))


def rate(ones: int, n: int = EVENTS) -> Sample:
    return Sample(ones / n, n, {"0": n - ones, "1016": ones})


def category(counts: Sequence[int]) -> Sample:
    return Sample(0.0, int(sum(counts)), {f"city {at}": int(n) for at, n in enumerate(counts) if n})


def samples(takes: Takes, blocks: int, seed: int, *, changed: bool = False) -> list[Sample]:
    """Blocks without memory: each has its own level (as weather gives it) around one that is the same for all.

    changed: another level, by four standard deviations between blocks.
    """
    draw = np.random.default_rng(seed)
    found = []
    for level in draw.normal(1.0 if changed else 0.0, 0.25, blocks):
        if takes == "category":
            shares = np.exp([0.0, level, 0.5])
            found.append(category(draw.multinomial(EVENTS, shares / shares.sum())))
        elif takes == "rate":
            found.append(rate(int(draw.binomial(EVENTS, 1 / (1 + np.exp(1.4 - level))))))
        else:
            values = draw.normal(level, 1.0, EVENTS)
            found.append(number(values) if takes == "number" else Sample(float(values.mean()), EVENTS))
    return found


PAIRS = [(name, takes) for name, made in DETECTORS.items() for takes in sorted(made.takes)]
"""Every detector with everything that it takes."""


def block(
    at: int,
    *,
    features: dict[str, Column] | None = None,
    score: Column | None = None,
    label: Labelled | None = None,
    versions: dict[str, VersionLoss] | None = None,
    served: dict[str, int] | None = None,
) -> Block:
    more: dict[str, Any] = {"features": features or {}, "versions": versions or {}, "served": served or {}}
    if score is not None:
        more["score"] = score
    if label is not None:
        more["labels"] = label
    return Block(f"p-{at}", "p", at, at * DAY, (at + 1) * DAY, **more)


def column(sample: Sample, nulls: int = 0) -> Column:
    return Column(sample.n, nulls, mean=sample.value, bins=dict(sample.bins))
