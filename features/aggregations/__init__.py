"""The aggregations: what a feature can ask of the events in its window. One file each; see `algebra`.

To add one: its file, its line in ALGEBRAS, and a row in OPS for each feature that it gives. The conformance suite in
tests/features/aggregations finds it here. How such a feature is declared and called stands beside the others: its name
in `features.feature.Op`, a method of `streams.entity.Entity`, its place in `streams.yaml_form`, its words in
`features.words`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal, NamedTuple

from numba import njit

from features.aggregations import (
    count,
    decayed,
    distinct,
    first,
    frequent,
    greatest,
    least,
    moments,
    quantiles,
    streak,
    total,
)
from features.aggregations.algebra import Algebra

ALGEBRAS: tuple[Algebra, ...] = tuple(
    module.ALGEBRA
    for module in (count, total, least, greatest, moments, first, streak, decayed, distinct, quantiles, frequent)
)
"""By their kind. The first four have one slot each, and loops of their own in `features.kernel`."""

KINDS = {algebra.name: kind for kind, algebra in enumerate(ALGEBRAS)}

Takes = Literal["nothing", "number", "code", "any"]
Shape = Literal["copy", "ratio", "rate", "result", "lag", "latest"]


class Op(NamedTuple):
    """What can be declared.

    parts: the algebras that it folds. shape: how the value comes of them: the only one's fold as it is, one over the
    other, a count over the window's seconds, the algebra's own result; or of no fold: the nth latest, the latest.
    takes: the field: none, a number, a number or the code of a text, a number or the hash of a text.
    q: what the result is asked (see `algebra`); where a declaration names it, that counts.
    """

    parts: tuple[str, ...]
    shape: Shape
    takes: Takes = "number"
    q: int = 0


OPS: dict[str, Op] = {
    "count": Op(("count",), "copy", "nothing"),
    "sum": Op(("sum",), "copy"),
    "mean": Op(("sum", "count"), "ratio"),
    "min": Op(("min",), "copy"),
    "max": Op(("max",), "copy"),
    "variance": Op(("moments",), "result"),
    "std": Op(("moments",), "result", q=1),
    "rate": Op(("count",), "rate", "nothing"),
    "first": Op(("first",), "result"),
    "streak": Op(("streak",), "result", "any"),
    "distinct": Op(("distinct",), "result", "any"),
    "quantile": Op(("quantiles",), "result"),
    "most_frequent": Op(("frequent",), "result", "code"),
    "decayed_count": Op(("decayed",), "result", "nothing"),
    "decayed_mean": Op(("decayed",), "result", q=1),
    "lag": Op((), "lag"),
    "last": Op((), "latest"),
    "since_last": Op((), "latest", "nothing"),
}


def _dispatcher(verb: str, arguments: str) -> Any:
    """The compiled `verb` of the algebra that its first argument, `kind`, names.

    It is written out as one function of plain ifs: composed of closures, it took numba four times as long to compile.
    """
    last = len(ALGEBRAS) - 1
    lines = [f"def {verb}(kind, {arguments}):"]
    lines += [f"    if kind == {kind}: return verb_{kind}({arguments})" for kind in range(last)]
    lines += [f"    return verb_{last}({arguments})"]
    names: dict[str, Any] = {f"verb_{kind}": getattr(algebra, verb) for kind, algebra in enumerate(ALGEBRAS)}
    names["__name__"] = __name__
    exec("\n".join(lines), names)  # noqa: S102 - made of the names above alone
    return njit(error_model="numpy")(names[verb])


init = _dispatcher("init", "f, i")
add = _dispatcher("add", "f, i, value, time, p")
merge = _dispatcher("merge", "f, i, g, j, p")
result = _dispatcher("result", "f, i, time, p, q")


def sources_digest() -> int:
    """Of the source of every module here: compiled code that uses them is stale when it changes."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return int.from_bytes(digest.digest()[:7], "little")
