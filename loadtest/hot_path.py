"""What the hot path allocates per record, stage by stage, held to a budget that is kept beside this file:

    python -m loadtest.hot_path            # a table, beside the budget; exit code 1 where a stage is above it
    python -m loadtest.hot_path --write    # what is measured is the budget from now on

Allocations are counted, not seconds: the same code makes the same number of them on a busy machine and on a quiet one.
The product's own classes work off the same payments each time; every stage is called as the worker calls it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any

from confluent_kafka import Message

from examples.payments import model as payments_model
from examples.payments.generate import Payments
from features.engine import FeatureEngine
from features.memory_store import MemoryStore
from features.store import Meta
from loadtest.systems import PIPELINE
from models.files import sha256_of
from models.rollout import Version, promote, unscored
from models.scorer import Scorer
from streams.batches import batch_of
from streams.decode import decoder_of
from streams.lane import Lane, Position
from streams.loading import load_pipeline
from streams.predictions import PredictionEncoder
from streams.rounds import assemble

BUDGET = Path(__file__).with_name("hot_path_budget.json")
RECORDS, USERS = 2048, 300
TOLERANCE = 0.05
ROOM = 0.05
"""Allocations a record that a stage may always have more: what is made once a batch is not worth a word."""

Stage = tuple[str, Callable[[Any], Any]]
"""A name, and what makes of the stage before's result this one's."""


class HotPath:
    """One partition's way from messages to encoded predictions; `folder` takes the model's file."""

    def __init__(self, folder: Path) -> None:
        self._pipeline = pipeline = load_pipeline(PIPELINE)
        file = payments_model.write(folder / "payments.onnx")
        version = Version(
            pipeline.model, "1", file.as_uri(), sha256_of(file.read_bytes()), pipeline.spec.hash, output=pipeline.output
        )
        self._deployment = promote(unscored(pipeline.model), version)
        self._scorer = Scorer.load(self._deployment, pipeline.spec.names, pipeline.spec.hash, cache_dir=folder)
        self._decoder = decoder_of(pipeline.lead, 0, pipeline.spec)
        self._lane = Lane(0, [0], [Position(0)], generation=0)
        self._engine = FeatureEngine(pipeline.spec, MemoryStore())
        self._engine.own(0, Meta(0, 0, pipeline.spec.state_hash, ()), empty=True)
        self._encoder = PredictionEncoder(pipeline.lead.topic, pipeline.spec.names)
        self._loop = asyncio.new_event_loop()

    @property
    def stages(self) -> list[Stage]:
        """In their order; the first takes the messages of one poll."""
        return [
            ("batch", lambda messages: batch_of(0, 0, messages, 0, 0)),
            ("decode", lambda batch: self._decoder.decode_all([batch])[0]),
            ("round", self._round),
            ("features", self._features),
            ("inference", self._inference),
            ("encode", self._encode),
        ]

    def close(self) -> None:
        self._scorer.close()
        self._loop.close()

    def _round(self, decoded: Any) -> Any:
        self._lane.add(decoded)
        take = self._lane.take()
        assert take is not None
        work = assemble([take], 1)
        self._lane.drop(take)
        return work

    def _features(self, work: Any) -> Any:
        self._loop.run_until_complete(self._engine.load(work.columns))
        return work.rows, self._engine.process(work.columns)

    def _inference(self, found: Any) -> Any:
        rows, features = found
        return rows, features, self._scorer.score(features.matrix, rows.keys)

    def _encode(self, found: Any) -> Any:
        rows, features, scores = found
        return self._encoder.of_round(rows, features.logged, scores, self._deployment)


def polls(count: int, records: int = RECORDS) -> list[list[Message]]:
    """`count` polls of `records` messages each, of one partition; in each of them nearly all users pay."""
    stream = Payments(users=USERS).records(count * records)
    messages = [
        Message(topic="payments", partition=0, offset=i, key=r.key, value=r.value, timestamp=(1, r.time_ms))
        for i, r in enumerate(stream)
    ]
    rest = iter(messages)
    return [list(islice(rest, records)) for _ in range(count)]


def measure(stages: Sequence[Stage], warm_up: Any, given: Any, records: int = RECORDS) -> dict[str, float]:
    """Allocations a record of each stage, for `given`; `warm_up` goes through all of them before."""
    for _, work in stages:
        warm_up = work(warm_up)
    found: dict[str, float] = {}
    gc.collect()
    was_on = gc.isenabled()
    gc.disable()  # when it runs depends on what ran before
    try:
        with tempfile.TemporaryDirectory(prefix="weir-hot-path-") as folder:
            for place, (name, work) in enumerate(stages):
                given, count = _counted(work, given, Path(folder) / f"{place}.bin")
                found[name] = round(count / records, 3)
    finally:
        if was_on:
            gc.enable()
    return found


def _counted(work: Callable[[Any], Any], given: Any, capture: Path) -> tuple[Any, int]:
    """The stage's result, and how many allocations it made: Python's own and the C library's."""
    from memray import AllocatorType, FileReader, Tracker

    frees = {AllocatorType.FREE, AllocatorType.MUNMAP, AllocatorType.PYMALLOC_FREE}
    # It warns of greenlet, which is imported here and not used.
    with redirect_stderr(StringIO()), Tracker(capture, trace_python_allocators=True, native_traces=False):
        result = work(given)
    with FileReader(capture) as reader:
        made = sum(r.n_allocations for r in reader.get_allocation_records() if r.allocator not in frees)
    return result, made


