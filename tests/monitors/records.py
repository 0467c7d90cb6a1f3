"""Predictions and labels for the monitor's tests."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from monitors.join import Label
from monitors.predictions import Kinds, Prediction, prediction_decoder

KINDS: Kinds = {"amount": "number", "city": "category"}
HOUR = 3_600_000
Shadows = Mapping[str, "float | list[float | None] | None"]

_decode = prediction_decoder(KINDS)


def prediction(
    name: str,
    time: int = 0,
    *,
    partition: int = 0,
    offset: int = 0,
    score: float | list[float] | None = 0.5,
    amount: float | None = 1.5,
    city: str | None = "Rome",
    version: str | None = "1",
    shadows: Shadows | None = None,
) -> Prediction:
    return _decode(encoded(name, time, partition, offset, score, amount, city, version, shadows))


def encoded(
    name: str,
    time: int = 0,
    partition: int = 0,
    offset: int = 0,
    score: float | list[float] | None = 0.5,
    amount: float | None = 1.5,
    city: str | None = "Rome",
    version: str | None = "1",
    shadows: Shadows | None = None,
) -> bytes:
    """The record as the worker writes it."""
    return msgspec.json.encode(
        {
            "id": name,
            "key": "k",
            "time": time,
            "source": {"topic": "payments", "partition": partition, "offset": offset},
            "model": "m",
            "version": version,
            "arm": "champion",
            "deployment": "d",
            "score": score,
            "shadows": shadows or {},
            "features": {"amount": amount, "city": city},
        }
    )


def label(name: str, time: int = HOUR, value: float = 1.0) -> Label:
    return Label(name, time, value)
