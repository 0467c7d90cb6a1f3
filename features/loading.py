"""The rows that a round needs: found in the tables, or fetched from the store with one request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from features.checkpoint import Checkpoint
from features.codec import CodecError, entity_keys, unpack
from features.matrix import FeatureError
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

    reach: no row in the store can rightly cover more; None = not known.
    """

    meta: Meta
    reach: Vector | None = None
    in_flight: Checkpoint | None = None
    guessed: bool = False


def keys_of(tables: Sequence[EntityTable], round: Round) -> Keys:
    """Key texts of all records; null where a kind neither learns from the stream nor is read for it."""
    return [[_keys(table, columns) for columns in round] for table in tables]


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
            parts = [np.empty(0, dtype=np.int32)]
            for partition, start, stop in columns.segments:
                part, lacking = table.find(partition, texts[start:stop], stamp)
                parts.append(part)
                if lacking:
                    missing.setdefault((partition, table.entity), {}).update(dict.fromkeys(lacking))
            rows[-1].append(np.concatenate(parts))
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
        wanted.setdefault(partition, []).extend(RowKey(entity, key) for key in missing[partition, entity])
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
        incarnation, streams = before[partition].meta.incarnation, table.covered.shape[1]
        found = unpack(values, keys, incarnation=incarnation, streams=streams, width=table.kind.width)
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
