"""Conditions: which events a feature counts. Written as one line, the same in Python and YAML:

    amount > 100 and country in ["DE", "FR"]
    status == "failed" or (retries >= 3 and not test)

Fields of the event and constants, compared with < <= > >= == != in, `not in`, `is None` and `is not None`, joined by
and, or, not. A field alone is true where it is a number other than 0. A comparison with a null is false. A condition
is evaluated once a batch, over whole columns.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

_COMPARED: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ORDER = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)


class ConditionError(ValueError):
    """A condition that cannot be; the message says the mend."""


@dataclass(frozen=True)
class Condition:
    """`text` in its canonical form, which is also what the spec's hash holds."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Raises ConditionError where `text` is no condition."""
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ConditionError(f"{text!r} is not a condition; write for example \"amount > 100\"") from error
        _check_form(tree, text)
        return cls(ast.unparse(tree))

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """The fields that it reads, in their order."""
        return tuple(dict.fromkeys(node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name)))

    @property
    def slug(self) -> str:
        """Its text as a part of a feature's name: amount_gt_100."""
        spoken = self.text
        for sign, word in ((">=", "ge"), ("<=", "le"), ("==", "eq"), ("!=", "ne"), (">", "gt"), ("<", "lt")):
            spoken = spoken.replace(sign, f" {word} ")
        spoken = re.sub(r"-(?=\d)", "minus ", spoken).replace(".", "p")
        return re.sub(r"\W+", "_", spoken).strip("_")

    def check(self, kinds: dict[str, str], stream: str) -> None:
        """Raises ConditionError where a field is not what it is compared with. kinds: "number" or "string" by field."""
        for name in self.fields:
            if name not in kinds:
                raise ConditionError(f"{stream} has no field {name!r}; it has {', '.join(kinds)}")
        for node in _tests(self._tree):
            if isinstance(node, ast.Name):
                if kinds[node.id] == "string":
                    raise ConditionError(f'{node.id} is a string; compare it: {node.id} == "…"')
                continue
            _check_compared(node, kinds)

    def holds(self, fields: Any, n: int) -> np.ndarray:
        """bool [n]: for which of n events it is true. fields: `features.feature.Columns`."""
        with np.errstate(invalid="ignore"):
            return _holds(self._tree, fields, n)

    @cached_property
    def _tree(self) -> ast.expr:
        return ast.parse(self.text, mode="eval").body


def _check_form(node: ast.expr, text: str) -> None:
    """Raises ConditionError for what is neither a field, a comparison, nor a combination of them."""
    if isinstance(node, ast.BoolOp):
        for value in node.values:
            _check_form(value, text)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        _check_form(node.operand, text)
    elif isinstance(node, ast.Compare):
        for op, right in zip(node.ops, node.comparators, strict=True):
            listed = isinstance(op, ast.In | ast.NotIn)
            null = isinstance(op, ast.Is | ast.IsNot)
            if null != (isinstance(right, ast.Constant) and right.value is None):
                raise ConditionError(f"{text!r}: a null is asked for with `is None` or `is not None`")
            if listed != isinstance(right, ast.List | ast.Tuple):
                raise ConditionError(f"{text!r}: write `field in [a, b]`, and the other comparisons with one value")
            items = right.elts if isinstance(right, ast.List | ast.Tuple) else [right]
            if listed and not items:
                raise ConditionError(f"{text!r}: the list is empty, so that it is never true; name its values")
            for item in items:
                if not null and not _operand(item, constants_only=listed):
                    raise ConditionError(f"{text!r}: {ast.unparse(item)} is neither a field nor a constant")
        if len(node.ops) > 1 and not all(isinstance(op, _ORDER) for op in node.ops):
            raise ConditionError(f"{text!r}: only < <= > >= can be chained; join the others with and")
        if not _operand(node.left, constants_only=False):
            raise ConditionError(f"{text!r}: {ast.unparse(node.left)} is neither a field nor a constant")
        if not any(isinstance(part, ast.Name) for part in (node.left, *node.comparators)):
            raise ConditionError(f"{text!r}: {ast.unparse(node)} has no field in it")
    elif not isinstance(node, ast.Name):
        raise ConditionError(
            f"{text!r}: {ast.unparse(node)} is not a condition; use fields, constants, comparisons, and, or, not"
        )


