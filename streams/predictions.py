"""The prediction record: which columns of a round stand where in its JSON line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import orjson

from models.rollout import Deployment
from models.scorer import Scores
from streams.lines import ITEMS, ROWS, Column, compile_lines, lines, pieces, plain
from streams.rounds import ScoredRows

Logged = Mapping[str, "np.ndarray | list[str | None]"]
DEGRADED = b',"degraded":"store"'
"""Marks a prediction whose features may lack what the store held when it did not answer."""


class PredictionEncoder:
    """Encodes predictions of one pipeline.

    topic: of the scored source; names: the features in order.
    """

    def __init__(self, topic: str, names: Sequence[str]) -> None:
        self._topic = orjson.dumps(topic)
        self._names = [(name, orjson.dumps(name)) for name in names]
        compile_lines()

    def of_round(
        self,
        rows: ScoredRows,
        logged: Logged,
        scores: Scores | None,
        deployment: Deployment | None,
        marks: Sequence[bytes] | None = None,
    ) -> list[bytes]:
        """One JSON value a row; scores None = unscored. marks: what stands after the features, such as DEGRADED."""
        line = _Line()
        line.text(b'{"id":')
        line.column(_texts(rows.ids))
        line.text(b',"key":')
        _key(line, rows.keys)
        line.text(b',"time":')
        line.column(_numbers(rows.times))
        line.text(b',"source":{"topic":%b,"partition":' % self._topic)
        line.column(_numbers(rows.partitions))
        line.text(b',"offset":')
        line.column(_numbers(rows.offsets))
        _verdict(line, scores, deployment)
        line.text(b',"features":{')
        self._features(line, logged)
        line.text(b"}")
        if marks is not None:
            line.column(pieces(marks))
        line.text(b"}")
        return lines(line.fixed, line.holes, line.columns, len(rows))

    def _features(self, line: _Line, logged: Logged) -> None:
        values = [logged[name] for name, _ in self._names]
        numbers = [column for column in values if isinstance(column, np.ndarray)]
        matrix = line.shared(_numbers(np.array(numbers).T)) if numbers else -1
        for place, ((_, name), column) in enumerate(zip(self._names, values, strict=True)):
            line.text((b"," if place else b"") + name + b":")
            if isinstance(column, np.ndarray):
                line.hole(matrix)
            else:
                line.column(_texts(column))


class _Line:
    """A line being laid out: see `streams.lines.lines`."""

    def __init__(self) -> None:
        self.fixed: list[bytes] = [b""]
        self.holes: list[int] = []
        self.columns: list[Column] = []

    def text(self, text: bytes) -> None:
        self.fixed[-1] += text

    def column(self, column: Column) -> None:
        self.hole(self.shared(column))

    def shared(self, column: Column) -> int:
        """The number of a column that several holes will take turns at."""
        self.columns.append(column)
        return len(self.columns) - 1

    def hole(self, column: int) -> None:
        self.holes.append(column)
        self.fixed.append(b"")


def _key(line: _Line, keys: Sequence[bytes | None]) -> None:
    try:
        column = pieces(keys)  # type: ignore[arg-type]
    except TypeError:  # a null among them
        column = None
    if column is not None and plain(column, len(keys)):
        line.text(b'"')
        line.column(column)
        line.text(b'"')
    else:
        line.column(_texts([None if key is None else key.decode("utf-8", "replace") for key in keys]))


def _verdict(line: _Line, scores: Scores | None, deployment: Deployment | None) -> None:
    """Model, version, arm, deployment, score and shadows: for most rounds the same text but for the scores."""
    served = None if scores is None or scores.score is None or deployment is None else scores
    if served is None or deployment is None:
        line.text(b'},"model":null,"version":null,"arm":null')
    elif len(served.arms) == 1 and not served.invalid:
        arm, version = served.arms[0]
        model = orjson.dumps(deployment.model)
        line.text(b'},"model":%b,"version":%b,"arm":%b' % (model, orjson.dumps(version), orjson.dumps(arm)))
    else:
        line.text(b"},")
        line.column(pieces(_by_row(served, deployment.model)))
    line.text(b',"deployment":%b,"score":' % (b"null" if deployment is None else orjson.dumps(deployment.id)))
    if served is None or served.score is None:
        line.text(b"null")
    elif served.invalid:
        invalid = set(served.invalid_rows().tolist())
        found = (b"null" if row in invalid else _json(score) for row, score in enumerate(served.score))
        line.column(pieces(list(found)))
    else:
        line.column(_numbers(served.score, rows=served.score.ndim > 1))
    line.text(b',"shadows":{')
    for place, (version, shadow) in enumerate(scores.shadows.items() if scores and deployment else ()):
        line.text((b"," if place else b"") + orjson.dumps(version) + b":")
        line.column(_numbers(shadow, rows=shadow.ndim > 1))
    line.text(b"}")


def _by_row(scores: Scores, model: str) -> list[bytes]:
    """Model, version and arm of each row; null where the model gave no finite number."""
    texts = [
        b'"model":%b,"version":%b,"arm":%b' % (orjson.dumps(model), orjson.dumps(version), orjson.dumps(arm))
        for arm, version in scores.arms
    ]
    by_row = [texts[code] for code in scores.arm.tolist()]
    for row in scores.invalid_rows().tolist() if scores.invalid else ():
        by_row[row] = b'"model":null,"version":null,"arm":null'
    return by_row


def _texts(texts: Sequence[str | None]) -> Column:
    return Column(orjson.dumps(texts), ITEMS)


def _numbers(column: np.ndarray, *, rows: bool = False) -> Column:
    """Each number in its shortest form, null for NaN and infinities. rows: each row is a value, a list of numbers."""
    return Column(_json(column), ROWS if rows else ITEMS)


def _json(numbers: np.ndarray) -> bytes:
    return orjson.dumps(np.ascontiguousarray(numbers) if numbers.ndim else numbers, option=orjson.OPT_SERIALIZE_NUMPY)
