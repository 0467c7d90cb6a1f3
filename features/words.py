"""What a feature means, in words made from its declaration: for the catalogue.

Each operation has a row in OPERATIONS; a test fails for one that has none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from features.spec import Aggregate, Category, Computed, Feature, FeatureSpec, Hashed, Vocabulary

_UNITS = {"ms": "millisecond", "s": "second", "m": "minute", "h": "hour", "d": "day"}
_DAY_MS, _LISTED = 86_400_000, 8

NULL = "NaN to the model, null in the prediction"
NONE = f"{NULL}, where there was no event"


@dataclass(frozen=True)
class Words:
    """what: the value, with {field} in it; missing: what stands where there is none.

    span: whether it is taken over a window, or is of the latest event.
    """

    what: str
    missing: str
    span: Literal["window", "latest"] = "window"


OPERATIONS: dict[str, Words] = {
    "count": Words("number of events", "0 where there was none"),
    "sum": Words("sum of {field}", "0 where there was none"),
    "mean": Words("mean of {field}", NONE),
    "min": Words("smallest {field}", NONE),
    "max": Words("largest {field}", NONE),
    "last": Words("{field} of the event before", f"{NONE}, or it is older", "latest"),
    "since_last": Words("seconds since the event before", f"{NONE}, or it is older", "latest"),
}


def meaning(spec: FeatureSpec, feature: Feature) -> str:
    """A sentence without its full stop: "mean of amount over the last hour of payments of the same user_id, …"."""
    if isinstance(feature, Aggregate):
        return _aggregate(spec, feature)
    if isinstance(feature, Computed):
        return f"computed from the fields of the event of {spec.streams[0].name} by {_name(feature)}"
    return f"{feature.field} of the event of {spec.streams[0].name} itself"


def missing(feature: Feature) -> str:
    """What the model gets where there is no value."""
    if isinstance(feature, Aggregate):
        return OPERATIONS[feature.op].missing
    if isinstance(feature, Category):
        return f"code {_last_code(feature)} to the model, null in the prediction"
    return NULL


def type_of(feature: Feature) -> str:
    """The type that the model gets."""
    if isinstance(feature, Category):
        return f"category: a code from 0 to {_last_code(feature)}, as float32"
    if isinstance(feature, Computed) and feature.dtype != "float32":
        return f"number: {feature.dtype}, as float32"
    return "number: float32"


def encoding(feature: Feature) -> str:
    """How a category becomes a number; empty for what is one."""
    if not isinstance(feature, Category):
        return ""
    if isinstance(feature.encoding, Hashed):
        return f"CRC32 of the text modulo {feature.encoding.buckets}"
    assert isinstance(feature.encoding, Vocabulary)
    listed = ", ".join(f"{value}={code}" for code, value in enumerate(feature.encoding.values[:_LISTED]))
    more = len(feature.encoding.values) - _LISTED
    return f"{listed}{f' and {more} more' if more > 0 else ''}; others={_last_code(feature)}"


def freshness(feature: Feature) -> str:
    """Which events it covers at the time of the scored one."""
    if not isinstance(feature, Aggregate):
        return "the scored event itself"
    if feature.window is None:
        return "all events that arrived before"
    return f"all events that arrived before; old ones leave by panes of {duration(feature.window.pane_ms)}"


def duration(ms: int) -> str:
    """ "1 hour", "24 hours", "30 days": in the largest unit that divides it, days from two on."""
    for unit, length in (("d", _DAY_MS), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if ms % length == 0 and ms >= (2 if unit == "d" else 1) * length:
            return _counted(ms // length, unit)
    return _counted(ms, "ms")


def _aggregate(spec: FeatureSpec, feature: Aggregate) -> str:
    words = OPERATIONS[feature.op]
    what = words.what.format(field=feature.field)
    of = f"of {spec.streams[feature.stream].name} of the same {_entity(feature)}"
    if words.span == "window" and feature.window is not None:
        return f"{what} over the last {_span(feature.window.text)} {of}, before this one"
    return f"{what}, {of}, if it is no older than {duration(feature.within_ms or 0)}"


def _entity(feature: Aggregate) -> str:
    return " and ".join(feature.entity)


def _span(text: str) -> str:
    """ "1h" as "hour", "24h" as "24 hours": as declared."""
    found = re.fullmatch(r"(\d+)([a-z]+)", text)
    if found is None:
        return text
    return _UNITS[found[2]] if found[1] == "1" else _counted(int(found[1]), found[2])


def _counted(n: int, unit: str) -> str:
    return f"{n} {_UNITS[unit]}{'' if n == 1 else 's'}"


def _last_code(feature: Category) -> int:
    return feature.encoding.size - 1


def _name(feature: Computed) -> str:
    name = getattr(feature.function, "__name__", "")
    return "a function" if not name or "lambda" in name else f"the function {name}"
