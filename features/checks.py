"""What a feature may be: refused at load time, with the feature's name and the mend."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from features.aggregations import OPS, Op
from features.calendar_parts import PARTS
from features.condition import ConditionError
from features.feature import Aggregate, Calendar, Category, Computed, Feature, Ratio, SpecError, Stream, Value
from features.windows import LastEvents, Window


def check_feature(streams: Sequence[Stream], feature: Feature, given: Collection[str] = ()) -> None:
    """Raises SpecError where `feature` cannot be computed of `streams`. given: aggregates of other
    workers, whose streams need not be here."""
    scored = streams[0]
    if isinstance(feature, Value):
        found = scored.field(feature.field)
        if found is None:
            raise SpecError(_unknown(feature.name, feature.field, scored))
        if found.kind != "number":
            raise SpecError(
                f"feature {feature.name}: field {feature.field} of {scored.name} is a string; "
                "declare it as a category"
            )
    elif isinstance(feature, Category):
        _check_category(scored, feature)
    elif isinstance(feature, Calendar):
        _check_calendar(feature)
    elif isinstance(feature, Aggregate):
        if feature.name not in given or feature.stream < len(streams):
            _check_aggregate(streams, feature)
    else:
        _check_over_aggregates(streams, feature, given)


def _check_category(scored: Stream, feature: Category) -> None:
    found = scored.field(feature.field)
    if found is None:
        raise SpecError(_unknown(feature.name, feature.field, scored))
    if found.kind != "string":
        raise SpecError(f"feature {feature.name}: field {feature.field} of {scored.name} is a number, not a category")
    if feature.encoding.size < 2:
        raise SpecError(f"feature {feature.name}: the encoding is empty; name at least one value or bucket")


def _check_calendar(feature: Calendar) -> None:
    if feature.part not in PARTS:
        raise SpecError(f"feature {feature.name}: {feature.part!r} is none of {', '.join(PARTS)}")
    try:
        ZoneInfo(feature.zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise SpecError(
            f'feature {feature.name}: there is no time zone {feature.zone!r}; name one like "Europe/Berlin" or "UTC"'
        ) from error


def _check_over_aggregates(
    streams: Sequence[Stream], feature: Computed | Ratio, given: Collection[str]
) -> None:
    for used in feature.uses:
        if used.name not in given or used.stream < len(streams):
            _check_aggregate(streams, used)
        if isinstance(feature, Computed) and streams[0].field(used.name) is not None:
            raise SpecError(
                f"feature {feature.name}: it uses {used.name}, and {streams[0].name} has a field of that name; "
                "rename the aggregate with name="
            )


def _check_aggregate(streams: Sequence[Stream], feature: Aggregate) -> None:
    source, scored = streams[feature.stream], streams[0]
    for name in feature.entity:
        for stream in (source, scored):
            if stream.field(name) is None:
                raise SpecError(_unknown(feature.name, name, stream))
    if not feature.entity:
        raise SpecError(f"feature {feature.name}: no entity; name the field(s) to group by")
    op = OPS.get(feature.op)
    if op is None:
        raise SpecError(f"feature {feature.name}: {feature.op!r} is none of {', '.join(OPS)}")
    if op.takes == "nothing":
        if feature.field is not None:
            raise SpecError(f"feature {feature.name}: {feature.op} takes no field")
    else:
        _check_field(source, feature, op)
    _check_window(feature, op)
    _check_param(feature)
    if feature.where is not None:
        try:
            feature.where.check({f.name: f.kind for f in source.fields}, source.name)
        except ConditionError as error:
            raise SpecError(f"feature {feature.name}: where: {error}") from error


def _check_field(source: Stream, feature: Aggregate, op: Op) -> None:
    found = source.field(feature.field or "")
    if found is None:
        raise SpecError(_unknown(feature.name, feature.field or "", source))
    if found.kind == "string" and op.takes == "number":
        raise SpecError(
            f"feature {feature.name}: {feature.op} needs a number, {found.name} of {source.name} is a string"
        )
    encoded = found.kind == "string" and op.takes == "code"
    if encoded and feature.encoding is None:
        raise SpecError(
            f"feature {feature.name}: {feature.op} of {found.name}, a string, gives a code; list its values, "
            "or use Hashed(buckets)"
        )
    if feature.encoding is not None and not encoded:
        raise SpecError(f"feature {feature.name}: an encoding belongs to most_frequent of a string; leave it out")


def _check_window(feature: Aggregate, op: Op) -> None:
    sawtooth = isinstance(feature.window, Window)
    without = op.shape in ("lag", "latest") or "decayed" in op.parts
    if without and feature.window is not None:
        raise SpecError(f"feature {feature.name}: {feature.op} takes within=, not a window")
    if not without and feature.window is None:
        raise SpecError(f'feature {feature.name}: {feature.op} needs a window, for example "1h"')
    if op.shape == "rate" and not sawtooth:
        raise SpecError(f'feature {feature.name}: a rate needs a window with a length, for example "1h"')
    if not sawtooth and not feature.within_ms:
        raise SpecError(f"feature {feature.name}: {feature.op} takes within=, for example 30d")
    if sawtooth and feature.within_ms is not None:
        raise SpecError(f"feature {feature.name}: a window with a length ends by itself; leave within= out")
    if isinstance(feature.window, LastEvents) and feature.op == "count" and feature.where is None:
        raise SpecError(
            f"feature {feature.name}: the latest {feature.window.events} events are {feature.window.events}; "
            "count a window with a length"
        )


def _check_param(feature: Aggregate) -> None:
    if feature.op == "quantile" and not 0 < feature.param < 1_000_000:
        raise SpecError(f"feature {feature.name}: a quantile lies between 0 and 1; min and max are the ends")
    if feature.op == "lag" and feature.param < 1:
        raise SpecError(f"feature {feature.name}: lag counts from 1, the latest value")
    if feature.op in ("decayed_count", "decayed_mean") and feature.param < 1:
        raise SpecError(f'feature {feature.name}: {feature.op} needs a half-life, for example "1h"')


def _unknown(feature: str, name: str, stream: Stream) -> str:
    known = ", ".join(f.name for f in stream.fields)
    return f"feature {feature}: {stream.name} has no field {name!r}; it has {known}"
