"""Scores for the rows of a round, from the deployment in service; one whose model fails gives way to the one before."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence

import numpy as np
import structlog

from models.errors import ModelFailed
from models.scorer import Scorer, Scores
from models.sizes import asked
from monitors.metrics import Metrics
from streams.deployments import Serving

log = structlog.get_logger(__name__)

_INLINE_S = 0.001
"""How long a model may hold up the event loop. On a busy machine two changes of thread take several times as long."""

Alert = dict[str, str | None]


class Inference:
    """Scores with what `serving` holds. `alerts`: model failures that nobody has been told of yet, oldest first."""

    def __init__(self, serving: Serving, metrics: Metrics) -> None:
        self._serving, self._metrics = serving, metrics
        self._timed: Scorer | None = None
        # What the last two calls of `_timed` took, by the rows that it was asked for, padding included: one slow call
        # says more of the machine than of the model.
        self._took_s: dict[int, tuple[float, ...]] = {}
        self.alerts: list[Alert] = []

    async def score(self, matrix: np.ndarray, keys: Sequence[bytes | None]) -> Scores | None:
        """Scores of float32 [n, d] with the rows' message keys; None where nothing serves."""
        scorer = self._serving.scorer
        if scorer is None or not scorer.deployment.versions or not len(matrix):
            return None
        try:
            scores = await self._scores(scorer, matrix, keys)
        except ModelFailed as error:
            return await self._score_by_previous(matrix, keys, error)
        for version, reason in scores.failed.items():
            self._metrics.inc("weir_scoring_failures_total", version=version)
            log.error("a shadow failed", version=version, error=reason)
        return scores

    async def _scores(self, scorer: Scorer, matrix: np.ndarray, keys: Sequence[bytes | None]) -> Scores:
        """In a thread, unless it is over sooner than the way there and back would take. Raises ModelFailed."""
        if scorer is not self._timed:
            self._timed, self._took_s = scorer, {}
        rows = asked(len(matrix))
        expected_s = self._expected_s(rows)

        def score() -> Scores:
            began = time.perf_counter()
            found = scorer.score(matrix, keys)
            self._took_s[rows] = (*self._took_s.get(rows, ())[-1:], time.perf_counter() - began)
            return found

        return score() if expected_s < _INLINE_S else await asyncio.to_thread(score)

    def _expected_s(self, rows: int) -> float:
        """What a call takes. Where there was none of that size: fewer rows take no more, and more rows no more than as
        often as they are more.
        """
        if rows in self._took_s:
            return min(self._took_s[rows])
        times = self._took_s.items()
        return min((min(took_s) * max(1.0, rows / size) for size, took_s in times), default=math.inf)

    async def _score_by_previous(
        self, matrix: np.ndarray, keys: Sequence[bytes | None], error: ModelFailed
    ) -> Scores | None:
        """A model that fails is not asked again: the deployment before it scores, or nothing does; never silently."""
        self._metrics.inc("weir_scoring_failures_total", version=error.version)
        failed, previous = self._serving.deployment, self._serving.fall_back(str(error))
        serving = None if previous is None else previous.deployment.id
        log.error(
            "the model failed, the deployment before it serves",
            version=error.version,
            error=str(error),
            serving=serving,
        )
        self.alerts.append(
            {
                "deployment": failed.id if failed else None,
                "version": error.version,
                "reason": str(error),
                "serving": serving,
            }
        )
        return await self.score(matrix, keys) if previous is not None else None
