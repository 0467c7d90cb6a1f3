"""What features bring: the demo's model without one group of its features at a time, and with one group more, offline,
on the same flights.

    python -m examples.flights.study --json

One backfill computes every group. A group of the demo's is what it keeps of one entity of one stream. The built-in
network is then trained on the first two months of the flights, once for each seed, and scores all the others. It is
never trained again: what is compared is the features, not the loop.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from examples.flights.data import STREAMS, Flights, month_start, parse_months
from examples.flights.pipeline import (
    aircraft,
    airline,
    airport,
    arrivals,
    departures,
    features,
    pipeline,
    requests,
    route,
)
from features.spec import Aggregate
from models.metrics import auc
from models.runner import Runner
from models.trainer import train_mlp
from streams import Pipeline, ratio
from streams.declared import Declared
from streams.offline.backfill import Backfill
from streams.offline.files import inputs_of
from streams.offline.labels import LabelTable
from streams.offline.rejects import Reject
from streams.offline.rows import Reading
from streams.training import read_dataset

TRAINED_MONTHS = 2
_LATE = "dep_delay > 15"
_landed = arrivals.by("origin", name="landed")
_flown = departures.by("origin", "carrier", name="flown")

GROUPS: dict[str, list[Any]] = {
    "share of late departures": [
        ratio("late_share_1h", airport.count("1h", where=_LATE), airport.count("1h")),
        ratio("late_share_3h", airport.count("3h", where=_LATE), airport.count("3h")),
    ],
    "delays, decayed": [airport.decayed_mean("dep_delay", "30m", "2h"), airline.decayed_mean("arr_delay", "1h", "6h")],
    "arrivals at their origin's": [_landed.mean("arr_delay", "1h", "3h", "24h"), _landed.max("arr_delay", "3h")],
    "the airline's departures": [_flown.mean("dep_delay", "1h", "3h"), _flown.count("3h", "24h")],
    "the route's latest": [route.mean("arr_delay", "last 5", "last 20"), route.lag("arr_delay", 2)],
    "the aircraft's latest": [aircraft.mean("arr_delay", "last 5"), aircraft.count("24h")],
    "minute of the day": [requests.calendar("minute_of_day")],
}
"""Groups of features to add to the demo's, by what they say."""


@dataclass(frozen=True)
class Found:
    """What a pipeline's features reach: AUC of each seed's network on the flights after training."""

    name: str
    features: int
    aucs: tuple[float, ...]

    @property
    def auc(self) -> float:
        return statistics.fmean(self.aucs)

    def as_json(self, base: Found) -> dict[str, Any]:
        return {
            "features": self.features,
            "group": self.name,
            "auc": round(self.auc, 4),
            "gain": round(self.auc - base.auc, 4),
            "seeds": [round(value, 4) for value in self.aucs],
        }


def declared(of: Sequence[Any]) -> Pipeline:
    """The demo's pipeline with these features."""
    return Pipeline(
        pipeline.name,
        score=requests,
        learn=[departures, arrivals],
        features=of,
        model=pipeline.model,
        labels=pipeline.labels,
    )


def without_one() -> dict[str, list[Declared]]:
    """The demo's features without those of one entity of one stream, by what is left out."""
    flat = [one for item in features for one in (item if isinstance(item, list) else [item])]
    kept = {one: (one.source.topic, one.feature.entity) for one in flat if isinstance(one.feature, Aggregate)}
    return {
        f"{topic.removeprefix('flights.')} by {' and '.join(entity)}": [
            one for one in flat if kept.get(one) != (topic, entity)
        ]
        for topic, entity in dict.fromkeys(kept.values())
    }


def write_events(folder: Path, months: tuple[int, int], topics: Sequence[str]) -> list[str]:
    """The flights of the months, a file a stream, as `--input` takes them."""
    values: list[list[bytes]] = [[] for _ in STREAMS]
    for event in Flights(*months).events():
        values[event.stream].append(event.value)
    for topic, lines in zip(topics, values, strict=True):
        (folder / f"{topic}.jsonl").write_bytes(b"\n".join(lines))
    return [f"{topic}={folder / topic}.jsonl" for topic in topics]


def computed(wide: Pipeline, folder: Path, months: tuple[int, int]) -> Path:
    """A file with the features of every group and the labels, by a backfill of the months."""
    topics = [source.topic for source in wide.sources]
    inputs = inputs_of(write_events(folder, months, topics), topics)
    reading = Reading()
    rejected: list[Reject] = []
    assert wide.labels is not None
    labels = LabelTable(wide.labels, inputs[wide.labels.topic], reading, rejected.extend)
    frames = Backfill(wide, inputs, reading, rejected.extend, labels).frames()
    path = folder / "features.parquet"
    pl.concat(frames).write_parquet(path)
    if rejected:
        raise ValueError(f"{len(rejected)} events cannot be used: {rejected[0]}")
    return path


def judged(name: str, one: Pipeline, path: Path, cut_ms: int, seeds: Sequence[int]) -> Found:
    """Trains on what was asked before `cut_ms`, and known by then, and scores what was asked later."""
    past = read_dataset(one, path.parent, [path], to_ms=cut_ms, known_before_ms=cut_ms)
    future = read_dataset(one, path.parent, [path], from_ms=cut_ms)
    aucs = []
    for seed in seeds:
        trained = train_mlp(past, path.with_name("model.onnx"), seed=seed)
        scores = Runner(trained.path.read_bytes(), one.spec.names).run(future.matrix)
        aucs.append(auc(scores, future.labels))
    return Found(name, len(one.spec.names), tuple(aucs))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.flights.study", description="What features bring.")
    parser.add_argument("--months", type=parse_months, default=(1, 12), metavar="FIRST-LAST")
    parser.add_argument("--seeds", type=int, default=3, help="networks trained of each (default 3)")
    parser.add_argument("--json", action="store_true", help="one object on stdout")
    given = parser.parse_args()
    if given.months[1] - given.months[0] < TRAINED_MONTHS:
        parser.error(f"--months: {TRAINED_MONTHS} to train on and one to judge by, at least")
    seeds, cut_ms = range(7, 7 + given.seeds), month_start(given.months[0] + TRAINED_MONTHS)
    began = time.monotonic()
    with TemporaryDirectory(prefix="weir-study-") as name:
        everything = [*features, *GROUPS.values()]
        path = computed(declared(everything), Path(name), given.months)
        print(f"features computed in {time.monotonic() - began:.0f} s", file=sys.stderr)
        chosen = {"the demo's": declared(features)}
        chosen |= {f"without {left_out}": declared(rest) for left_out, rest in without_one().items()}
        chosen |= {f"and {group}": declared([*features, more]) for group, more in GROUPS.items()}
        chosen["and all of them"] = declared(everything)
        found: list[Found] = []
        for label, one in chosen.items():
            found.append(judged(label, one, path, cut_ms, seeds))
            print(f"{label}: AUC {found[-1].auc:.4f}", file=sys.stderr)
    rows = [one.as_json(found[0]) for one in found]
    if given.json:
        print(json.dumps({"months": list(given.months), "results": rows}, indent=2))
        return 0
    print("| features | number | AUC | gain | seeds |\n|---|---|---|---|---|")
    for row in rows:
        seeds_said = ", ".join(f"{value:.4f}" for value in row["seeds"])
        print(f"| {row['group']} | {row['features']} | {row['auc']:.4f} | {row['gain']:+.4f} | {seeds_said} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
