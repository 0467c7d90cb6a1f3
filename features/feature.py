"""The features that a spec is made of: immutable values over the fields of a few streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from features.condition import Condition
from features.encodings import Encoding, Hashed, Vocabulary
from features.windows import AnyWindow, parse_duration

Op = Literal[
    "count",
    "sum",
    "mean",
    "min",
    "max",
    "variance",
    "std",
    "rate",
    "first",
    "streak",
    "distinct",
    "quantile",
    "most_frequent",
    "decayed_count",
    "decayed_mean",
    "lag",
    "last",
    "since_last",
]
"""The rows of `features.aggregations.OPS`."""

DEFAULT_WITHIN_MS = parse_duration("30d")

Columns = Mapping[str, Any]
"""Fields of a batch by name: float64 [n] with NaN for null, or a list of str | None."""


class SpecError(ValueError):
    """A declaration that cannot be: the message names the feature and the mend."""


@dataclass(frozen=True)
class Field:
    """One field of a stream's events."""

    name: str
    kind: Literal["number", "string"]
    nullable: bool = False


@dataclass(frozen=True)
class Stream:
    """A stream of events by its name (its topic) and its fields. Integers and booleans count as numbers."""

    name: str
    fields: tuple[Field, ...]

    def field(self, name: str) -> Field | None:
        return next((f for f in self.fields if f.name == name), None)


@dataclass(frozen=True)
class Value:
    """A numeric field of the scored event itself."""

    name: str
    field: str


@dataclass(frozen=True)
class Category:
    """A string field of the scored event: the model sees its code, the prediction logs it raw."""

    name: str
    field: str
    encoding: Encoding


@dataclass(frozen=True)
class Calendar:
    """A part of the calendar at the scored event's time (`features.calendar_parts`), in a time zone."""

    name: str
    part: str
    zone: str


@dataclass(frozen=True)
class Aggregate:
    """`op` of `field` over the events of stream `stream` that share the scored event's `entity` fields.

    window: all that fold have one, but the decayed ones, which weigh all events. within_ms: for how long without an
    event what is no sawtooth window still holds. where: which events are counted. encoding: of the field's texts, where
    the value is a category's code. param: which quantile in millionths, which of the latest values (lag), or the
    half-life in ms.
    """

    name: str
    stream: int
    entity: tuple[str, ...]
    op: Op
    field: str | None = None
    window: AnyWindow | None = None
    within_ms: int | None = None
    where: Condition | None = None
    encoding: Vocabulary | Hashed | None = None
    param: int = 0


@dataclass(frozen=True)
class Computed:
    """`function` of the scored events' fields, vectorised: Columns → array [n], cast to float32.

    uses: aggregates that the columns hold as well, by their names: float64 [n], NaN where missing.
    """

    name: str
    function: Callable[[Columns], Any] = field(compare=False)
    dtype: str = "float32"
    uses: tuple[Aggregate, ...] = ()


@dataclass(frozen=True)
class Ratio:
    """One aggregate over another; missing where either is, or the lower one is 0."""

    name: str
    upper: Aggregate
    lower: Aggregate

    @property
    def uses(self) -> tuple[Aggregate, ...]:
        return self.upper, self.lower


Feature = Value | Category | Calendar | Aggregate | Computed | Ratio
