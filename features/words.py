"""What a feature means, in words made from its declaration: for the catalogue.

Each operation has a row in OPERATIONS; a test fails for one that has none.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from features.spec import Aggregate, Calendar, Category, Computed, Feature, FeatureSpec, Frequency, Hashed, Ratio
from features.windows import Forever, LastEvents, Window

_UNITS = {"ms": "millisecond", "s": "second", "m": "minute", "h": "hour", "d": "day"}
_DAY_MS, _LISTED = 86_400_000, 8

_NONE = "{null}, where there was no event"
_ZERO = "0 where there was none"


@dataclass(frozen=True)
class Words:
    """what: the value, with {field} in it, {q} of a quantile, {nth} of a lag, {half} for a half-life.

    missing: what stands where there is none, with {null} for what a number that is missing is to the model.
    span: whether it is taken over a window, is of one event before, or is of all of them, of which old ones fade.
    """

    what: str
    missing: str
    span: Literal["window", "latest", "fading"] = "window"


OPERATIONS: dict[str, Words] = {
    "count": Words("number of events", _ZERO),
    "sum": Words("sum of {field}", _ZERO),
    "mean": Words("mean of {field}", _NONE),
    "min": Words("smallest {field}", _NONE),
    "max": Words("largest {field}", _NONE),
    "variance": Words("variance of {field}", _NONE),
    "std": Words("standard deviation of {field}", _NONE),
    "rate": Words("events per second", _ZERO),
    "first": Words("{field} of the earliest event", _NONE),
    "streak": Words("number of events in a row with the same {field}, up to the latest,", _ZERO),
    "distinct": Words("number of different values of {field}", _ZERO),
    "quantile": Words("{q} quantile of {field}", _NONE),
    "most_frequent": Words("most frequent {field}", _NONE),
    "decayed_count": Words("number of events, each weighing half as much after every {half},", _ZERO, "fading"),
    "decayed_mean": Words("mean of {field}, each weighing half as much after every {half},", _NONE, "fading"),
    "lag": Words("{field} of the {nth} event before", f"{_NONE}, or it is older", "latest"),
    "last": Words("{field} of the event before", f"{_NONE}, or it is older", "latest"),
    "since_last": Words("seconds since the event before", f"{_NONE}, or it is older", "latest"),
}

CALENDAR: dict[str, str] = {
    "minute": "minute of the hour",
    "hour": "hour of the day",
    "minute_of_day": "minute of the day",
    "weekday": "day of the week (0 is Monday)",
    "weekend": "whether it is a Saturday or Sunday (1) or not (0)",
    "day": "day of the month",
    "month": "month of the year",
}


def meaning(spec: FeatureSpec, feature: Feature) -> str:
    """A sentence without its full stop: "mean of amount over the last hour of payments of the same user_id, …"."""
    scored = spec.streams[0].name
    if isinstance(feature, Aggregate):
        return _aggregate(spec, feature)
    if isinstance(feature, Ratio):
        return f"{_aggregate(spec, feature.upper)}, divided by: {_aggregate(spec, feature.lower)}"
    if isinstance(feature, Calendar):
        return f"{CALENDAR[feature.part]} at the time of the event of {scored}, in the time zone {feature.zone}"
    if isinstance(feature, Computed):
        used = f", and from {' and '.join(a.name for a in feature.uses)}," if feature.uses else ""
        return f"computed from the fields of the event of {scored}{used} by {_name(feature)}"
    return f"{feature.field} of the event of {scored} itself"


def missing(spec: FeatureSpec, feature: Feature) -> str:
    """What the model gets where there is no value."""
    null = "NaN to the model, null in the prediction"
    if not math.isnan(spec.missing):
        null = f"{spec.missing:g} to the model and in the prediction"
    if isinstance(feature, Aggregate):
        return OPERATIONS[feature.op].missing.format(null=null)
    if isinstance(feature, Ratio):
        return f"{null}, where one of the two is missing, or the lower one is 0"
    if isinstance(feature, Calendar):
        return "never"
    if isinstance(feature, Category):
        code = "0" if isinstance(feature.encoding, Frequency) else f"code {feature.encoding.size - 1}"
        return f"{code} to the model, null in the prediction"
    return null


def type_of(feature: Feature) -> str:
    """The type that the model gets."""
    encoding = feature.encoding if isinstance(feature, Category | Aggregate) else None
    if isinstance(encoding, Frequency):
        return "category: its share, as float32"
    if encoding is not None:
        return f"category: a code from 0 to {encoding.size - 1}, as float32"
    if isinstance(feature, Computed) and feature.dtype != "float32":
        return f"number: {feature.dtype}, as float32"
    return "number: float32"


def encoding(feature: Feature) -> str:
    """How a category becomes a number; empty for what is one."""
    encoding = feature.encoding if isinstance(feature, Category | Aggregate) else None
    if encoding is None:
        return ""
    if isinstance(encoding, Hashed):
        return f"CRC32 of the text modulo {encoding.buckets}"
    if isinstance(encoding, Frequency):
        pairs = [f"{text}={share:g}" for text, share in encoding.shares]
        others = "0"
    else:
        pairs = [f"{value}={code}" for code, value in enumerate(encoding.values)]
        others = str(len(pairs))
    more = len(pairs) - _LISTED
    return f"{', '.join(pairs[:_LISTED])}{f' and {more} more' if more > 0 else ''}; others={others}"


def freshness(feature: Feature) -> str:
    """Which events it covers at the time of the scored one."""
    if isinstance(feature, Ratio):
        return "; ".join(dict.fromkeys(map(freshness, feature.uses)))
    if isinstance(feature, Computed):
        return "; ".join(dict.fromkeys(["the scored event itself", *map(freshness, feature.uses)]))
    if not isinstance(feature, Aggregate):
        return "the scored event itself"
    if isinstance(feature.window, Window):
        return f"all events that arrived before; old ones leave by panes of {duration(feature.window.pane_ms)}"
    return "all events that arrived before"


def duration(ms: int) -> str:
    """ "1 hour", "24 hours", "30 days": in the largest unit that divides it, days from two on."""
    for unit, length in (("d", _DAY_MS), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if ms % length == 0 and ms >= (2 if unit == "d" else 1) * length:
            return _counted(ms // length, unit)
    return _counted(ms, "ms")


def _aggregate(spec: FeatureSpec, feature: Aggregate) -> str:
    words = OPERATIONS[feature.op]
    what = words.what.format(
        field=feature.field, q=f"{feature.param / 1e6:g}", nth=_nth(feature.param), half=_half_life(feature)
    )
    of = f"of {spec.streams[feature.stream].name} of the same {_entity(feature)}"
    if feature.where is not None:
        of += f" where {feature.where.text}"
    within, window = duration(feature.within_ms or 0), feature.window
    if isinstance(window, Window):
        return f"{what} over the last {_span(window.text)} {of}, before this one"
    if isinstance(window, LastEvents):
        latest = "latest event" if window.events == 1 else f"{window.events} latest events"
        return f"{what} over the {latest} {of}, before this one, as far as no older than {within}"
    if isinstance(window, Forever):
        return f"{what} over all events {of}, before this one, since there was none for {within}"
    if words.span == "fading":
        return f"{what} {of}, before this one, since there was none for {within}"
    return f"{what}, {of}, if it is no older than {within}"


def _nth(n: int) -> str:
    suffix = {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th") if n % 100 not in (11, 12, 13) else "th"
    return f"{n}{suffix}"


def _half_life(feature: Aggregate) -> str:
    """ "hour", "30 minutes"."""
    text = duration(feature.param) if OPERATIONS[feature.op].span == "fading" else ""
    return text.removeprefix("1 ")


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


def _name(feature: Computed) -> str:
    name = getattr(feature.function, "__name__", "")
    return "a function" if not name or "lambda" in name else f"the function {name}"
