"""The payments pipeline in other sizes: more features, another model, topics of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.payments import model as payments_model
from streams import Pipeline, Source
from streams.event import Event, make_event

BASE_FEATURES = len(payments_model.FEATURES)
WINDOWS = ("10m", "1h", "24h")
AGGREGATIONS = ("sum", "mean", "min", "max")
_FIELDS = {"payment_id": str, "user_id": str, "merchant": str, "amount": float, "ts": int}


@dataclass(frozen=True)
class Variant:
    """The example's eight features of `topic`, and more up to `features`, under the name `name`.

    numbers: how many more numbers a payment carries (x01, x02, …). Of each, in turn, the sum, mean, least and greatest
    over each of `WINDOWS` is a feature: twelve a number.
    """

    name: str
    topic: str
    features: int = BASE_FEATURES
    numbers: int = 0

    @property
    def event(self) -> type[Event]:
        return make_event("Payment", {**_FIELDS, **dict.fromkeys(number_names(self.numbers), float)})

    def pipeline(self) -> Pipeline:
        """Raises DeclarationError where `numbers` are too few for `features`: the model would lack inputs."""
        source = Source(self.topic, self.event, key="user_id", id="payment_id", time="ts")
        user = source.by("user_id")
        base: list[Any] = [
            source.field("amount"),
            user.since_last(),
            user.count("1h", "24h"),
            user.sum("amount", "1h", "24h"),
            user.mean("amount", "1h", "24h"),
        ]
        more: list[Any] = [
            getattr(user, aggregation)(number, window)
            for number in number_names(self.numbers)
            for aggregation in AGGREGATIONS
            for window in WINDOWS
        ]
        return Pipeline(
            self.name, score=source, features=[*base, *more[: self.features - BASE_FEATURES]], model=self.name
        )

    def write(self, folder: Path) -> str:
        """Writes a file that declares the pipeline, and returns how `weir worker` names it."""
        path = folder / f"{self.name}.py"
        path.write_text(f"from loadtest.variants import Variant\n\npipeline = {self!r}.pipeline()\n")
        return f"{path}:pipeline"


def number_names(numbers: int) -> list[str]:
    """x01, x02, …"""
    return [f"x{i:02d}" for i in range(1, numbers + 1)]
