"""The catalogue of a pipeline's features: what each means, and what is known of it beside its declaration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from features import words
from features.spec import Aggregate, Calendar, Category, Computed, Feature, Hashed, Ratio
from features.windows import Window
from models.registry import Registered
from streams.groups import Group
from streams.pipeline import Pipeline


def described(pipeline: Pipeline, feature: Feature) -> dict[str, Any]:
    """A feature by its declaration: what `weir features list` shows and the catalogue begins with."""
    spec = pipeline.spec
    found: dict[str, Any] = {"name": feature.name, **_declared(pipeline, feature)}
    rules = [f"{c.words} ({c.action})" for c in pipeline.rules if c.of == feature.name]
    return {
        **found,
        "meaning": words.meaning(spec, feature),
        "type": words.type_of(feature),
        "encoding": words.encoding(feature),
        "missing": words.missing(spec, feature),
        "freshness": _freshness(pipeline, feature),
        "rules": rules,
    }


def catalogue(
    pipeline: Pipeline, versions: Sequence[Registered], examples: Mapping[str, Sequence[Any]], online: str = ""
) -> dict[str, Any]:
    """All that the page says. versions: of the pipeline's model; examples: values by feature; online: which of them
    are of the online store.
    """
    fitting = [v for v in versions if v.version.spec_hash == pipeline.spec.hash]
    models = [
        {"version": v.version.version, "places": list(v.aliases), "created_ms": v.created_ms} for v in fitting
    ]
    return {
        "pipeline": pipeline.name,
        "model": pipeline.model,
        "spec_hash": pipeline.spec.hash,
        "sources": [_source(source, lead=source is pipeline.lead) for source in pipeline.sources],
        "models": models,
        "other_versions": len(versions) - len(fitting),
        "online_examples": online,
        "features": [
            {
                **described(pipeline, feature),
                "examples": list(examples.get(feature.name, ())),
                "models": [model["version"] for model in models],
            }
            for feature in pipeline.spec.features
        ],
    }


def _freshness(pipeline: Pipeline, feature: Feature) -> str:
    """Which events it covers, and where another worker keeps it, how far that may be behind."""
    used: Sequence[Aggregate] = feature.uses if isinstance(feature, Computed | Ratio) else ()
    if isinstance(feature, Aggregate):
        used = (feature,)
    said = [words.freshness(feature)]
    for group in dict.fromkeys(group for a in used if (group := _group(pipeline, a)) is not None):
        if group.exact:
            said.append(f"of {group.name} exact: the event is scored where its events are, a commit interval later")
            continue
        bound = "no bound is declared"
        if group.fresh_ms is not None:
            then = "marked" if group.on_stale == "mark" else "not scored"
            bound = f"an event for which that is older than {words.duration(group.fresh_ms)} is {then}"
        said.append(f"of {group.name} as its owner last wrote it, a second or two behind; {bound}")
    return "; ".join(said)


def _group(pipeline: Pipeline, aggregate: Aggregate) -> Group | None:
    """The remote group that it belongs to."""
    if aggregate.name not in pipeline.spec.given:
        return None
    return next(group for group in pipeline.groups if group.entity == aggregate.entity)


def _declared(pipeline: Pipeline, feature: Feature) -> dict[str, Any]:
    lead = pipeline.lead.topic
    if isinstance(feature, Computed | Ratio):
        kind = "ratio" if isinstance(feature, Ratio) else "compute"
        of = " / " if isinstance(feature, Ratio) else ", "
        return {"source": lead, "kind": kind, "of": of.join(a.name for a in feature.uses) or None}
    if isinstance(feature, Calendar):
        return {"source": lead, "kind": "calendar", "of": feature.part, "window": feature.zone}
    if isinstance(feature, Category):
        encoding = feature.encoding
        size = f"{encoding.buckets} buckets" if isinstance(encoding, Hashed) else f"{encoding.size - 1} values"
        return {"source": lead, "kind": "category", "of": feature.field, "window": size}
    if isinstance(feature, Aggregate):
        within = f"within {(feature.within_ms or 0) / 86_400_000:g}d"
        window = within if feature.window is None else feature.window.text
        if feature.window is not None and not isinstance(feature.window, Window):
            window = f"{window}, {within}"
        if feature.where is not None:
            window = f"{window}, where {feature.where.text}"
        return {
            "kind": feature.op,
            "of": feature.field,
            "source": pipeline.sources[feature.stream].topic,
            "entity": ", ".join(feature.entity),
            "window": window,
            **({"remote": "exact" if group.exact else "read"} if (group := _group(pipeline, feature)) else {}),
        }
    return {"source": lead, "kind": "field", "of": feature.field}


def _source(source: Any, *, lead: bool) -> dict[str, Any]:
    return {
        "topic": source.topic,
        "scored": lead,
        "event": source.event.__name__,
        "key": source.key,
        "time": source.time,
        "codec": source.codec,
        "rules": [f"{c.of} {c.words} ({c.action})" for c in source.conditions],
    }
