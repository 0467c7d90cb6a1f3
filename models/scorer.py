"""Scores rows as one deployment says: champion, canary by key, shadows beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.errors import ModelError, ModelFailed, ModelRefused
from models.files import fetch
from models.made_for import Digests, misfit
from models.rollout import CANARY, Deployment, Version, arms

if TYPE_CHECKING:
    from models.runner import Runner


@dataclass(frozen=True)
class Scores:
    """What a deployment says of n rows.

    score: float32 [n] or [n, k], NaN where a model gave no finite number; None when there is no champion.
    arms: (arm, version) by code, such as (("champion", "3"), ("canary", "4")); empty when there is no
    champion.
    arm: uint8 [n], codes into `arms`.
    shadows: score by version, shaped like `score`; without the versions in `failed`.
    invalid: rows of `score` that are not finite.
    failed: shadow version → why it raised; a shadow never costs a row its score.
    withheld: places of the rows whose score was taken back, int64; they count as not finite. None = of no row.
    """

    score: np.ndarray | None
    arms: tuple[tuple[str, str], ...]
    arm: np.ndarray
    shadows: dict[str, np.ndarray] = field(default_factory=dict)
    invalid: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    withheld: np.ndarray | None = None

    def without(self, rows: np.ndarray) -> Scores:
        """These scores but for `rows` (their places, int64), which have none. Shadows keep theirs."""
        if self.score is None or not len(rows):
            return self
        score = self.score.copy()
        score[rows] = np.nan
        wrong = ~np.isfinite(score)
        invalid = np.count_nonzero(wrong if wrong.ndim == 1 else wrong.any(axis=1))
        return replace(self, score=score, invalid=int(invalid), withheld=rows)

    def invalid_rows(self) -> np.ndarray:
        """The places of the `invalid` rows, int64."""
        if self.score is None:
            return np.empty(0, dtype=np.int64)
        wrong = ~np.isfinite(self.score)
        return np.flatnonzero(wrong if wrong.ndim == 1 else wrong.any(axis=1))


@dataclass
class _Shared:
    """A runner and the number of scorers that hold it."""

    runner: Runner
    holders: int = 1


class Scorer:
    """The runners of one deployment. Made by `load`; `close` it after the switch to the next."""

    def __init__(self, deployment: Deployment, shared: dict[tuple[str, str | None], _Shared]) -> None:
        self.deployment = deployment
        self._shared = shared
        self._arms: tuple[tuple[str, str], ...] = ()
        if deployment.champion:
            self._arms = (("champion", deployment.champion.version),)
        if deployment.canary:
            self._arms += (("canary", deployment.canary.version.version),)

    @classmethod
    def load(
        cls,
        deployment: Deployment,
        names: Sequence[str],
        spec_hash: str,
        *,
        cache_dir: Path,
        threads: int = 1,
        providers: Sequence[str] = (),
        previous: Scorer | None = None,
        features: Digests | None = None,
    ) -> Scorer:
        """Fetches, checks and warms up every version; blocks for that long, so call it off the event loop.

        names, spec_hash: of the pipeline's features; cache_dir: where files are kept by digest;
        threads, providers: of the runners; previous: a scorer of the same features that is still open, whose
        runners are used again. features: the pipeline's, to say by name what a version does not fit.
        Raises ModelRefused (this deployment cannot be served) or ModelUnavailable (try again later), naming
        the version.
        """
        scorer = cls(deployment, {})
        try:
            for version in deployment.versions:
                if why := misfit(version, spec_hash, features or {}):
                    raise ModelRefused(
                        f"version {version.version} of {version.model} was {why}; deploy a version trained on the "
                        "features as they are now"
                    )
                scorer._add(version, names, cache_dir, threads, providers, previous)
            scorer._check_widths()
        except BaseException:
            scorer.close()
            raise
        return scorer

    @property
    def provider(self) -> str | None:
        """Where the champion runs, in ONNX Runtime's words; None without a champion."""
        champion = self.deployment.champion
        return self._runner(champion).provider if champion else None

    def score(self, matrix: np.ndarray, keys: Sequence[bytes | None]) -> Scores:
        """Scores of float32 [n, d] with the rows' message keys. Blocks; run it in a thread.

        Raises ModelFailed, naming the version, when the champion or the canary raises.
        """
        codes = arms(self.deployment, keys)
        score = self._routed(matrix, codes)
        shadows, failed = {}, {}
        for version in self.deployment.shadows:
            try:
                shadows[version.version] = _finite(self._run(version, matrix))[0]
            except ModelFailed as error:
                failed[version.version] = str(error)
        if score is None:
            return Scores(None, self._arms, codes, shadows, 0, failed)
        finite, invalid = _finite(score)
        return Scores(finite, self._arms, codes, shadows, invalid, failed)

    def close(self) -> None:
        """Frees the runners that no other scorer holds."""
        for shared in self._shared.values():
            shared.holders -= 1
            if not shared.holders:
                shared.runner.release()
        self._shared = {}

    def _add(
        self,
        version: Version,
        names: Sequence[str],
        cache_dir: Path,
        threads: int,
        providers: Sequence[str],
        previous: Scorer | None,
    ) -> None:
        key = _key(version)
        if key in self._shared:
            return
        if previous and key in previous._shared:
            shared = previous._shared[key]
            shared.holders += 1
            self._shared[key] = shared
            return
        from models.runner import Runner  # with ONNX Runtime: not before there is a model to load

        try:
            model = fetch(version.uri, version.sha256, cache_dir)
            runner = Runner(model, names, output=version.output, threads=threads, providers=providers)
            self._shared[key] = _Shared(runner)
        except ModelError as error:
            raise type(error)(f"version {version.version} of {version.model}: {error}") from None

    def _check_widths(self) -> None:
        champion, canary = self.deployment.champion, self.deployment.canary
        if champion and canary and self._runner(champion).width != self._runner(canary.version).width:
            raise ModelRefused(
                f"canary {canary.version.version} and champion {champion.version} differ in scores per"
                " row; deploy a canary that gives as many as the champion"
            )

    def _routed(self, matrix: np.ndarray, codes: np.ndarray) -> np.ndarray | None:
        champion, canary = self.deployment.champion, self.deployment.canary
        if champion is None:
            return None
        tried = codes == CANARY
        if canary is None or not tried.any():
            return self._run(champion, matrix)
        width = self._runner(champion).width
        scores = np.empty((len(matrix),) if width is None else (len(matrix), width), dtype=np.float32)
        scores[tried] = self._run(canary.version, matrix[tried])
        scores[~tried] = self._run(champion, matrix[~tried])
        return scores

    def _run(self, version: Version, matrix: np.ndarray) -> np.ndarray:
        try:
            return self._runner(version).run(matrix)
        except ModelFailed as error:
            reason = f"version {version.version} of {version.model}: {error}"
            raise ModelFailed(reason, version.version) from None

    def _runner(self, version: Version) -> Runner:
        return self._shared[_key(version)].runner


def _key(version: Version) -> tuple[str, str | None]:
    return version.sha256, version.output


def _finite(scores: np.ndarray) -> tuple[np.ndarray, int]:
    """The scores with NaN for whatever is not finite, and the number of rows that have such."""
    finite = np.isfinite(scores)
    if finite.all():
        return scores, 0
    rows = finite if scores.ndim == 1 else finite.all(axis=1)
    return np.where(finite, scores, np.float32(np.nan)), int((~rows).sum())
