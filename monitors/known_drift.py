"""Streams of river's generators whose drift is known: how late each detector tells it, how often it misses or errs.

Concept drift (SEA, Sine): the rule of the labels changes, the features do not; watched is whether a model that was
fitted to the first blocks is wrong. Covariate drift (RBF): the features come from other clusters; watched are they.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from monitors.block import Block, Column, VersionLoss
from monitors.detectors import DETECTORS
from monitors.drift import DriftFold
from monitors.histogram import counts
from monitors.watch import Watch

EVENTS = 100
"""Events a block."""
BLOCKS = 200
CHANGE = 120
"""The block in the middle of the drift. A sudden one lasts a block (less overflows in river), a gradual one 20."""
GRADUAL = 20
FITTED = 30
SEEDS = range(10)
KINDS = ("sudden", "gradual", "none")
FAMILIES = ("sea", "sine", "rbf")


@dataclass(frozen=True)
class Stream:
    """One stream. wrong: bool [events], where the fitted model erred; features: float64 [events, d]."""

    family: str
    kind: str
    seed: int
    wrong: np.ndarray
    features: np.ndarray


class Outcome(NamedTuple):
    """Of one detector on one family and kind of drift, over all seeds.

    delay: median events from the change to the first alarm after it, of those that were told; None: none was.
    missed: streams whose change was never told. false: alarms without a change, for 10,000 events.
    """

    detector: str
    family: str
    kind: str
    delay: float | None
    missed: int
    false: float


def stream(family: str, kind: str, seed: int) -> Stream:
    """Made by river's ConceptDriftStream, from two generators of the family."""
    from river.datasets import synth  # takes seconds to import

    make: Callable[[int], Any] = {
        "sea": lambda at: synth.SEA(variant=(0, 3)[at], seed=seed + at),
        "sine": lambda at: synth.Sine(classification_function=(0, 2)[at], seed=seed + at),
        "rbf": lambda at: synth.RandomRBF(seed_model=2 * seed + at, seed_sample=seed, n_features=4, n_centroids=20),
    }[family]
    source = make(0)
    if kind != "none":
        width = EVENTS if kind == "sudden" else GRADUAL * EVENTS
        source = synth.ConceptDriftStream(make(0), make(1), position=CHANGE * EVENTS, width=width, seed=seed)
    rows = list(islice(source.take(BLOCKS * EVENTS), BLOCKS * EVENTS))
    x = np.array([list(values.values()) for values, _ in rows], dtype=np.float64)
    y = np.array([float(label) for _, label in rows])
    return Stream(family, kind, seed, _wrong(x, y), x)


def blocks(made: Stream) -> Iterator[Block]:
    for at in range(BLOCKS):
        rows = slice(at * EVENTS, (at + 1) * EVENTS)
        found = {}
        for one in range(made.features.shape[1]):
            values = made.features[rows, one]
            found[f"x{one}"] = Column(EVENTS, mean=float(values.mean()), std=float(values.std()), bins=counts(values))
        loss = VersionLoss(EVENTS, EVENTS, errors=float(made.wrong[rows].mean()))
        yield Block(f"known-{at}", "known", at, at, at + 1, EVENTS, features=found, versions={"1": loss})


def on_blocks(name: str, made: Stream) -> list[int]:
    """Events after which the detector `name`, at its default settings, told a drift."""
    watch = Watch("feature.*" if made.family == "rbf" else "errors", detector=name)
    fold = DriftFold("known", [watch], {f"x{one}": "number" for one in range(made.features.shape[1])})
    return [(drift.last + 1) * EVENTS for block in blocks(made) for drift in fold.update(block)]


def bare(name: str, made: Stream) -> list[int]:
    """The same of river's own detector at river's defaults, event by event, one for each feature."""
    from river import drift  # takes seconds to import

    own: dict[str, Callable[[], Any]] = {
        "adwin": drift.ADWIN,
        "page_hinkley": drift.PageHinkley,
        "ddm": drift.binary.DDM,
        "hddm_a": drift.binary.HDDMA,
        "hddm_w": drift.binary.HDDMW,
    }
    found = []
    for column in made.features.T if made.family == "rbf" else [made.wrong]:
        detector = own[name]()
        for at, value in enumerate(column.tolist()):
            if made.family != "rbf" and at < FITTED * EVENTS:
                continue  # the model has seen these
            detector.update(value)
            if detector.drift_detected:
                found.append(at + 1)
    return sorted(found)


def outcome(detector: str, streams: list[Stream], alarms: list[list[int]]) -> Outcome:
    """What the alarms of one detector on streams of one family and kind come to."""
    kind = streams[0].kind
    begins = CHANGE * EVENTS - (GRADUAL * EVENTS if kind == "gradual" else EVENTS) // 2
    calm = BLOCKS * EVENTS if kind == "none" else begins
    false = sum(alarm <= calm for found in alarms for alarm in found)
    after = [next((alarm for alarm in found if alarm > begins), None) for found in alarms]
    delays = [] if kind == "none" else [alarm - begins for alarm in after if alarm is not None]
    missed = 0 if kind == "none" else sum(alarm is None for alarm in after)
    delay = float(np.median(delays)) if delays else None
    return Outcome(detector, streams[0].family, kind, delay, missed, false * 10_000 / (calm * len(streams)))


BARE = ("adwin", "page_hinkley", "ddm", "hddm_a", "hddm_w")
"""KSWIN is not: it takes 0.6 ms an event."""


def outcomes(told: Callable[[str], None] = lambda text: None) -> Iterator[Outcome]:
    """Of every detector, and of river's bare ones ("adwin, bare"), on every family and kind."""
    for family in FAMILIES:
        fit = [name for name, made in DETECTORS.items() if ("number" if family == "rbf" else "rate") in made.takes]
        for kind in KINDS:
            told(f"{family}, {kind}")
            made = [stream(family, kind, seed) for seed in SEEDS]
            for name in fit:
                yield outcome(name, made, [on_blocks(name, one) for one in made])
                if name in BARE:
                    yield outcome(f"{name}, bare", made, [bare(name, one) for one in made])


def _wrong(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where a cubic fitted to the first blocks by least squares is on the wrong side of 0.5."""
    z = (x - x.mean(0)) / x.std(0)
    pairs = [z[:, i] * z[:, j] for i in range(z.shape[1]) for j in range(i, z.shape[1])]
    columns = [np.ones(len(z)), *z.T, *pairs, *(z**3).T]
    terms = np.stack(columns, axis=1)
    rows = FITTED * EVENTS
    weights, *_ = np.linalg.lstsq(terms[:rows], y[:rows], rcond=None)
    wrong: np.ndarray = (terms @ weights >= 0.5) != (y >= 0.5)
    return wrong
