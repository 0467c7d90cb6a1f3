"""Pipelines: which events are scored, what the model sees, how its predictions meet their labels."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from features.spec import (
    Aggregate,
    Calendar,
    Category,
    Columns,
    Computed,
    Feature,
    FeatureSpec,
    Field,
    SpecError,
    Stream,
)
from features.windows import parse_duration
from monitors.conditions import Condition
from monitors.predictions import Kinds
from monitors.rules import Rule
from monitors.watch import DEFAULT_WATCHES, Watch, WatchError, watched
from streams.contract import feature_conditions
from streams.declared import AnyDeclared, Declared, DeclaredOver, duration_ms, name_of, placed, placed_over
from streams.declared_loop import Blocks, Retrain, Rollout, check_signals
from streams.errors import DeclarationError
from streams.event import Event, check_function, event_fields, integer_fields, unknown_field
from streams.groups import Group, merged
from streams.source import CodecName, Source, check_codec, check_topic

Features: TypeAlias = "Iterable[AnyDeclared | Features]"
"""Features in their order, in lists of any depth."""

_BLOCKS = Blocks()
_MAX_NUMBER = float(np.finfo(np.float32).max)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True)
class Topics:
    """Names of the topics that belong to a pipeline."""

    predictions: str
    dead_letters: str
    blocks: str
    drift: str
    retrain: str
    deployments: str
    alerts: str

    @classmethod
    def of(cls, pipeline: str) -> Topics:
        return cls(**{field: f"{pipeline}.{field.replace('_', '-')}" for field in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Labels:
    """Where the truth arrives: events of `topic` whose `id` field is that of a scored event.

    value: a numeric field, or a vectorised function of the columns → array [n].
    within: how long after the prediction's event time a label still counts.
    time: the field with the label's time in ms; None = the record's Kafka timestamp.
    key: the field that is the message key; None = not looked at.
    codec: of the records' values, as a source's.
    """

    topic: str
    event: type[Event]
    _: KW_ONLY
    id: str
    value: str | Callable[[Columns], Any]
    within: str = "7d"
    time: str | None = None
    key: str | None = None
    codec: CodecName = "json"

    def __post_init__(self) -> None:
        check_topic(self.topic, "labels")
        check_codec(self.codec, "labels")
        whole = integer_fields(self.event) if self.stream else frozenset()
        for what in ("id", "time", "key"):
            self._check_field(what, getattr(self, what))
        if self.time is not None and self.time not in whole:
            raise DeclarationError(f"labels: time={self.time!r} must be an int: milliseconds since 1970")
        if isinstance(self.value, str):
            self._check_field("value", self.value)
            found = self.stream.field(self.value)
            if found is not None and found.kind != "number":
                raise DeclarationError(
                    f"labels: value={self.value!r} is a string; give a function that makes it a number"
                )
        else:
            check_function("labels: value", self.value, self.topic, self.stream.fields)
        duration_ms(self.within, "labels: within")

    @cached_property
    def stream(self) -> Stream:
        return Stream(self.topic, event_fields(self.event))

    @property
    def within_ms(self) -> int:
        return parse_duration(self.within)

    def values(self, columns: Columns) -> np.ndarray:
        """Labels float64 [n] of the columns of n label events; NaN = none."""
        found = columns[self.value] if isinstance(self.value, str) else self.value(columns)
        return np.asarray(found, dtype=np.float64)

    def _check_field(self, what: str, name: str | None) -> None:
        if name is not None and self.stream.field(name) is None:
            unknown = unknown_field(name, self.event.__name__, self.stream.fields)
            raise DeclarationError(f"labels: {what}={name!r}: {unknown}")


class Pipeline:
    """A pipeline: immutable; everything that cannot be is a DeclarationError here, at load time.

    name: also begins the names of its topics.
    score: the source whose events get predictions: the lead stream.
    features: in the order of the model's inputs; lists are flattened.
    model: the model's name in the registry and on the deployments topic.
    learn: further sources, co-partitioned with `score`, from which features learn.
    blocks: the stretches that statistics and drift are taken over. drift: what is watched; None = the default.
    retrain, rollout: when a new model is trained, and how it comes into service; with a retrain and no rollout, the
    default one. Both need labels.
    missing: what the model gets, and predictions log, where a number is missing: "nan" (logged as null), "zero" or a
        number. Training reads what was logged, so it is the same there.
    output: the ONNX output that is the score; None = the only one, or the last column of probabilities.
    rules: what the values of the features must be, and what becomes of predictions that break it.

    groups: the entities that other workers keep (`streams.parts`); what they keep is `spec.given`.
    """

    def __init__(
        self,
        name: str,
        *,
        score: Source,
        features: Features,
        model: str,
        learn: Sequence[Source] = (),
        labels: Labels | None = None,
        blocks: Blocks = _BLOCKS,
        drift: Sequence[Watch] | None = None,
        retrain: Retrain | None = None,
        rollout: Rollout | None = None,
        missing: float | str = "nan",
        output: str | None = None,
        rules: Sequence[Rule] = (),
    ) -> None:
        _check_name("pipeline", name)
        _check_name("model", model)
        if output is not None and not output:
            raise DeclarationError(
                f"pipeline {name}: output is empty; name an output of the ONNX model or leave it out"
            )
        self.name = name
        self.model = model
        self.output = output
        self.labels = labels
        self.blocks = blocks
        self.retrain = retrain
        self.rollout = Rollout() if rollout is None and retrain is not None else rollout
        self.sources = _sources(name, score, learn)
        self.topics = Topics.of(name)
        for source in self.sources:
            if source.topic in vars(self.topics).values():
                raise DeclarationError(
                    f"source {source.topic}: that is a topic which pipeline {name} writes; rename one"
                )
        self.groups = _groups(name, self.sources, features)
        self.spec = _spec(name, self.sources, features, missing)
        self.rules: tuple[Condition, ...] = feature_conditions(rules, name, self.spec)
        if labels is not None:
            _check_labels(labels, score, self.sources)
        self.drift = _watches(drift, self.spec)
        _check_loop(name, self)

    @property
    def lead(self) -> Source:
        """The scored source."""
        return self.sources[0]

    def __repr__(self) -> str:
        topics = ", ".join(source.topic for source in self.sources)
        n = len(self.spec.features)
        return f"Pipeline({self.name!r}, sources=[{topics}], features={n}, model={self.model!r})"


def _check_name(what: str, name: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise DeclarationError(
            f"{what} {name!r}: a name has at most 200 letters, digits, '.', '_' and '-', and begins "
            "with a letter or digit"
        )


def _sources(pipeline: str, score: Source, learn: Sequence[Source]) -> tuple[Source, ...]:
    if isinstance(learn, Source):
        raise DeclarationError(f"pipeline {pipeline}: learn is a list: learn=[{learn.topic}]")
    sources = (score, *learn)
    for source in sources:
        if not isinstance(source, Source):
            raise DeclarationError(f"pipeline {pipeline}: {source!r} is not a Source")
    for position, source in enumerate(sources):
        if source.topic in {earlier.topic for earlier in sources[:position]}:
            raise DeclarationError(f"source {source.topic}: two sources read this topic; declare it once")
        _check_co_partitioned(score, source)
    return sources


def _check_co_partitioned(lead: Source, source: Source) -> None:
    mend = "streams of one pipeline need the same key, partitioner and partition count"
    if source.key != lead.key:
        raise DeclarationError(f"source {source.topic} is keyed by {source.key}, {lead.topic} by {lead.key}: {mend}")
    if source.partitioner != lead.partitioner:
        raise DeclarationError(
            f"source {source.topic} is partitioned by {source.partitioner}, {lead.topic} by {lead.partitioner}: {mend}"
        )


def _spec(pipeline: str, sources: tuple[Source, ...], features: Features, missing: float | str) -> FeatureSpec:
    declared = list(_flat(pipeline, features))
    if not declared:
        raise DeclarationError(f"pipeline {pipeline}: it has no features; give the model at least one")
    _check_unique(declared)
    placed_features = tuple(_place(sources, item) for item in declared)
    streams = tuple(source.stream for source in sources)
    given = frozenset(item.feature.name for item in _used(declared) if item.group is not None)
    try:
        return FeatureSpec(streams, placed_features, _missing(pipeline, missing), given)
    except SpecError as error:
        raise DeclarationError(str(error)) from error


def _groups(pipeline: str, sources: tuple[Source, ...], features: Features) -> tuple[Group, ...]:
    """The remote groups, in the order of their first use."""
    found = []
    taken = {source.topic for source in sources}
    for item in _used(list(_flat(pipeline, features))):
        if item.group is None:
            continue
        what, lead = f"feature {item.feature.name}", sources[0]
        if item.source != lead:
            raise DeclarationError(
                f"{what}: {', '.join(item.group.entity)} is not in the key of {item.source.topic} ({item.source.key}), "
                f"which is only learned from; group by {item.source.key} as well, or score {item.source.topic}"
            )
        check_topic(topic := item.group.topic(pipeline), what)
        if topic in taken:
            raise DeclarationError(f"{what}: its events go through {topic}, which is a source; rename one")
        found.append(item.group)
    return merged(found)


def _used(declared: Iterable[AnyDeclared]) -> Iterable[Declared]:
    """Features over a source, and those that others are computed of."""
    for item in declared:
        if isinstance(item, DeclaredOver):
            yield from item.uses
        elif isinstance(item, Declared):
            yield item


def _missing(pipeline: str, missing: float | str) -> float:
    if missing == "nan":
        return math.nan
    if missing == "zero":
        return 0.0
    if isinstance(missing, bool) or not isinstance(missing, int | float) or not abs(missing) < _MAX_NUMBER:
        raise DeclarationError(f'pipeline {pipeline}: missing is "nan", "zero" or a number, not {missing!r}')
    return float(missing)


def _flat(pipeline: str, features: Any) -> Iterable[AnyDeclared]:
    if not isinstance(features, Iterable):
        raise DeclarationError(f"pipeline {pipeline}: features is a list")
    for item in features:
        if isinstance(item, AnyDeclared):
            yield item
        elif isinstance(item, list | tuple):
            yield from _flat(pipeline, item)
        else:
            raise DeclarationError(
                f"pipeline {pipeline}: {item!r} is not a feature; "
                "use source.field(), source.category(), source.by().count(), compute() …"
            )


def _check_unique(declared: list[AnyDeclared]) -> None:
    seen: dict[str, AnyDeclared] = {}
    for item in declared:
        other = seen.setdefault(name_of(item), item)
        if other is item:
            continue
        mend = "remove one or rename it with name="
        if isinstance(item, Declared) and isinstance(item.feature, Aggregate):
            entity = "_".join(item.feature.entity)
            fields = ", ".join(repr(field) for field in item.feature.entity)
            mend = f'remove one, or rename the entity: {item.source.topic}.by({fields}, name="{entity}_2")'
            if isinstance(other, Declared) and other.source != item.source:
                short = item.source.topic.rsplit(".", 1)[-1].replace("-", "_")
                name = f'name="{entity}_{short}"'
                mend = f"two streams give it; rename one's entity: {item.source.topic}.by({fields}, {name})"
        raise DeclarationError(f"feature {name_of(item)}: declared twice; {mend}")


def _place(sources: tuple[Source, ...], item: AnyDeclared) -> Feature:
    lead = sources[0]
    if isinstance(item, Computed):
        check_function(f"feature {item.name}", item.function, lead.topic, lead.stream.fields)
        return item
    if isinstance(item, DeclaredOver):
        used = [feature for one in item.uses if isinstance(feature := _place(sources, one), Aggregate)]
        if isinstance(item.feature, Computed):
            fields = (*lead.stream.fields, *(Field(aggregate.name, "number", True) for aggregate in used))
            check_function(f"feature {item.feature.name}", item.feature.function, lead.topic, fields)
        return placed_over(item, used)
    name, source = item.feature.name, item.source
    if source not in sources:
        raise DeclarationError(f"feature {name}: its source {source.topic} is not in the pipeline; add it to learn=[…]")
    if isinstance(item.feature, Aggregate):
        _check_entity(lead, source, name, item.feature.entity)
    elif isinstance(item.feature, Calendar) and source != lead:
        raise DeclarationError(
            f"feature {name}: the calendar is that of the scored event; write {lead.topic}.calendar(…)"
        )
    elif not isinstance(item.feature, Calendar) and source != lead:
        raise DeclarationError(
            f"feature {name}: a field of {source.topic}, but {lead.topic} is scored; take a field of "
            f"{lead.topic}, or aggregate it: {source.topic}.by({source.key!r}).last({item.feature.field!r})"
        )
    return placed(item, sources.index(source))


def _check_entity(lead: Source, source: Source, feature: str, entity: tuple[str, ...]) -> None:
    for field in entity:
        here, there = lead.stream.field(field), source.stream.field(field)
        if here is None:
            known = unknown_field(field, lead.topic, lead.stream.fields)
            raise DeclarationError(f"feature {feature}: the scored event must name its entity, but {known}")
        if there is not None and here.kind != there.kind:
            raise DeclarationError(
                f"feature {feature}: {field} is a {here.kind} in {lead.topic}, "
                f"a {there.kind} in {source.topic}; make them the same"
            )
        if there is not None and (field in integer_fields(lead.event)) != (field in integer_fields(source.event)):
            # Beyond 2**53 they would be different keys.
            raise DeclarationError(
                f"feature {feature}: {field} is a whole number in only one of {lead.topic} and {source.topic}; "
                "make them the same"
            )


def _check_labels(labels: Labels, lead: Source, sources: Sequence[Source]) -> None:
    for source in sources:
        if source.topic == labels.topic and source.codec != labels.codec:
            raise DeclarationError(
                f"labels: {labels.topic} is a source with codec={source.codec!r}; give the labels the same, not "
                f"{labels.codec!r}"
            )
    if lead.id is None:
        raise DeclarationError(f"labels: {lead.topic} has no id to join them by; name its field: Source(…, id=…)")
    scored, label = lead.stream.field(lead.id), labels.stream.field(labels.id)
    if scored is not None and label is not None and scored.kind != label.kind:
        raise DeclarationError(
            f"labels: id {labels.id} of {labels.topic} is a {label.kind}, "
            f"{lead.id} of {lead.topic} a {scored.kind}; make them the same"
        )


def _watches(drift: Sequence[Watch] | None, spec: FeatureSpec) -> tuple[Watch, ...]:
    if drift is None:
        return tuple(DEFAULT_WATCHES)
    if isinstance(drift, Watch):
        raise DeclarationError(f"drift is a list: drift=[Watch({', '.join(map(repr, drift.signals))}, …)]")
    if not isinstance(drift, Iterable):
        raise DeclarationError(f"drift is a list of Watch(…), not {drift!r}")
    found = tuple(drift)
    for watch in found:
        if not isinstance(watch, Watch):
            raise DeclarationError(f"drift: {watch!r} is not a Watch(…)")
    kinds: Kinds = {f.name: "category" if isinstance(f, Category) else "number" for f in spec.features}
    try:
        watched(found, kinds)
    except WatchError as error:
        raise DeclarationError(f"drift: {error}") from error
    return found


def _check_loop(name: str, pipeline: Pipeline) -> None:
    for what, declared, type_ in (
        ("blocks", pipeline.blocks, Blocks),
        ("retrain", pipeline.retrain, Retrain),
        ("rollout", pipeline.rollout, Rollout),
    ):
        if not isinstance(declared, type_) and not (declared is None and what != "blocks"):
            raise DeclarationError(f"pipeline {name}: {what} is a {type_.__name__}(…), not {declared!r}")
        if declared is not None and what != "blocks" and pipeline.labels is None:
            raise DeclarationError(
                f"pipeline {name}: {what} needs labels; declare labels=Labels(…) or leave {what} out"
            )
    retrain, length = pipeline.retrain, pipeline.blocks.length_ms
    if retrain is None:
        return
    check_signals("retrain: on", retrain.on, pipeline.spec.names)
    every = retrain.policy.every_ms
    if every is not None and length is not None and every < length:
        raise DeclarationError(
            f"retrain: every={retrain.every!r} is shorter than a block ({pipeline.blocks.every}), and a block brings "
            "at most one retrain event; lengthen it or shorten the blocks"
        )
