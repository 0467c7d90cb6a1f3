"""Two versions on the same labelled rows: sums over blocks, and how sure the mean difference is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

_ENOUGH_BLOCKS = 8


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
    def variance(self) -> float:
        """Of the mean: from the rows, or from the blocks' means where they are enough and vary more.

        Rows of one day are alike in what both versions do not see; they count for less than as many of many days.
        """
        if self.n < 2:
            return math.inf
        mean = self.mean
        rows = max(0.0, self.squares - self.n * mean * mean) / (self.n * (self.n - 1))
        if self.blocks < _ENOUGH_BLOCKS:
            return rows
        spread = max(0.0, self.between - 2 * mean * self.cross + mean * mean * self.weights)
        return max(rows, spread / self.n**2 * self.blocks / (self.blocks - 1))

    def interval(self, confidence: float) -> tuple[float, float]:
        """Bounds of the mean for one look: mean ± z·σ, the normal interval."""
        half = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(self.variance)
        return self.mean - half, self.mean + half

    def lasting(self, confidence: float, sharpest: int) -> tuple[float, float]:
        """Bounds that hold at all looks together, so that one may look at every block: a confidence sequence.

        The asymptotic one of Waudby-Smith et al. (2024, "Time-uniform central limit theory"), narrowest near
        `sharpest` rows: σ·√(2(nρ²+1)/(nρ²)·log(√(nρ²+1)/α)), with σ² the variance of the mean.
        """
        alpha = 1 - confidence
        rho = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha)) + 1) / sharpest
        k = self.n * rho
        if not self.n:
            return -math.inf, math.inf
        half = math.sqrt(self.variance * 2 * (k + 1) / k * math.log(math.sqrt(k + 1) / alpha))
        return self.mean - half, self.mean + half


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
