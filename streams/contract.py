"""The rules of a source and of the features, on the stream: what breaks them is set apart, marked and counted.

Which rules a record breaks is a bit mask that goes with it; only records that are worked off for the first time are
counted, whatever is replayed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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

    @property
    def keeps_out(self) -> bool:
        """Whether some records are dead letters by it."""
        return self._dead != 0

    def judged(self, fields: Mapping[str, Any], times: np.ndarray, behind_ms: np.ndarray | None) -> Judged:
        """n records by their `fields` and event times int64 [n].

        behind_ms: int64 [n], how far these are behind the records' timestamps; None where there are no such.
        """
        columns = {**dict.fromkeys((c.of for c in self._conditions), times), **fields}
        bits = bits_of(self._conditions, columns, len(times), behind_ms)
        return Judged(self._conditions, columns, behind_ms, bits, self._dead)

    def applied(self, batch: RecordBatch, decoded: Decoded, dead: list[DeadLetter]) -> Decoded:
        """The records that stay, with their bits; the others are added to `dead`.

        batch: the records that `decoded` was made of, one for one.
        """
        judged = self.judged(decoded.fields, decoded.times, batch.timestamps - decoded.times)
        bits, gone = judged.bits, judged.gone
        if gone.any():
            dead += [DeadLetter.of(batch, i, STAGE, *judged.why(i)) for i in np.flatnonzero(gone).tolist()]
            decoded = decoded.only(np.flatnonzero(~gone))
            bits = bits[~gone]
        decoded.bits = bits
        return decoded


class Judged(NamedTuple):
    """Which rules n records break. bits: int64 [n]; dead: the bits that make a dead letter."""

    conditions: Sequence[Condition]
    columns: Mapping[str, Any]
    behind_ms: np.ndarray | None
    bits: np.ndarray
    dead: int

    @property
    def gone(self) -> np.ndarray:
        """Bool [n]: which are dead letters."""
        found: np.ndarray = (self.bits & self.dead) != 0
        return found

    def why(self, i: int) -> tuple[str, str, str]:
        """The code, reason and field of a dead letter."""
        bits = int(self.bits[i]) & self.dead
        broken = [c for place, c in enumerate(self.conditions) if bits & (1 << place)]
        reasons = "; ".join(f"{c.of} {c.words}, and {self._found(c, i)}" for c in broken)
        return broken[0].name, reasons, broken[0].of

    def _found(self, condition: Condition, i: int) -> str:
        if condition.name == "behind":
            assert self.behind_ms is not None
            return f"is {self.behind_ms[i] / 1000:.0f} s"
        value = self.columns[condition.of][i]
        if condition.name == "not_null":
            return "is null"
        return f"is {value!r}" if isinstance(value, str) else f"is {value:.10g}"


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
