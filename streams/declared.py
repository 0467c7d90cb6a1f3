"""Features as they are declared, over sources; and what their names and durations may be."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from features.spec import Aggregate, Calendar, Category, Columns, Computed, Feature, Ratio, Value
from features.windows import WindowError, parse_duration
from streams.errors import DeclarationError

if TYPE_CHECKING:
    from streams.groups import Group
    from streams.source import Source

_DTYPES = ("float32", "float64", "int32", "int64", "bool")


@dataclass(frozen=True)
class Declared:
    """A feature over `source`; the pipeline gives the source its place (`Aggregate.stream`). group: if it is remote."""

    source: Source
    feature: Value | Category | Calendar | Aggregate
    group: Group | None = None


@dataclass(frozen=True)
class DeclaredOver:
    """A feature that is computed of aggregates, which need not be features themselves."""

    feature: Computed | Ratio
    uses: tuple[Declared, ...]


AnyDeclared = Declared | DeclaredOver | Computed


def compute(
    name: str,
    function: Callable[[Columns], Any],
    dtype: str = "float32",
    *,
    uses: Iterable[Any] = (),
) -> Computed | DeclaredOver:
    """A feature made of the scored events' fields by a vectorised function: columns → array [n].

    Columns: float64 [n] with NaN for null, or a list of str | None. uses: aggregates (lists of any depth) that the
    columns hold as well, by their names: float64 [n], NaN where missing.
    """
    name = feature_name(name)
    if dtype not in _DTYPES:
        raise DeclarationError(f"feature {name}: dtype must be one of {', '.join(_DTYPES)}, not {dtype!r}")
    if not callable(function):
        raise DeclarationError(f"feature {name}: {function!r} is not a function of the event's columns")
    computed, used = Computed(name, function, dtype), tuple(_aggregates(name, uses))
    return DeclaredOver(computed, used) if used else computed


def ratio(name: str, upper: Any, lower: Any) -> DeclaredOver:
    """One aggregate over another, as in ratio("share", user.sum("amount", "1h"), user.sum("amount", "24h")).

    Missing where either is, and where the lower one is 0.
    """
    name = feature_name(name)
    used = [*_aggregates(name, [upper]), *_aggregates(name, [lower])]
    if len(used) != 2:
        raise DeclarationError(f"feature {name}: a ratio has two aggregates of one window each, not {len(used)}")
    upper_feature, lower_feature = (found.feature for found in used)
    assert isinstance(upper_feature, Aggregate)
    assert isinstance(lower_feature, Aggregate)
    return DeclaredOver(Ratio(name, upper_feature, lower_feature), tuple(used))


def name_of(item: AnyDeclared) -> str:
    """The name of a declared feature."""
    return item.name if isinstance(item, Computed) else item.feature.name


def placed(declared: Declared, index: int) -> Feature:
    """The engine's form of a declared feature whose source has place `index` in the pipeline."""
    feature = declared.feature
    return replace(feature, stream=index) if isinstance(feature, Aggregate) else feature


def placed_over(declared: DeclaredOver, used: Sequence[Aggregate]) -> Computed | Ratio:
    """The engine's form of a feature over aggregates, `used`, which have their places."""
    feature = declared.feature
    if isinstance(feature, Ratio):
        return replace(feature, upper=used[0], lower=used[1])
    return replace(feature, uses=tuple(used))


def feature_name(name: str) -> str:
    """`name`, if it may name a feature."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_]\w{0,199}", name):
        raise DeclarationError(f"feature {name!r}: a name is made of letters, digits and _, and begins with a letter")
    return name


def duration_ms(text: str, what: str) -> int:
    """Milliseconds of a duration; `what` begins the message where it is none."""
    try:
        return parse_duration(str(text))
    except WindowError as error:
        raise DeclarationError(f"{what}: {error}") from error


def _aggregates(name: str, items: Any) -> Iterable[Declared]:
    """The aggregates in lists of any depth."""
    for item in items if isinstance(items, list | tuple) else [items]:
        if isinstance(item, list | tuple):
            yield from _aggregates(name, item)
        elif isinstance(item, Declared) and isinstance(item.feature, Aggregate):
            yield item
        else:
            raise DeclarationError(f"feature {name}: {item!r} is no aggregate; use source.by(…).sum(…) and the like")
