"""Rules of a data contract: what a field or a feature must be. Declared here, checked by `conditions`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, NamedTuple, get_args

from monitors.conditions import MOST_CONDITIONS, Action, Condition

BOUNDS = ("ge", "gt", "le", "lt")
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class RuleError(ValueError):
    """A rule that cannot be: the message names the field or feature, and the mend."""


class Subject(NamedTuple):
    """What a rule can be about: a field, or a feature. times: whether it is the source's event time."""

    kind: Literal["number", "string"]
    nullable: bool
    times: bool = False


@dataclass(frozen=True)
class Rule:
    """What must hold of `of`, a field of the source or a feature of the pipeline.

        Rule("amount", ge=0, le=10_000, on_violation="dead_letter")
        Rule("country", among=["DE", "FR"])
        Rule("ts", behind="10m", silence="1h")

    ge, gt, le, lt: bounds of a number. among: the values allowed. Null violates none of these.
    not_null: null is a violation. nulls: the share of nulls that is borne, over stretches of 1,000 records.
    behind: how far event time may be behind the record's Kafka timestamp; of the source's time alone.
    silence: how long there may be no record; of the source's time alone.
    on_violation: "flag" counts it and marks the prediction; "dead_letter" (of a source) sends the record to the dead
    letters; "withhold" (of a feature) sends the prediction without a score. A share and a silence are no record's own,
    and are counted whatever this says.
    """

    of: str
    _: KW_ONLY
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    among: Sequence[str | float] | None = None
    not_null: bool = False
    nulls: float | None = None
    behind: str | None = None
    silence: str | None = None
    on_violation: Action = "flag"

    def __post_init__(self) -> None:
        if not isinstance(self.of, str) or not self.of:
            raise RuleError(f'rule {self.of!r}: begin with a name: Rule("amount", ge=0)')
        if isinstance(self.among, str) or not (self.among is None or isinstance(self.among, Iterable)):
            raise RuleError(f"rule {self.of}: among is a list of values, not {self.among!r}")
        if self.among is not None:
            object.__setattr__(self, "among", tuple(self.among))
        if self.on_violation not in get_args(Action):
            known = ", ".join(map(repr, get_args(Action)))
            raise RuleError(f"rule {self.of}: on_violation must be one of {known}, not {self.on_violation!r}")
        if not any(self._asked()):
            known = f"{', '.join(BOUNDS)}, among, not_null, nulls, behind or silence"
            raise RuleError(f"rule {self.of}: it asks for nothing; give {known}")

    def conditions(self) -> tuple[Condition, ...]:
        """The single conditions, in a fixed order. Durations are in ms."""
        found: list[tuple[str, Any]] = [(name, getattr(self, name)) for name in (*BOUNDS, "among")]
        found += [("not_null", True if self.not_null else None), ("nulls", self.nulls)]
        found += [(name, self._ms(name)) for name in ("behind", "silence")]
        return tuple(
            Condition(self.of, name, limit, self.on_violation if name not in ("nulls", "silence") else "flag")
            for name, limit in found
            if limit is not None
        )

    def _asked(self) -> list[bool]:
        options = (*BOUNDS, "among", "nulls", "behind", "silence")
        return [getattr(self, name) is not None for name in options] + [self.not_null]

    def _ms(self, name: str) -> int | None:
        text = getattr(self, name)
        if text is None:
            return None
        found = re.fullmatch(r"(\d+)(ms|s|m|h|d)", str(text))
        if found is None or int(found[1]) == 0:
            raise RuleError(f'rule {self.of}: {name}={text!r} is no duration; write for example "10m"')
        return int(found[1]) * _UNITS[found[2]]


def conditions_of(
    rules: Any, subjects: Mapping[str, Subject], owner: str, actions: Sequence[Action], mend: str
) -> tuple[Condition, ...]:
    """The conditions of `rules`, all of which can be met and broken. RuleError if one cannot.

    owner: whose fields `subjects` are, for messages. actions: what may be done about a violation here; mend: what to
    do instead of another.
    """
    if isinstance(rules, Rule) or not isinstance(rules, Iterable):
        raise RuleError(f"{owner}: rules is a list of Rule(…), not {rules!r}")
    found: list[Condition] = []
    for rule in rules:
        if not isinstance(rule, Rule):
            raise RuleError(f"{owner}: {rule!r} is not a Rule(…)")
        subject = subjects.get(rule.of)
        if subject is None:
            raise RuleError(f"rule {rule.of}: {_unknown(rule.of, owner, subjects)}")
        if rule.on_violation not in actions:
            raise RuleError(f"rule {rule.of}: on_violation={rule.on_violation!r} {mend}")
        _check(rule, subject)
        found += rule.conditions()
    for place, condition in enumerate(found):
        if any((c.of, c.name, c.action) == (condition.of, condition.name, condition.action) for c in found[:place]):
            raise RuleError(f"rule {condition.of}: {condition.name} is given twice; keep one")
        _check_against(condition, found[:place])
    if len(found) > MOST_CONDITIONS:
        raise RuleError(f"{owner}: {len(found)} conditions; at most {MOST_CONDITIONS} can be checked")
    return tuple(found)


