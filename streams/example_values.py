"""Example values of a pipeline's features: of entities that the online store holds now, else out of the archive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from features.readings import STATES, Readings
from features.store import StoreMisconfigured, StoreUnavailable
from streams.errors import WeirError
from streams.online import FeatureReader, ReadError
from streams.pipeline import Pipeline

EXAMPLES = 3
"""Values of a feature, each another."""
ENTITIES = 20
"""Entities of each kind that are read for them."""
_PRESENT = STATES.index("present")

Values = dict[str, list[Any]]
"""By feature; nothing of those that no value is known of."""


@dataclass(frozen=True)
class Examples:
    """values: by feature; online: where those of the online store come from, or why there are none."""

    values: Values
    online: str


def example_values(pipeline: Pipeline, archive: Path, find_redis: Callable[[], str]) -> Examples:
    """What there is: what can be read online is as of now, the others are of the newest file of the archive.

    find_redis: the address of the store; raises WeirError where it is known that none runs. A store that does not
    answer leaves its values out.
    """
    found, online = {}, "no entity has a value now"
    if pipeline.spec.aggregates:
        try:
            readings = asyncio.run(_read(pipeline, find_redis()))
        except (WeirError, StoreUnavailable, StoreMisconfigured, ReadError) as error:
            online = f"not read: {error}"
        else:
            found = _online(readings)
            if found:
                entities, at = sum(map(len, readings)), datetime.fromtimestamp(readings[0].at_ms / 1000, UTC)
                online = f"of {entities} entities as of {at:%Y-%m-%d %H:%M:%S} UTC"
    else:
        online = "no feature can be read online"
    return Examples({**archived_examples(pipeline, archive), **found}, online)


def archived_examples(pipeline: Pipeline, folder: Path) -> Values:
    """Values by feature out of the newest file of the archive that can be read; none where there is no archive."""
    for path in sorted(folder.glob("*.parquet"), key=lambda p: p.stat().st_mtime, reverse=True):
        try:
            frame = pl.read_parquet(path, glob=False)
        except (pl.exceptions.PolarsError, OSError):
            continue  # cut short: the one before will do
        return {
            name: frame[f"feature.{name}"].drop_nulls().unique(maintain_order=True).tail(EXAMPLES).to_list()
            for name in pipeline.spec.names
            if f"feature.{name}" in frame.columns
        }
    return {}


async def _read(pipeline: Pipeline, redis_url: str) -> list[Readings]:
    """Of each kind of entity, those that the store names first, all as of now."""
    async with FeatureReader(pipeline, redis_url) as reader:
        now = datetime.now(UTC)
        return [await reader.read(some, at=now) for some in await reader.some_entities(ENTITIES)]


def _online(readings: list[Readings]) -> Values:
    """The values that are present. What was seen too long ago is no example of what a model gets."""
    found: dict[str, dict[float, None]] = {}
    for one in readings:
        for place, name in enumerate(one.names):
            values = one.values[one.states[:, place] == _PRESENT, place].tolist()
            if values and name not in found:
                found[name] = dict.fromkeys(values)
    return {name: list(values)[:EXAMPLES] for name, values in found.items()}
