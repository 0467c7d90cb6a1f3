"""The prediction record, encoded from columns: JSON parts of whole columns are made at once, then filled into lines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from models.rollout import Deployment
from models.scorer import Scores
from streams.rounds import ScoredRows

Logged = Mapping[str, "np.ndarray | list[str | None]"]
_NULL = b"null"
DEGRADED = b',"degraded":"store"'
"""Marks a prediction whose features may lack what the store held when it did not answer."""


class PredictionEncoder:
    """Encodes predictions of one pipeline.

    topic: of the scored source; names: the features in order.
    """

    def __init__(self, topic: str, names: Sequence[str]) -> None:
        features = b",".join(_text(name) + b":%b" for name in map(_escaped, names))
        self._names = tuple(names)
        self._line = (
            b'{"id":%b,"key":%b,"time":%d,"source":{"topic":'
            + _text(_escaped(topic))
            + b',"partition":%d,"offset":%d},'
            b'"model":%b,"version":%b,"arm":%b,"deployment":%b,"score":%b,"shadows":%b,'
            b'"features":{' + features + b"}%b}"
        )

    def of_round(
        self,
        rows: ScoredRows,
        logged: Logged,
        scores: Scores | None,
        deployment: Deployment | None,
        marks: Sequence[bytes],
    ) -> list[bytes]:
        """The predictions of a round; scores None = unscored. marks: as for `encode`."""
        n = len(rows)
        nothing, shadows = [_NULL] * n, [b"{}"] * n
        model = version = arm = score = nothing
        if scores is not None and deployment is not None:
            shadows = json_objects(scores.shadows, n)
            if scores.score is not None:
                model = [orjson.dumps(deployment.model)] * n
                version = _by_arm([orjson.dumps(version) for _, version in scores.arms], scores.arm)
                arm = _by_arm([orjson.dumps(arm) for arm, _ in scores.arms], scores.arm)
                score = json_numbers(scores.score)
                if scores.invalid:
                    for row in scores.invalid_rows().tolist():
                        model[row] = version[row] = arm[row] = score[row] = _NULL
        return self.encode(
            rows,
            logged,
            model=model,
            version=version,
            arm=arm,
            deployment=_NULL if deployment is None else orjson.dumps(deployment.id),
            scores=score,
            shadows=shadows,
            marks=marks,
        )

    def encode(
        self,
        rows: ScoredRows,
        logged: Logged,
        *,
        model: Sequence[bytes],
        version: Sequence[bytes],
        arm: Sequence[bytes],
        deployment: bytes,
        scores: Sequence[bytes],
        shadows: Sequence[bytes],
        marks: Sequence[bytes],
    ) -> list[bytes]:
        """One JSON value a row; the columns given as bytes are JSON already (see `json_texts`, `json_numbers`).

        marks: what stands after the features, such as DEGRADED; empty as a rule.
        """
        n = len(rows)
        line = self._line
        return [
            line % values
            for values in zip(
                json_texts(rows.ids),
                json_texts([None if k is None else k.decode("utf-8", "replace") for k in rows.keys]),
                rows.times.tolist(),
                rows.partitions.tolist(),
                rows.offsets.tolist(),
                model,
                version,
                arm,
                [deployment] * n,
                scores,
                shadows,
                *(_json_column(logged[name]) for name in self._names),
                marks,
                strict=True,
            )
        ]


def _by_arm(texts: list[bytes], codes: np.ndarray) -> list[bytes]:
    return [texts[0]] * len(codes) if len(texts) == 1 else [texts[code] for code in codes.tolist()]


def json_texts(texts: Sequence[str | None]) -> list[bytes]:
    """JSON of each text; null for None."""
    if None in texts:
        return [_NULL if t is None else orjson.dumps(t) for t in texts]
    if not texts:
        return []
    together = orjson.dumps(texts)
    if b'\\",' in together:  # `",` at the end of a text would split too early
        return list(map(orjson.dumps, texts))
    # Inside a JSON string a quote is escaped, so that `","` can only stand between two of them.
    return [b'"' + t + b'"' for t in together[2:-2].split(b'","')]


def json_numbers(column: np.ndarray) -> list[bytes]:
    """JSON of each number in its shortest form, or of each row's list; null for NaN and infinities."""
    if len(column) == 0:
        return []
    text = orjson.dumps(np.ascontiguousarray(column), option=orjson.OPT_SERIALIZE_NUMPY)
    if column.ndim == 1:
        return text[1:-1].split(b",")
    return [b"[" + row + b"]" for row in text[2:-2].split(b"],[")]


def json_objects(columns: Mapping[str, np.ndarray], n: int) -> list[bytes]:
    """One JSON object a row, of named columns [n]."""
    if not columns:
        return [b"{}"] * n
    line = b"{" + b",".join(_text(name) + b":%b" for name in map(_escaped, columns)) + b"}"
    return [line % values for values in zip(*map(json_numbers, columns.values()), strict=True)]


def _json_column(column: np.ndarray | list[Any]) -> Iterable[bytes]:
    return json_numbers(column) if isinstance(column, np.ndarray) else json_texts(column)


def _escaped(name: str) -> bytes:
    return orjson.dumps(name)


def _text(encoded: bytes) -> bytes:
    """A JSON text as part of a template, where % has a meaning."""
    return encoded.replace(b"%", b"%%")
