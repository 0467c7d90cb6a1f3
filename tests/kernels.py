"""`python -m tests.kernels`: compiles what a worker needs, or finds it compiled."""

from __future__ import annotations

from examples.payments.pipeline import pipeline
from features.engine import FeatureEngine
from streams.predictions import PredictionEncoder
from tests.features.rounds import DictStore


def main() -> None:
    FeatureEngine(pipeline.spec, DictStore())
    PredictionEncoder(pipeline.lead.topic, pipeline.spec.names)


if __name__ == "__main__":
    main()
