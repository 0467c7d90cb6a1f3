"""Where the state of entities outlives a worker: the contract, and the errors that mean actions.

Per partition the store holds packed rows (`features.codec`) and one meta record. The store is never ahead of
Kafka's committed offsets, and only the owner with the highest epoch writes. A process that dies between two
chunks of a write leaves the meta behind and some rows ahead of it: each row carries its own vector, by which
replay skips what it covers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import repeat
from typing import NamedTuple, Protocol

Vector = tuple[int, ...]
"""Next offset of each of the spec's streams, in one partition. No component falls while an owner holds it."""


class StoreUnavailable(Exception):
    """The server did not answer, or not now (down, slow, out of memory): try again later."""


class StoreMisconfigured(Exception):
    """Trying again cannot help (wrong password, no permission, server too old): the message says the mend."""


class Refused(Exception):
    """The partition has a newer owner, or its meta is not the one this call follows: claim it anew."""

    def __init__(self, partition: int, reason: str) -> None:
        super().__init__(f"partition {partition}: {reason}")
        self.partition = partition


class RowKey(NamedTuple):
    """An entity's row: the number of its group (`features.layout.Kind`), and its key text."""

    group: int
    key: str


_ROW_KEY: Callable[[tuple[int, str]], RowKey] = partial(tuple.__new__, RowKey)
"""Made without a Python call: a checkpoint has many."""


def row_keys(group: int, keys: Iterable[str]) -> list[RowKey]:
    """The row keys of a group, by key text."""
    return list(map(_ROW_KEY, zip(repeat(group), keys)))


class Group(NamedTuple):
    """What the rows of one group, those of one entity kind, are worth in a partition.

    hash: of what its rows hold (`Kind.hash`). incarnation: of its rows. since: what they cover at least, where that is
    more than the meta's vector: of a group that was kept while others are rebuilt; () = nothing more.
    """

    hash: str
    incarnation: int
    since: Vector = ()

    def covers(self, vector: Vector) -> Vector:
        """What the rows cover at least, in a partition whose meta has `vector`."""
        return tuple(map(max, self.since, vector)) if self.since else vector


@dataclass(frozen=True)
class Meta:
    """What a partition's rows are worth. Rows of another incarnation than their group's read as absent.

    incarnation: who begins one takes its epoch for it, which no other owner has had.
    epoch: of the owner; the store alone gives it out.
    state_hash: of the spec for which this incarnation was begun.
    vector: what the rows cover at least.
    until: the offsets up to which this incarnation's groups were to be rebuilt from the log when it began; () = there
        was nothing to rebuild. While the vector is not there, rows are missing that the incarnation before had.
    partitions: how many the topic had when the partition was last claimed; 0 = not said.
    written_ms: the store's clock at the last write; 0 = none.
    groups: by number, those that there are. One that is not named is of this incarnation.
    """

    incarnation: int
    epoch: int
    state_hash: str
    vector: Vector
    until: Vector = ()
    partitions: int = field(default=0, compare=False)
    written_ms: int = field(default=0, compare=False)
    groups: Mapping[int, Group] = field(default_factory=dict)

    def incarnation_of(self, group: int) -> int:
        """That of a group's rows."""
        return self.groups[group].incarnation if group in self.groups else self.incarnation

    @cached_property
    def only(self) -> bytes | None:
        """What every row begins with; None where there are groups of another incarnation."""
        same = all(group.incarnation == self.incarnation for group in self.groups.values())
        return head_of(self.incarnation) if same else None

    @property
    def rebuilding(self) -> bool:
        """Whether entities without a row of this incarnation may have had one, and will again."""
        return any(here < there for here, there in zip(self.vector, self.until, strict=False))


Wanted = Mapping[int, Sequence[RowKey]]
"""Rows to look up, by partition."""

Row = tuple[RowKey, bytes]
"""A packed row under its key."""


class Found(NamedTuple):
    """A partition's meta, and the rows asked for, in that order; None = absent, or of another incarnation."""

    meta: Meta | None
    rows: list[bytes | None]


class Store(Protocol):
    """Five verbs. Every one may raise StoreUnavailable or StoreMisconfigured; nothing is retried inside.

    A verb that raised StoreUnavailable may have been carried out all the same: calling it again with what is
    true by then is safe. Cancelling a verb leaves the store usable. Verbs on different partitions, and `load`
    and `read` beside a `write`, may run at the same time.
    """

    async def claim(self, partition: int, partitions: int = 0) -> tuple[int, Meta | None]:
        """Raises the partition's owner epoch; returns it, and the meta that is there (now with this epoch).

        The new epoch is above every earlier one, also where the server was wiped or set back in between.
        partitions: how many the topic has, for readers; 0 leaves what is noted.
        """

    async def begin(self, partition: int, meta: Meta) -> None:
        """Writes `meta`, the first of a new incarnation. Refused if `meta.epoch` is no longer the owner's.

        Also Refused where this incarnation has begun already with another vector.
        """

    async def load(self, wanted: Wanted, metas: Mapping[int, Meta]) -> dict[int, list[bytes | None]]:
        """Packed rows by partition, in the order wanted, in one round trip; None as in `Found`.

        Refused if a partition's meta has another incarnation or epoch than `metas[partition]`, or a vector
        behind it.
        """

    async def read(self, wanted: Wanted, known: Mapping[int, Meta] | None = None) -> dict[int, Found]:
        """As load, for who owns nothing: each partition's meta as it is. Without one all rows are absent.

        known: metas that were read a short while ago and need not be read again, unless rows contradict them.
        """

    async def write(self, partition: int, follows: Meta, vector: Vector, rows: Iterable[Row]) -> Meta:
        """Writes rows in chunks, as they come, then moves the meta's vector; returns the new meta.

        One write a partition at a time, by the store object that claimed it.
        Each chunk checks the meta that it finds against `follows` (incarnation, epoch, vector): Refused where
        it is another. After StoreUnavailable the next write must hold every row of the failed one, in its
        newest state.
        """

    async def close(self) -> None:
        """Ends what is running and closes connections."""


def head_of(incarnation: int) -> bytes:
    """What the packed rows of an incarnation begin with."""
    return incarnation.to_bytes(8, "little")


def of_incarnation(keys: Sequence[RowKey], values: Sequence[bytes | None], meta: Meta) -> list[bytes | None]:
    """`values` with None for packed rows that are not of their group's incarnation. For implementations of Store."""
    if (only := meta.only) is not None:
        return [value if value is not None and value[:8] == only else None for value in values]
    heads = {group: head_of(meta.incarnation_of(group)) for group in {key.group for key in keys}}
    return [
        value if value is not None and value[:8] == heads[key.group] else None
        for key, value in zip(keys, values, strict=True)
    ]


def check_load(partition: int, expected: Meta, found: Meta | None) -> None:
    """Raises Refused where rows read beside `found` are not what the owner of `expected` may load."""
    if found is None or (found.incarnation, found.epoch) != (expected.incarnation, expected.epoch):
        raise Refused(partition, f"the meta is {found}, not {expected}")
    if any(there < here for there, here in zip(found.vector, expected.vector, strict=True)):
        raise Refused(partition, f"the vector {found.vector} is behind {expected.vector}")
