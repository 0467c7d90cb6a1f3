"""`python -m tests.kernels`: compiles what a worker and a reader need, or finds it compiled."""

from __future__ import annotations

from examples.payments.pipeline import pipeline
from features.engine import FeatureEngine
from features.memory_store import MemoryStore
from features.reader import StateReader
from streams.predictions import PredictionEncoder
from tests.features.rounds import DictStore


def main() -> None:
    FeatureEngine(pipeline.spec, DictStore())
    StateReader(pipeline.spec, MemoryStore(), key=str(pipeline.lead.key))
    PredictionEncoder(pipeline.lead.topic, pipeline.spec.names)


if __name__ == "__main__":
    main()
