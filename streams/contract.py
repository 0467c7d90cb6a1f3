"""The rules of a source and of the features, on the stream: what breaks them is set apart, marked and counted.

Which rules a record breaks is a bit mask that goes with it; only records that are worked off for the first time are
counted, whatever is replayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from features.spec import Category, FeatureSpec, Field, Value
from monitors.conditions import Condition, bits_of, mask_of
from monitors.rules import Rule, RuleError, Subject, conditions_of
from streams.batches import RecordBatch
from streams.decoded import DeadLetter, Decoded
from streams.errors import DeclarationError

STAGE = "contract"
"""Of the dead letters that a rule sends."""


def source_conditions(rules: Sequence[Rule], topic: str, fields: Sequence[Field], time: str) -> tuple[Condition, ...]:
    """The conditions of a source's rules. DeclarationError: the field and the mend."""
    subjects = {f.name: Subject(f.kind, f.nullable, times=f.name == time) for f in fields}
    mend = 'is for features; a source\'s rule takes "flag" or "dead_letter"'
    try:
        return conditions_of(rules, subjects, topic, ("flag", "dead_letter"), mend)
    except RuleError as error:
        raise DeclarationError(f"source {topic}: {error}") from error


def feature_conditions(rules: Sequence[Rule], pipeline: str, spec: FeatureSpec) -> tuple[Condition, ...]:
    """The conditions of the rules about a pipeline's features. DeclarationError: the feature and the mend."""
    scored = spec.streams[0]
    subjects: dict[str, Subject] = {}
    for feature in spec.features:
        field = scored.field(feature.field) if isinstance(feature, Value | Category) else None
        subjects[feature.name] = Subject(
            "string" if isinstance(feature, Category) else "number", field is None or field.nullable
        )
    mend = (
        'comes too late for a feature, to which its event has been added; take "withhold" (no score), or give the '
        "rule to the source"
    )
    try:
        return conditions_of(rules, subjects, f"pipeline {pipeline}", ("flag", "withhold"), mend)
    except RuleError as error:
        raise DeclarationError(f"pipeline {pipeline}: {error}") from error


class Contract:
    """The rules of one source, applied to its decoded batches. `fields`: those that it looks at."""

    def __init__(self, conditions: Sequence[Condition]) -> None:
        self._conditions = conditions
        self._dead = mask_of(conditions, "dead_letter")
        self.fields = {c.of for c in conditions if c.name not in ("behind", "silence")}

    def applied(self, batch: RecordBatch, decoded: Decoded, dead: list[DeadLetter]) -> Decoded:
        """The records that stay, with their bits; the others are added to `dead`.

        batch: the records that `decoded` was made of, one for one.
        """
        columns: dict[str, Any] = {**dict.fromkeys((c.of for c in self._conditions), decoded.times), **decoded.fields}
        behind_ms = batch.timestamps - decoded.times
        bits = bits_of(self._conditions, columns, len(decoded), behind_ms)
        gone = (bits & self._dead) != 0
        if gone.any():
            dead += [self._letter(batch, i, int(bits[i]), columns, behind_ms) for i in np.flatnonzero(gone).tolist()]
            decoded = _kept(decoded, np.flatnonzero(~gone))
            bits = bits[~gone]
        decoded.bits = bits
        return decoded

    def _letter(
        self, batch: RecordBatch, i: int, bits: int, columns: dict[str, Any], behind_ms: np.ndarray
    ) -> DeadLetter:
        broken = [c for place, c in enumerate(self._conditions) if bits & self._dead & (1 << place)]
        reasons = "; ".join(f"{c.of} {c.words}, and {_found(c, columns, behind_ms, i)}" for c in broken)
        return DeadLetter(
            batch.stream,
            batch.partition,
            int(batch.offsets[i]),
            batch.keys[i],
            batch.values[i],
            STAGE,
            broken[0].name,
            reasons,
            broken[0].of,
        )


class Marks:
    """What stands in a prediction for the rules that its event and its features break; nothing for none."""

    def __init__(self, source: Sequence[Condition], features: Sequence[Condition]) -> None:
        self._source = [(1 << i, c.label) for i, c in enumerate(source) if mask_of((c,), "flag")]
        self._features = [(1 << i, c.label) for i, c in enumerate(features) if mask_of((c,), "flag", "withhold")]
        self._known: dict[tuple[int, int], bytes] = {}

    def of_rows(self, bits: np.ndarray | None, feature_bits: np.ndarray | None, n: int) -> list[bytes] | None:
        """JSON members, one a row, to stand at the end of a prediction; None where no row has one."""
        mine = self._masked(bits, self._source, n)
        theirs = self._masked(feature_bits, self._features, n)
        if not (mine.any() or theirs.any()):
            return None
        return [self._mark(pair) for pair in zip(mine.tolist(), theirs.tolist(), strict=True)]

    @staticmethod
    def _masked(bits: np.ndarray | None, known: list[tuple[int, str]], n: int) -> np.ndarray:
        return np.zeros(n, dtype=np.int64) if bits is None else bits & sum(bit for bit, _ in known)

    def _mark(self, pair: tuple[int, int]) -> bytes:
        found = self._known.get(pair)
        if found is None:
            names = [label for bit, label in self._source if pair[0] & bit]
            names += [label for bit, label in self._features if pair[1] & bit]
            listed = ",".join(f'"{name}"' for name in dict.fromkeys(names))
            found = self._known[pair] = f',"violations":[{listed}]'.encode() if names else b""
        return found


def _kept(decoded: Decoded, places: np.ndarray) -> Decoded:
    """Only the records at `places`."""
    listed = places.tolist()

    def kept(column: Any) -> Any:
        return column[places] if isinstance(column, np.ndarray) else [column[i] for i in listed]

    return replace(
        decoded,
        bits=None,
        keys=kept(decoded.keys),
        ids=kept(decoded.ids),
        offsets=decoded.offsets[places],
        times=decoded.times[places],
        fields={name: kept(column) for name, column in decoded.fields.items()},
        headers=None if decoded.headers is None else kept(decoded.headers),
    )


def _found(condition: Condition, columns: dict[str, Any], behind_ms: np.ndarray, i: int) -> str:
    if condition.name == "behind":
        return f"is {behind_ms[i] / 1000:.0f} s"
    value = columns[condition.of][i]
    if condition.name == "not_null":
        return "is null"
    return f"is {value!r}" if isinstance(value, str) else f"is {value:.10g}"
