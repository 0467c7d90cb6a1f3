"""Online features of entities: read from the store by who owns nothing, evaluated at the time of reading.

A batch of entities costs one request to the store, and one call of compiled code for each group of features.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np

from features import codec
from features.expiry import REBUILDING, seen_of, sources_of
from features.layout import Kind, Layout
from features.partitioner import Partitioner, partitions_of
from features.read_kernel import read_rows
from features.read_plan import NOTHING, Evaluated, Group, ReadPlan, asked_of, made_plan, readable
from features.read_plan import ReadError as ReadError
from features.read_plan import Unreadable as Unreadable
from features.readings import Readings
from features.spec import FeatureSpec
from features.store import Found, Meta, RowKey, Store, Vector, row_keys
from features.trusted import TrustedReads

FieldValue = str | float | None
Entity = Mapping[str, FieldValue]

MOST = 10_000
"""Entities of one read."""
MOST_ROWS = 100_000
"""Rows that a read may look for: one for each entity, group and partition that is asked."""
LATEST_MS = 2**53


class _Sought(NamedTuple):
    """The rows of a read. wanted: as `Store.read` takes it; owners: by partition, the entities that it is asked for,
    once for each group; names: key texts by group and entity.
    """

    wanted: dict[int, list[RowKey]]
    owners: dict[int, list[int]]
    names: list[list[str]]


class StateReader:
    """Reads the aggregates of `spec` as its workers left them in `store`, at most a checkpoint interval ago.

    key: the field that keys the source's records; partitions and partitioner: of its topic. partitions None: as many
        as the worker has noted in the store.
    floats: the number fields that are not declared as integers, whose ids are as exact as a float64 is.
    now_ms, monotonic_s: the clocks.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        store: Store,
        *,
        key: str,
        partitions: int | None = None,
        partitioner: Partitioner = "crc32",
        floats: Collection[str] = (),
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spec, self._store, self._key = spec, store, key
        self._given = partitions
        self._partitions = partitions or 0
        self._partitioner: Partitioner = partitioner
        self._floats = frozenset(floats)
        self._now_ms, self._trusted = now_ms, TrustedReads(store, monotonic_s)
        self.kinds = Layout(spec).kinds
        """What is read, one an entity."""
        self._plans: dict[tuple[frozenset[str], tuple[str, ...] | None], ReadPlan] = {}
        for kind in self.kinds[:1]:  # compiles, or reads what was compiled, before anyone waits
            none = np.empty(0, dtype=np.int64)
            nothing = _nothing(0, 0)
            self._evaluate(Group(kind, sources_of(kind, []), seen_of(kind), none, none), [], [], 0, nothing)
            asked_of(NOTHING, nothing, spec.missing)

    @property
    def features(self) -> list[str]:
        """The names of what it reads."""
        return list(readable(self._spec))

    @property
    def partitions(self) -> int:
        """Of the source's topic; 0 while it is not known."""
        return self._partitions

    async def look(self) -> None:
        """Asks the store whether it has all these features, and how many partitions. Raises as `read` does."""
        meta = await self._look()
        if meta is not None and (others := self._unknown(meta)):
            raise Unreadable(
                "partition 0",
                f"the worker does not keep the features of {' and '.join(map(_named, others))} as they are declared "
                "here; read with the pipeline that the worker runs, or start workers with this one",
            )

    async def _look(self) -> Meta | None:
        meta = (await self._store.read({0: []}))[0].meta
        if meta is not None:
            self._check(0, meta)
        if self._given is None:
            if meta is None or not meta.partitions:
                raise Unreadable("", "no worker of this pipeline has stored features yet: start one, or wait for it")
            self._partitions = max(self._partitions, meta.partitions)
        return meta

    async def read(
        self,
        entities: Sequence[Entity],
        at_ms: int | None = None,
        features: Sequence[str] | None = None,
        *,
        ask_all: bool = False,
    ) -> Readings:
        """The readings of `entities`, which all name the same fields.

        at_ms: event time to read at; now, if not given. The store keeps no past: a time before the newest event is
            answered as far as the windows reach back.
        features: aggregates and ratios by name; None = all those whose entity fields are named.
        ask_all: asks every partition and takes the newest row, for records that another partitioner spread. Entities
            without the source's key are sought so too.

        Raises ReadError, StoreUnavailable, StoreMisconfigured.
        """
        at_ms = self._now_ms() if at_ms is None else at_ms
        if abs(at_ms) > LATEST_MS:
            raise ReadError("at", f"{at_ms} is no time; give ms since 1970")
        plan = self._plan_of(entities, features)
        texts = {name: self._texts(name, entities) for name in (entities[0] if entities else ())}
        if not self._partitions:
            await self._look()
        for _ in range(2):
            partitions = self._partitions
            sought = self._sought(plan, texts, len(entities), ask_all)
            found = await self._found(sought)
            if partitions == self._partitions:
                break  # else the topic has more by now
        return self._readings(plan, sought, found, len(entities), at_ms)

    def _plan_of(self, entities: Sequence[Entity], features: Sequence[str] | None) -> ReadPlan:
        if len(entities) > MOST:
            raise ReadError("entities", f"{len(entities):,} are too many for one read; ask for at most {MOST:,}")
        fields = entities[0].keys() if entities else frozenset[str]()
        for place, entity in enumerate(entities):
            if entity.keys() != fields:
                named, first = ", ".join(sorted(entity)) or "nothing", ", ".join(sorted(fields)) or "nothing"
                raise ReadError(
                    f"entities[{place}]",
                    f"names {named}, and entities[0] {first}; ask for entities of one kind at a time",
                )
        asked = None if features is None else tuple(features)
        key = frozenset(fields), asked
        plan = self._plans.get(key)
        if plan is None:
            plan = made_plan(self._spec, self.kinds, self._key, *key) if entities else NOTHING
            if len(self._plans) < 1000:
                self._plans[key] = plan
        return plan

    def _texts(self, name: str, entities: Sequence[Entity]) -> list[str]:
        """A field of the entities as key text: what an event with that value would have."""
        field = self._spec.streams[0].field(name)
        number = field is not None and field.kind != "string"
        texts = []
        for place, entity in enumerate(entities):
            value = entity[name]
            if number or not isinstance(value, str):
                value = self._text(f"entities[{place}].{name}", name, value, number)
            texts.append(value)
        return texts

    def _text(self, where: str, name: str, value: FieldValue, number: bool) -> str:
        if value is None:
            raise ReadError(where, "null names no entity; give every field a value")
        if not isinstance(value, str | int | float) or (isinstance(value, bool) and not number):
            raise ReadError(where, f"{type(value).__name__} names no entity; give a text or a number")
        if not number:
            return str(value)
        if isinstance(value, int | str) and name not in self._floats:
            try:
                whole = int(value)
            except ValueError:
                pass
            else:
                if -(2**63) <= whole < 2**63:
                    return str(whole)
        try:
            found = float(value)
        except (ValueError, OverflowError):
            raise ReadError(where, f"{value!r} is not a number") from None
        if math.isnan(found):
            raise ReadError(where, "NaN names no entity; give every field a value")
        text = codec.entity_key([found])
        assert text is not None
        return text

    def _sought(self, plan: ReadPlan, texts: Mapping[str, list[str]], n: int, ask_all: bool) -> _Sought:
        keys = None if ask_all else texts.get(self._key)
        every = range(self._partitions)
        asked_of_all = n if keys is None else keys.count("")  # an empty key lies anywhere
        rows = len(plan.groups) * (n - asked_of_all + asked_of_all * len(every))
        if rows > MOST_ROWS:
            raise ReadError(
                "entities", f"{rows:,} rows would be looked for, in all partitions; ask for at most {MOST_ROWS:,}"
            )
        owners: dict[int, list[int]] = defaultdict(list)
        if keys is None:
            owners |= {partition: list(range(n)) for partition in every if n}
        else:
            for owner, partition in enumerate(partitions_of(keys, self._partitions, self._partitioner)):
                if keys[owner]:
                    owners[partition].append(owner)
                else:
                    for one in every:
                        owners[one].append(owner)
        names = [cast("list[str]", codec.entity_keys([texts[f] for f in group.kind.fields])) for group in plan.groups]
        numbers = [group.kind.number for group in plan.groups]
        wanted: dict[int, list[RowKey]] = {}
        for partition, some in owners.items():
            asked = wanted[partition] = []
            for number, mine in zip(numbers, names, strict=True):
                asked += row_keys(number, [mine[owner] for owner in some])
        return _Sought(wanted, owners, names)

    async def _found(self, sought: _Sought) -> Mapping[int, Found]:
        """The rows sought, each with its partition's meta."""
        found = await self._trusted.read(sought.wanted)
        for partition, (meta, _) in found.items():
            if meta is None:
                continue
            self._check(partition, meta)
            if self._given is None and meta.partitions:
                self._partitions = max(self._partitions, meta.partitions)
        return found

    def _check(self, partition: int, meta: Meta) -> None:
        if len(self._unknown(meta)) == len(self.kinds) > 0:
            raise Unreadable(
                f"partition {partition}",
                f"the worker's features are of spec {meta.state_hash}, this one's of {self._spec.state_hash}; "
                "read with the pipeline that the worker runs",
            )

    def _unknown(self, meta: Meta) -> list[Kind]:
        """The kinds that a partition keeps no state of, or another one."""
        if meta.state_hash == self._spec.state_hash:
            return []
        return [kind for kind in self.kinds if kind.number not in meta.groups]

    def _readings(self, plan: ReadPlan, sought: _Sought, found: Mapping[int, Found], n: int, at_ms: int) -> Readings:
        written = [0] * n
        rows: list[list[bytes | None]] = [[None] * n for _ in plan.groups]
        unknown: list[set[int]] = [set() for _ in plan.groups]
        """By group, the entities that may have a row which is not there yet."""
        for partition, (meta, packed) in found.items():
            owners, values = sought.owners[partition], iter(packed)
            assert len(packed) == len(owners) * len(plan.groups)
            written_ms = 0 if meta is None else meta.written_ms
            for owner in owners:
                if written_ms > written[owner]:
                    written[owner] = written_ms
            for place, (lacking, until) in enumerate(self._rebuilt(plan, meta)):
                mine = rows[place]
                for owner, value in zip(owners, values, strict=False):  # those of the other groups come after
                    if value is None:
                        if lacking:
                            unknown[place].add(owner)
                    elif until and behind(value, until):
                        unknown[place].add(owner)
                    elif (before := mine[owner]) is None:
                        mine[owner] = value
                    else:
                        mine[owner] = self._newer(plan.groups[place], sought.names[place][owner], before, value)
        evaluated = _nothing(n, plan.needed)
        for place, group in enumerate(plan.groups):
            self._evaluate(group, rows[place], sought.names[place], at_ms, evaluated)
            if rebuilding := [owner for owner in unknown[place] if rows[place][owner] is None]:
                where = np.ix_(np.array(rebuilding), group.places)
                evaluated.codes[where], evaluated.values[where] = REBUILDING, np.nan
        asked = asked_of(plan, evaluated, self._spec.missing)
        return Readings(plan.names, plan.fields, at_ms, *asked, np.array(written, dtype=np.int64))

    def _rebuilt(self, plan: ReadPlan, meta: Meta | None) -> list[tuple[bool, Vector]]:
        """By group of the plan: whether rows that are not there may come, and what its rows have to cover."""
        if meta is None:
            return [(True, ())] * len(plan.groups)
        if not meta.until and meta.state_hash == self._spec.state_hash:
            return [(False, ())] * len(plan.groups)
        unknown = {kind.number for kind in self._unknown(meta)}
        found = []
        for number in (group.kind.number for group in plan.groups):
            begun = meta.incarnation_of(number) == meta.incarnation
            found.append((number in unknown or (begun and meta.rebuilding), meta.until if begun else ()))
        return found

    def _evaluate(
        self, group: Group, rows: Sequence[bytes | None], names: Sequence[str], at_ms: int, into: Evaluated
    ) -> None:
        """Reads packed rows, one an entity; where there is none, as of one that was never seen. Raises Unreadable."""
        kind = group.kind
        tables = kind.banks, kind.accs, kind.folds, kind.latest, kind.spans, kind.trails, kind.outs, kind.feeds
        vector = np.empty(len(self._spec.streams), dtype=np.int64)
        broken: int = read_rows(
            *tables,
            kind.template,
            *codec.laid_together(rows, names),
            vector,
            group.sources,
            group.seen,
            group.columns,
            group.places,
            len(self._spec.aggregates),
            at_ms,
            *into,
        )
        if broken >= 0:
            error = codec.error_of(rows[broken], names[broken], len(vector), kind.width)
            raise Unreadable("", f"what is stored is no row of this pipeline: {error}") from error

    def _newer(self, group: Group, name: str, one: bytes, other: bytes) -> bytes:
        """Of two rows of one entity, the one with the newest event."""
        both = _nothing(2, int(group.places.max()) + 1)
        self._evaluate(group, [one, other], [name, name], 0, both)
        first, second = both.newest[:, group.places[0]]
        return other if second >= first else one


def _nothing(n: int, needed: int) -> Evaluated:
    """Room for n entities."""
    shape = n, needed
    return Evaluated(np.empty(shape), np.empty(shape, dtype=np.uint8), np.empty(shape, dtype=np.int64))


def _named(kind: Kind) -> str:
    return f"({', '.join(kind.fields)})"


def behind(row: bytes, until: Vector) -> bool:
    """Whether a packed row does not yet cover what its incarnation has to."""
    try:
        return any(here < there for here, there in zip(codec.vector_of(row), until, strict=False))
    except codec.CodecError:
        return False  # no row at all: who unpacks it says so