def _operand(node: ast.expr, *, constants_only: bool) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
        return isinstance(node, ast.Constant) and type(node.value) in (int, float)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str | int | float)
    return isinstance(node, ast.Name) and not constants_only


def _tests(node: ast.expr) -> Iterator[ast.Name | ast.Compare]:
    """The comparisons and the fields that stand alone."""
    if isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from _tests(value)
    elif isinstance(node, ast.UnaryOp):
        yield from _tests(node.operand)
    elif isinstance(node, ast.Name | ast.Compare):
        yield node


def _check_compared(node: ast.Compare, kinds: dict[str, str]) -> None:
    left = node.left
    for op, right in zip(node.ops, node.comparators, strict=True):
        parts = [left, *(right.elts if isinstance(right, ast.List | ast.Tuple) else [right])]
        found = {_kind(part, kinds) for part in parts} - {"null"}
        if len(found) > 1:
            raise ConditionError(f"{ast.unparse(node)} compares a string with a number; make both sides the same")
        if found == {"string"} and isinstance(op, _ORDER):
            raise ConditionError(f"{ast.unparse(node)}: strings have no order here; use ==, != or in")
        left = right


def _kind(node: ast.expr, kinds: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return kinds[node.id]
    if isinstance(node, ast.Constant):
        return "null" if node.value is None else "string" if isinstance(node.value, str) else "number"
    return "number"


def _holds(node: ast.expr, fields: Any, n: int) -> np.ndarray:
    if isinstance(node, ast.BoolOp):
        parts = [_holds(value, fields, n) for value in node.values]
        joined = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
        return np.asarray(joined.reduce(parts))
    if isinstance(node, ast.UnaryOp):
        return ~_holds(node.operand, fields, n)
    if isinstance(node, ast.Name):
        column = np.asarray(fields[node.id], dtype=np.float64)
        return np.asarray((column != 0) & ~np.isnan(column))
    assert isinstance(node, ast.Compare)
    left, true = node.left, np.ones(n, dtype=np.bool_)
    for op, right in zip(node.ops, node.comparators, strict=True):
        true &= _compared(op, left, right, fields, n)
        left = right
    return true


def _compared(op: ast.cmpop, left: ast.expr, right: ast.expr, fields: Any, n: int) -> np.ndarray:
    mine = _column(left, fields, n)
    known = _known(mine)
    if isinstance(op, ast.Is | ast.IsNot):
        return ~known if isinstance(op, ast.Is) else known
    if isinstance(right, ast.List | ast.Tuple):
        wanted = frozenset(_constant(item) for item in right.elts)
        values = mine if isinstance(mine, list) else mine.tolist()
        among = np.fromiter((value in wanted for value in values), dtype=np.bool_, count=n)
        return known & (among if isinstance(op, ast.In) else ~among)
    other = _column(right, fields, n)
    known = known & _known(other)
    if isinstance(mine, list):
        equal = np.fromiter(map(operator.eq, mine, other), dtype=np.bool_, count=n)
        return np.asarray(known & (equal if isinstance(op, ast.Eq) else ~equal))
    return np.asarray(known & _COMPARED[type(op)](mine, other))


def _column(node: ast.expr, fields: Any, n: int) -> Any:
    """A field's column, or a constant as one: float64 [n] or list [n]."""
    if isinstance(node, ast.Name):
        column = fields[node.id]
        return column if isinstance(column, list) else np.asarray(column, dtype=np.float64)
    value = _constant(node)
    return [value] * n if isinstance(value, str) else np.full(n, value, dtype=np.float64)


def _constant(node: ast.expr) -> Any:
    if isinstance(node, ast.UnaryOp):
        return -_constant(node.operand)
    assert isinstance(node, ast.Constant)
    return node.value


def _known(column: Any) -> np.ndarray:
    """bool [n]: which are not null."""
    if isinstance(column, list):
        return np.fromiter((value is not None for value in column), dtype=np.bool_, count=len(column))
    return np.asarray(~np.isnan(column))
