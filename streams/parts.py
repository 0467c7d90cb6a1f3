"""The parts of a pipeline: what each kind of its workers reads, keeps, sends on and scores.

Without remote groups there is one part. Each group adds one, whose workers read the group's topic:

    sources ──▶ first part ──▶ exact group ──▶ exact group ──▶ predictions
                                                    │ ▲
                                          its event │ │ its rows, from Redis
                                                    ▼ │
                                              group that is read

The part that scores is the last of the chain; without an exact group that is the first one.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

from features.spec import FeatureSpec
from streams.errors import UsageError
from streams.groups import Group
from streams.pipeline import Pipeline
from streams.source import Source


@dataclass(frozen=True)
class Part:
    """What one kind of worker does.

    declared: the whole pipeline. pipeline: as this worker sees it: its own name, the sources that it reads, the
    aggregates that it keeps (`spec.kept`).
    group: whose topic it reads; None = the sources themselves.
    carried: aggregates that come with its records. hop: where each event goes on to be scored; None = nowhere.
    read: groups whose state it reads to score.
    """

    declared: Pipeline
    pipeline: Pipeline
    group: Group | None = None
    carried: tuple[str, ...] = ()
    hop: Group | None = None
    read: tuple[Group, ...] = ()

    @property
    def scores(self) -> bool:
        return self.hop is None and (self.group is None or self.group.exact)

    @property
    def owns(self) -> bool:
        """Whether it only keeps what others read."""
        return self.group is not None and not self.group.exact

    @property
    def sends_to(self) -> tuple[Group, ...]:
        """The groups that its events go to."""
        return self.read if self.hop is None else (self.hop,)

    @property
    def carries(self) -> tuple[str, ...]:
        """The aggregates that go along with an event that hops."""
        return (*self.carried, *(a.name for a in self.pipeline.spec.kept)) if self.hop is not None else ()

    def owner_of(self, group: Group) -> Part:
        """The part that keeps `group`."""
        return part_of(self.declared, group.name)


def parts_of(pipeline: Pipeline) -> tuple[Part, ...]:
    """The first part, then that of each group, in the order of the declaration, those that score in a chain."""
    chain = [None, *(group for group in pipeline.groups if group.exact)]
    read = tuple(group for group in pipeline.groups if not group.exact)
    parts: list[Part] = []
    for place, group in enumerate(chain):
        carried = parts[-1].carries if parts else ()
        hop = chain[place + 1] if place + 1 < len(chain) else None
        seen = pipeline if group is None else _seen_by(pipeline, group)
        parts.append(Part(pipeline, seen, group, carried, hop, () if hop else read))
    return (*parts, *(Part(pipeline, _seen_by(pipeline, group), group) for group in read))


def part_of(pipeline: Pipeline, group: str | None) -> Part:
    """The part of a group by its name; None = the first. Raises UsageError."""
    for part in parts_of(pipeline):
        if (part.group.name if part.group else None) == group:
            return part
    known = ", ".join(g.name for g in pipeline.groups)
    has = f"it has {known}" if known else "all of its features are kept by its workers; leave --group out"
    raise UsageError(f"pipeline {pipeline.name} has no remote group {group!r}; {has}")


def _seen_by(pipeline: Pipeline, group: Group) -> Pipeline:
    """The pipeline as the workers of `group` see it."""
    seen = copy.copy(pipeline)
    source = _source(pipeline, group)
    mine = tuple(a for a in pipeline.spec.aggregates if a.entity == group.entity)
    if group.exact:
        given = frozenset(a.name for a in pipeline.spec.aggregates) - {a.name for a in mine}
        spec = replace(pipeline.spec, streams=(source.stream,), given=given)
    else:
        spec, seen.rules = FeatureSpec((source.stream,), mine), ()
    seen.groups = ()
    seen.name, seen.sources, seen.spec = group.topic(pipeline.name), (source,), spec
    return seen


def _source(pipeline: Pipeline, group: Group) -> Source:
    """The group's topic as a source: the scored events, keyed by the entity's text."""
    lead = pipeline.lead
    field = lead.stream.field(group.entity[0])
    key = group.entity[0] if field is not None and not field.nullable else lead.key
    rules = lead.rules if group.exact else ()
    return replace(lead, topic=group.topic(pipeline.name), key=key, partitioner="crc32", rules=rules)