@dataclass(frozen=True)
class Budget:
    """Allocations a record of each stage that are allowed, measured with `python` (major.minor): another one
    allocates otherwise.
    """

    python: str
    records: int
    tolerance: float
    allocations_per_record: dict[str, float]

    def exceeded(self, measured: dict[str, float]) -> dict[str, float]:
        """The stages that are above their budget by more than the tolerance and ROOM, or have none; by how much."""
        return {
            name: round(value - self.allocations_per_record.get(name, 0.0), 3)
            for name, value in measured.items()
            if value > self.allocations_per_record.get(name, 0.0) * (1 + self.tolerance) + ROOM
        }


def read_budget(path: Path = BUDGET) -> Budget:
    return Budget(**json.loads(path.read_text()))


def python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def measure_hot_path() -> dict[str, float]:
    """Of the product's own stages."""
    with tempfile.TemporaryDirectory(prefix="weir-hot-path-") as folder:
        path = HotPath(Path(folder))
        try:
            warm_up, given = polls(2)
            return measure(path.stages, warm_up, given)
        finally:
            path.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 1 where a stage is above its budget."""
    parser = argparse.ArgumentParser(description="Allocations a record of the hot path, beside their budget.")
    parser.add_argument("--write", action="store_true", help=f"make what is measured the budget: {BUDGET.name}")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    given = parser.parse_args(arguments)
    measured = measure_hot_path()
    if given.write:
        budget = Budget(python_version(), RECORDS, TOLERANCE, measured)
        BUDGET.write_text(json.dumps(asdict(budget), indent=2) + "\n")
    budget = read_budget()
    above = budget.exceeded(measured)
    if given.json:
        report = {"python": python_version(), "allocations_per_record": measured, "above": above}
        print(json.dumps({**report, "budget": asdict(budget)}))
    else:
        for name, value in measured.items():
            allowed = budget.allocations_per_record.get(name, 0.0)
            print(f"{name:10} {value:8.3f} a record, budget {allowed:8.3f}{'  ABOVE' if name in above else ''}")
        total, allowed = sum(measured.values()), sum(budget.allocations_per_record.values())
        print(f"{'all':10} {total:8.3f} a record, budget {allowed:8.3f}")
        if budget.python != python_version():
            print(f"the budget is for Python {budget.python}, this is {python_version()}", file=sys.stderr)
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main())
