"""What is read of a stream's events: the columns that features, labels and the dataset need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from features.spec import FeatureSpec
from streams.contract import Contract
from streams.decode import decoder_of
from streams.event import Event, integer_fields
from streams.pipeline import Labels
from streams.source import Source

EXACT = "_exact."
"""Before a name: the column of `Wanted.exact`. A field's name may not begin with "_"."""


@dataclass(frozen=True)
class Wanted:
    """Of the events of `topic`: the fields by their use.

    numbers: with their dtype, as `streams.decode.Decoder` extracts them; inexact: of those, float64 that must hold an
    integer exactly; texts: bounded in length. key, id, time: the fields that are these, None = none.
    max_skew_ms: how far the time may be ahead of the record's timestamp. contract: rules that keep events out, None =
    there are none; the fields that it looks at are among these. exact: a key or an id that is an integer, and a float64
    among the numbers: as an integer it is the column EXACT + its name beside that.
    """

    topic: str
    event: type[Event]
    key: str | None
    id: str | None
    time: str | None
    max_skew_ms: int
    numbers: Mapping[str, type[Any]]
    texts: frozenset[str]
    inexact: frozenset[str] = frozenset()
    contract: Contract | None = None
    exact: frozenset[str] = frozenset()


def wanted_of(source: Source, stream: int, spec: FeatureSpec) -> Wanted:
    """What the features read of a source, with its key and id: also those that a remote group keeps in the stream."""
    used = decoder_of(source, stream, replace(spec, given=frozenset()))
    numbers, texts = dict(used.numbers), set(used.texts)
    whole = integer_fields(source.event)
    exact = set()
    for name in filter(None, (source.key, source.id)):
        if name not in whole:
            texts.add(name)
        elif numbers.setdefault(name, np.int64) is np.float64:
            exact.add(name)
    contract = used.contract if used.contract is not None and used.contract.keeps_out else None
    return Wanted(
        source.topic, source.event, source.key, source.id, source.time, source.max_skew_ms,
        numbers, frozenset(texts), frozenset(used.inexact), contract, frozenset(exact),
    )  # fmt: skip


def wanted_labels(labels: Labels) -> Wanted:
    """All fields of label events: `Labels.value` may be a function of them."""
    whole = integer_fields(labels.event)
    fields = labels.stream.fields
    exact = whole & {labels.id}
    numbers: dict[str, type[Any]] = {
        f.name: np.int64 if f.name in exact else np.float64 for f in fields if f.kind == "number"
    }
    texts = frozenset(f.name for f in fields if f.kind == "string")
    return Wanted(labels.topic, labels.event, None, labels.id, labels.time, LABEL_AHEAD_MS, numbers, texts)


LABEL_AHEAD_MS = 3_600_000
"""How far a label's time may be ahead of its record's."""
