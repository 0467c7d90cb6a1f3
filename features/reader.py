"""Online features of entities: read from the store by who owns nothing, evaluated at the time of reading.

A batch of entities costs one request to the store, and one call of the kernel for each group of features.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np

from features import codec
from features.expiry import REBUILDING, newest_ms, states
from features.layout import Kind, Layout
from features.partitioner import Partitioner, partition_of
from features.read_plan import NOTHING, Group, ReadPlan, asked_of, made_plan, readable
from features.read_plan import ReadError as ReadError
from features.read_plan import Unreadable as Unreadable
from features.readings import Readings
from features.spec import FeatureSpec
from features.store import Found, Meta, RowKey, Store, Vector
from features.table import values_at, values_of
from features.trusted import TrustedReads

FieldValue = str | float | None
Entity = Mapping[str, FieldValue]

MOST = 10_000
"""Entities of one read."""
MOST_ROWS = 100_000
"""Rows that a read may look for: one for each entity, group and partition that is asked."""
LATEST_MS = 2**53


class _Sought(NamedTuple):
    """The rows of a read. wanted: as `Store.read` takes it; asked: for each of them its group and entity, in that
    order; names: key texts by group and entity.
    """

    wanted: dict[int, list[RowKey]]
    asked: dict[int, list[tuple[int, int]]]
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
            values_at(kind, self._state(kind, [], [])[1:], np.empty(0, dtype=np.int64), len(spec.aggregates))

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
        if keys is not None and not asked_of_all:
            where = list(zip(map(self._partition, keys), range(n), strict=True))
        else:
            some = [(self._partition(key),) if key else every for key in keys or [""] * n]
            where = [(partition, owner) for owner, mine in enumerate(some) for partition in mine]
        wanted: dict[int, list[RowKey]] = {partition: [] for partition, _ in where}
        asked: dict[int, list[tuple[int, int]]] = {partition: [] for partition in wanted}
        names: list[list[str]] = []
        for place, group in enumerate(plan.groups):
            mine = cast("list[str]", codec.entity_keys([texts[name] for name in group.kind.fields]))
            for partition, owner in where:
                wanted[partition].append(RowKey(group.kind.number, mine[owner]))
                asked[partition].append((place, owner))
            names.append(mine)
        return _Sought(wanted, asked, names)

    def _partition(self, key: str) -> int:
        return partition_of(key.encode("utf-8", "surrogatepass"), self._partitions, self._partitioner)

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
        values, newest = np.empty((n, plan.needed)), np.empty((n, plan.needed), dtype=np.int64)
        codes = np.empty((n, plan.needed), dtype=np.uint8)
        written = [0] * n
        rows: list[list[bytes | None]] = [[None] * n for _ in plan.groups]
        unknown: list[set[int]] = [set() for _ in plan.groups]
        """By group, the entities that may have a row which is not there yet."""
        for partition, (meta, packed) in found.items():
            lacking, until = self._rebuilt(plan, meta)
            written_ms = 0 if meta is None else meta.written_ms
            for (place, owner), value in zip(sought.asked[partition], packed, strict=True):
                if written_ms > written[owner]:
                    written[owner] = written_ms
                if value is None:
                    if lacking[place]:
                        unknown[place].add(owner)
                elif until[place] and behind(value, until[place]):
                    unknown[place].add(owner)
                elif (before := rows[place][owner]) is None:
                    rows[place][owner] = value
                else:
                    key = sought.names[place][owner]
                    rows[place][owner] = self._newer(plan.groups[place], key, before, value)
        times = np.full(n, at_ms, dtype=np.int64)
        for place, group in enumerate(plan.groups):
            state = self._state(group.kind, rows[place], sought.names[place])
            ints = state.view(np.int64)[1:]
            mine = values_of(group.kind, state, times, len(self._spec.aggregates)).take(group.columns, axis=1)
            code = states(group.expiry, ints, mine, at_ms)
            if rebuilding := [owner for owner in unknown[place] if rows[place][owner] is None]:
                code[rebuilding], mine[rebuilding] = REBUILDING, np.nan
            values[:, group.places], codes[:, group.places] = mine, code
            newest[:, group.places] = newest_ms(group.newest, ints)[:, np.newaxis]
        values, codes, newest = asked_of(plan, values, codes, newest, self._spec.missing)
        return Readings(plan.names, plan.fields, at_ms, values, codes, newest, np.array(written, dtype=np.int64))

    def _rebuilt(self, plan: ReadPlan, meta: Meta | None) -> tuple[list[bool], list[Vector]]:
        """By group of the plan: whether rows that are not there may come, and what its rows have to cover."""
        nothing: list[Vector] = [()]
        if meta is None:
            return [True] * len(plan.groups), nothing * len(plan.groups)
        if not meta.until and meta.state_hash == self._spec.state_hash:
            return [False] * len(plan.groups), nothing * len(plan.groups)
        unknown = {kind.number for kind in self._unknown(meta)}
        numbers = [group.kind.number for group in plan.groups]
        new = [meta.incarnation_of(number) == meta.incarnation for number in numbers]
        lacking = [n in unknown or (begun and meta.rebuilding) for n, begun in zip(numbers, new, strict=True)]
        return lacking, [meta.until if begun else () for begun in new]

    def _state(self, kind: Kind, rows: Sequence[bytes | None], names: Sequence[str]) -> np.ndarray:
        """The state float64 [1 + n, width] of packed rows, empty where there is none. Raises Unreadable."""
        try:
            return codec.unpack_states(rows, names, streams=len(self._spec.streams), template=kind.template)
        except codec.CodecError as error:
            raise Unreadable("", f"what is stored is no row of this pipeline: {error}") from error

    def _newer(self, group: Group, name: str, one: bytes, other: bytes) -> bytes:
        """Of two rows of one entity, the one with the newest event."""
        state = self._state(group.kind, [one, other], [name, name])
        times = newest_ms(group.newest, state.view(np.int64)[1:])
        return other if times[1] >= times[0] else one


def _named(kind: Kind) -> str:
    return f"({', '.join(kind.fields)})"


def behind(row: bytes, until: Vector) -> bool:
    """Whether a packed row does not yet cover what its incarnation has to."""
    try:
        return any(here < there for here, there in zip(codec.vector_of(row), until, strict=False))
    except codec.CodecError:
        return False  # no row at all: who unpacks it says so
