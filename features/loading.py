"""The rows that a round needs: found in the tables, or fetched from the store with one request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from features.checkpoint import Checkpoint
from features.codec import CodecError, entity_keys, unpack
from features.matrix import FeatureError
from features.progress import Progress
from features.round import Round, StreamColumns
from features.store import Meta, RowKey, Store, Vector
from features.table import EntityTable

Keys = list[list[list[str | None]]]
"""Key texts by entity kind, by stream of the round, by record."""

Rows = list[list[np.ndarray]]
"""Rows int32 [m] by entity kind and stream of the round."""

Missing = dict[tuple[int, int], dict[str, None]]
"""Keys that have no row, by (partition, entity kind), in the order in which they came."""


@dataclass
class Owned:
    """A partition that is ours: what the store says of it, its checkpoint that is being written, and whether rows were
    begun empty without asking the store.

    reach: no row in the store can rightly cover more; None = not known. progress: as the last checkpoint says it.
    ahead: the groups, by number, that cover more than the meta's vector, and what: records below are for others alone.
    """

    meta: Meta
    reach: Vector | None = None
    in_flight: Checkpoint | None = None
    guessed: bool = False
    progress: Progress | None = None
    ahead: dict[int, Vector] = field(init=False)

    def __post_init__(self) -> None:
        self.follow(self.meta)

    def follow(self, meta: Meta) -> None:
        """The store's record is `meta` now."""
        self.meta = meta
        covered = {number: group.covers(meta.vector) for number, group in meta.groups.items()}
        self.ahead = {number: vector for number, vector in covered.items() if vector != meta.vector}


def keys_of(tables: Sequence[EntityTable], round: Round, owned: Mapping[int, Owned]) -> Keys:
    """Key texts of all records; null where a kind neither learns from the stream nor is read for it, or its state
    covers the record already.
    """
    keys = [[_keys(table, columns) for columns in round] for table in tables]
    if any(owned[segment.partition].ahead for columns in round for segment in columns.segments):
        for table, texts_of in zip(tables, keys, strict=True):
            for place, columns in enumerate(round):
                texts_of[place] = _not_covered(table.kind.number, columns, texts_of[place], owned)
    return keys


def _not_covered(
    group: int, columns: StreamColumns, texts: list[str | None], owned: Mapping[int, Owned]
) -> list[str | None]:
    """`texts` with null for the records that a group's state covers, whether or not their entity has a row."""
    texts = list(texts)  # it may be the round's own column
    for partition, start, stop in columns.segments:
        if (covered := owned[partition].ahead.get(group)) is not None:
            below = int(np.searchsorted(columns.offsets[start:stop], covered[columns.stream]))
            texts[start : start + below] = [None] * below
    return texts


def _keys(table: EntityTable, columns: StreamColumns) -> list[str | None]:
    read = columns.stream == 0 and (columns.scored is None or bool(columns.scored.any()))
    if not read and columns.stream not in table.kind.fed_by:
        return [None] * len(columns)
    return entity_keys([columns.fields[name] for name in table.kind.fields])


def find(tables: Sequence[EntityTable], round: Round, keys: Keys, stamp: int) -> tuple[Rows, Missing]:
    """The rows, -1 where there is none; those found are in use as of round `stamp`."""
    rows: Rows = []
    missing: Missing = {}
    for table, texts_of in zip(tables, keys, strict=True):
        rows.append([])
        for columns, texts in zip(round, texts_of, strict=True):
            found, lacking = table.find(columns.segments, texts, stamp)
            rows[-1].append(found)
            for partition, mine in lacking.items():
                missing.setdefault((partition, table.entity), {}).update(mine)
    return rows, missing


async def insert(
    tables: Sequence[EntityTable],
    store: Store | None,
    owned: Mapping[int, Owned],
    missing: Missing,
    stamp: int,
) -> None:
    """Gives rows to missing keys, with what the store has of them. Whatever it raises, nothing has changed.

    store None: rows that it may have begin empty, and their partitions are guessed from then on.
    """
    before = {partition: owned[partition] for partition, _ in missing}
    asked = [(partition, entity) for partition, entity in missing if partition not in tables[entity].complete]
    wanted: dict[int, list[RowKey]] = {}
    for partition, entity in asked:
        number = tables[entity].kind.number
        wanted.setdefault(partition, []).extend(RowKey(number, key) for key in missing[partition, entity])
    answers: dict[int, list[bytes | None]] = {}
    if store is None:
        for partition in wanted:
            owned[partition].guessed = True
        asked = []
    elif wanted:
        answers = await store.load(wanted, {partition: before[partition].meta for partition in wanted})
    if any(owned.get(partition) is not mine for partition, mine in before.items()):
        raise FeatureError(
            "load: a partition went while its rows were loaded; drop its records and load the others"
        )
    stored = {}
    for partition, entity in asked:
        keys, table = list(missing[partition, entity]), tables[entity]
        values, answers[partition] = answers[partition][: len(keys)], answers[partition][len(keys) :]
        incarnation, streams = before[partition].meta.incarnation_of(table.kind.number), table.covered.shape[1]
        found = unpack(values, keys, incarnation=incarnation, streams=streams, template=table.kind.template)
        reach = before[partition].reach
        if reach is not None and (ahead := (found.vectors > reach).any(axis=1)).any():
            # A write that was not finished leaves rows ahead of the meta; then somebody set the offsets back.
            first = int(ahead.argmax())
            raise CodecError(
                f"row of {keys[int(found.places[first])]!r}: it covers {found.vectors[first].tolist()}, "
                f"beyond what was committed, {list(reach)}"
            )
        stored[partition, entity] = found
    for (partition, entity), texts in missing.items():
        rows = tables[entity].insert(partition, list(texts), stamp)
        if (partition, entity) in stored:
            places, vectors, state = stored[partition, entity]
            tables[entity].restore(rows[places], vectors, state)
