"""What a read of online features asks, worked out once: the aggregates behind it, and what becomes of their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from features.expiry import seen_of, sources_of
from features.kernel import OUT_COLUMN
from features.layout import Kind
from features.read_kernel import combine
from features.spec import Aggregate, FeatureSpec, Ratio


class ReadError(Exception):
    """What was asked cannot be answered; the message says the mend. field: the place in the question."""

    def __init__(self, field: str, said: str) -> None:
        super().__init__(f"{field}: {said}" if field else said)
        self.field, self.said = field, said


class Unreadable(ReadError):
    """Not the question is wrong, but what is stored: of other features, broken, or nothing yet."""


class Group(NamedTuple):
    """The aggregates needed of one entity kind: columns int64 [k], their places in the spec's
    aggregates; places int64 [k], those among the needed ones.

    sources, seen: the newest events that each depends on, and those of the kind (see `features.expiry`).
    """

    kind: Kind
    sources: np.ndarray
    seen: np.ndarray
    columns: np.ndarray
    places: np.ndarray


class ReadPlan(NamedTuple):
    """names: of the features asked; fields: the entity fields of each, of a ratio over two entities those of both.

    groups: the aggregates needed for them, `needed` in all. upper, lower int64 [k]: of each feature, its place among
    these; of a ratio, the places of its two. Of others lower is -1.
    """

    names: tuple[str, ...]
    fields: tuple[tuple[str, ...], ...]
    groups: tuple[Group, ...]
    needed: int
    upper: np.ndarray
    lower: np.ndarray


class Evaluated(NamedTuple):
    """n entities by k aggregates, each [n, k]: values float64, NaN = none; codes uint8 (see `features.expiry`); newest
    int64, the event time in ms of what the entity has seen last, UNSEEN if nothing.
    """

    values: np.ndarray
    codes: np.ndarray
    newest: np.ndarray


NOTHING = ReadPlan((), (), (), 0, *[np.empty(0, dtype=np.int64)] * 2)


def readable(spec: FeatureSpec) -> dict[str, Aggregate | Ratio]:
    """The features that can be read without an event, by name, in the order of the model's inputs.

    What others keep (`spec.given`) is read of them.
    """
    return {
        f.name: f
        for f in spec.features
        if (isinstance(f, Aggregate) and f.name not in spec.given)
        or (isinstance(f, Ratio) and spec.given.isdisjoint(a.name for a in f.uses))
    }


def made_plan(
    spec: FeatureSpec, kinds: Sequence[Kind], key: str, fields: frozenset[str], asked: tuple[str, ...] | None
) -> ReadPlan:
    """The plan for entities that name `fields`. key: that of the source. asked: features by name; None = all those
    whose fields are named. Raises ReadError.
    """
    known = {name for entity in spec.entities for name in entity} | {key}
    for name in fields:
        if name not in known:
            raise ReadError(f"field {name}", f"no feature is grouped by it; name some of {', '.join(sorted(known))}")
    found = readable(spec)
    if asked is None:
        asked = tuple(name for name, feature in found.items() if fields.issuperset(_fields(feature)))
        if not asked:
            of = dict.fromkeys(_fields(feature) for feature in found.values())
            raise ReadError("", f"no entity: give the fields {' or '.join('(' + ', '.join(one) + ')' for one in of)}")
    for place, name in enumerate(asked):
        if name not in found:
            why = "is known only when an event comes" if name in spec.names else "there is none of that name"
            if name in spec.given:
                why = "is kept by the owner of its entity"
            raise ReadError(f"features[{place}]", f"{name} {why}; ask for some of {', '.join(found)}")
        if not fields.issuperset(_fields(found[name])):
            lacking = ", ".join(dict.fromkeys(_fields(found[name])))
            raise ReadError(f"features[{place}]", f"{name} is of ({lacking}); name these fields")
    pairs = [(f.upper, f.lower) if isinstance(f := found[name], Ratio) else (f, None) for name in asked]
    needed = list(dict.fromkeys(aggregate for pair in pairs for aggregate in pair if aggregate is not None))
    groups = []
    for kind in kinds:
        places = [place for place, aggregate in enumerate(needed) if aggregate.entity == kind.fields]
        if places:
            columns = np.array([spec.aggregates.index(needed[place]) for place in places])
            outs = [int(np.flatnonzero(kind.outs[:, OUT_COLUMN] == column)[0]) for column in columns]
            groups.append(Group(kind, sources_of(kind, outs), seen_of(kind), columns, np.array(places)))
    upper = np.array([needed.index(one) for one, _ in pairs], dtype=np.int64)
    lower = np.array([-1 if other is None else needed.index(other) for _, other in pairs], dtype=np.int64)
    of_fields = tuple(_fields(found[name]) for name in asked)
    return ReadPlan(asked, of_fields, tuple(groups), len(needed), upper, lower)


def asked_of(plan: ReadPlan, evaluated: Evaluated, missing: float) -> Evaluated:
    """The features asked, of the aggregates needed for them.

    A ratio is as old as the older of its two, and no better than the worse. What a model could not get, being beyond
    float32, is missing; for what is missing or expired, and no number, stands `missing`.
    """
    return Evaluated(*combine(plan.upper, plan.lower, *evaluated, missing))


def _fields(feature: Aggregate | Ratio) -> tuple[str, ...]:
    if isinstance(feature, Aggregate) or feature.upper.entity == feature.lower.entity:
        return feature.uses[0].entity if isinstance(feature, Ratio) else feature.entity
    return feature.upper.entity + feature.lower.entity