def _check(rule: Rule, subject: Subject) -> None:
    bounds = {name: getattr(rule, name) for name in BOUNDS if getattr(rule, name) is not None}
    for name, bound in bounds.items():
        if subject.kind != "number":
            mend = f"{rule.of} is a text; list its values: among=[…]"
            raise RuleError(f"rule {rule.of}: {name}={bound!r} bounds a number, {mend}")
        if isinstance(bound, bool) or not isinstance(bound, int | float) or bound != bound:
            raise RuleError(f"rule {rule.of}: {name}={bound!r} is not a number")
    _check_range(rule, bounds)
    if rule.among is not None:
        _check_among(rule, subject, bounds)
    if rule.nulls is not None and not (
        isinstance(rule.nulls, int | float) and not isinstance(rule.nulls, bool) and 0 <= rule.nulls < 1
    ):
        raise RuleError(f"rule {rule.of}: nulls={rule.nulls!r} is a share: from 0 to below 1")
    if (rule.not_null or rule.nulls is not None) and not subject.nullable:
        raise RuleError(f"rule {rule.of}: {rule.of} is never null, its type does not allow it; take the null rule away")
    if rule.not_null and rule.nulls is not None:
        raise RuleError(f"rule {rule.of}: not_null allows no null at all; take nulls={rule.nulls!r} away, or not_null")
    for name in ("behind", "silence"):
        if getattr(rule, name) is not None and not subject.times:
            raise RuleError(f"rule {rule.of}: {name} is about a source's time; name the field that time= names")
    if rule.on_violation != "flag" and all(c.name in ("nulls", "silence") for c in rule.conditions()):
        what = " and ".join(c.name for c in rule.conditions())
        raise RuleError(f"rule {rule.of}: {what} is about no single record; it is counted: take on_violation away")


def _check_range(rule: Rule, bounds: Mapping[str, float]) -> None:
    for pair in (("ge", "gt"), ("le", "lt")):
        if all(name in bounds for name in pair):
            raise RuleError(f"rule {rule.of}: {pair[0]} and {pair[1]} say two things; keep one")
    low = next((name for name in ("ge", "gt") if name in bounds), None)
    high = next((name for name in ("le", "lt") if name in bounds), None)
    if low is None or high is None:
        return
    touching = bounds[low] == bounds[high] and (low, high) != ("ge", "le")
    if bounds[low] > bounds[high] or touching:
        said = f"{low}={bounds[low]!r} and {high}={bounds[high]!r}"
        raise RuleError(f"rule {rule.of}: no number is {said}; swap or mend them")


def _check_against(condition: Condition, others: Sequence[Condition]) -> None:
    """Bounds of two rules: one may be tighter than the other, but some number must meet both."""
    for other in others:
        low, high = (condition, other) if condition.name in ("ge", "gt") else (other, condition)
        names = low.name in ("ge", "gt") and high.name in ("le", "lt")
        if names and low.of == high.of and (low.limit > high.limit):
            raise RuleError(
                f"rule {low.of}: no number is {low.name}={low.limit!r} and {high.name}={high.limit!r}; mend one"
            )


def _check_among(rule: Rule, subject: Subject, bounds: Mapping[str, float]) -> None:
    assert rule.among is not None
    if not rule.among:
        raise RuleError(f"rule {rule.of}: among is empty, so that no value is allowed; list the values")
    if bounds:
        raise RuleError(f"rule {rule.of}: among lists the values; take {', '.join(bounds)} away")
    wanted: Any = str if subject.kind == "string" else (int, float)
    for value in rule.among:
        if not isinstance(value, wanted) or isinstance(value, bool):
            kind = "a text" if subject.kind == "string" else "a number"
            raise RuleError(f"rule {rule.of}: {rule.of} is {kind}, among lists {value!r}")


def _unknown(name: str, owner: str, subjects: Mapping[str, Subject]) -> str:
    close = difflib.get_close_matches(name, list(subjects), n=1)
    known = f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(subjects)}"
    return f"{owner} has no {name!r}{known}"
