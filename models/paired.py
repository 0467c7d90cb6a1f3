"""Two versions on the same labelled rows: sums over blocks, and how sure the mean difference is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol


class Labelled(Protocol):
    """One version's labelled rows: how many, their mean score and mean label."""

    @property
    def n(self) -> int: ...
    @property
    def score(self) -> float: ...
    @property
    def label(self) -> float: ...


@dataclass(frozen=True)
class Sums:
    """Paired differences of losses, summed over blocks.

    n: rows; difference, squares: sums of the rows' differences and of their squares; blocks: how many had any;
    of the blocks' own sums Dᵦ and rows nᵦ: between = Σ Dᵦ², cross = Σ nᵦDᵦ, weights = Σ nᵦ².
    """

    n: int = 0
    difference: float = 0.0
    squares: float = 0.0
    blocks: int = 0
    between: float = 0.0
    cross: float = 0.0
    weights: int = 0

    def add(self, n: int, difference: float, squares: float) -> Sums:
        """With a block more."""
        if not n:
            return self
        return Sums(
            self.n + n,
            self.difference + difference,
            self.squares + squares,
            self.blocks + 1,
            self.between + difference * difference,
            self.cross + n * difference,
            self.weights + n * n,
        )

    @property
    def mean(self) -> float:
        return self.difference / self.n if self.n else 0.0

    @property
    def row_variance(self) -> float:
        """Of the mean, if rows knew nothing of each other."""
        if self.n < 2:
            return math.inf
        return max(0.0, self.squares - self.n * self.mean**2) / (self.n * (self.n - 1))

    @property
    def block_variance(self) -> float:
        """Of the mean, by how far the blocks' means differ; 0 for fewer than two blocks.

        Rows of one day are alike in what both versions do not see: on the flights this is up to fifty times the rows'.
        """
        if self.blocks < 2:
            return 0.0
        spread = self.between - 2 * self.mean * self.cross + self.mean**2 * self.weights
        return max(0.0, spread) / self.n**2 * self.blocks / (self.blocks - 1)

    def interval(self, confidence: float) -> tuple[float, float]:
        """Bounds of the mean: the wider of mean ± z·σ by the rows and mean ± t·σ by the blocks."""
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        half = max(z * math.sqrt(self.row_variance), self._by_blocks(confidence))
        return self.mean - half, self.mean + half

    def lasting(self, confidence: float, sharpest: int) -> tuple[float, float]:
        """Bounds by the rows that hold at all looks together, so that one may look at every block; or those by the
        blocks, where these are wider.

        A confidence sequence, the asymptotic one of Waudby-Smith et al. (2024, "Time-uniform central limit theory"),
        narrowest near `sharpest` rows: σ·√(2(nρ²+1)/(nρ²)·log(√(nρ²+1)/α)), with σ² the variance of the mean.
        """
        if not self.n:
            return -math.inf, math.inf
        alpha = 1 - confidence
        k = self.n * (-2 * math.log(alpha) + math.log(-2 * math.log(alpha)) + 1) / sharpest
        half = math.sqrt(self.row_variance * 2 * (k + 1) / k * math.log(math.sqrt(k + 1) / alpha))
        half = max(half, self._by_blocks(confidence))
        return self.mean - half, self.mean + half

    def _by_blocks(self, confidence: float) -> float:
        return student((1 + confidence) / 2, self.blocks - 1) * math.sqrt(self.block_variance) if self.blocks > 1 else 0


def student(p: float, degrees: int) -> float:
    """The quantile of Student's t, p > 0.5: exact for 1 and 2 degrees, else by Cornish and Fisher (within 1 %)."""
    if degrees == 1:
        return math.tan(math.pi * (p - 0.5))
    if degrees == 2:
        return (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    z = NormalDist().inv_cdf(p)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


@dataclass(frozen=True)
class Bias:
    """How far a version's mean score lies from the label rate: n rows, sums of scores and of labels."""

    n: int = 0
    score: float = 0.0
    label: float = 0.0

    def add(self, found: Labelled | None) -> Bias:
        if found is None or not found.n:
            return self
        return Bias(self.n + found.n, self.score + found.n * found.score, self.label + found.n * found.label)

    @property
    def size(self) -> float:
        return abs(self.score - self.label) / self.n if self.n else 0.0
