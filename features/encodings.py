"""Encodings: from a category's text to the number that a model sees. They are values, and part of the spec's hash."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Vocabulary:
    """Category → its position in `values`; null and values not listed → len(values)."""

    values: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.values) + 1

    def encode(self, raw: Sequence[str | None]) -> np.ndarray:
        """Codes float32 [n] of `raw`."""
        codes = self._codes
        unknown = len(self.values)
        return np.array([codes.get(value, unknown) for value in raw], dtype=np.float32)

    def plain(self) -> Any:
        """As JSON, for the spec's hash."""
        return list(self.values)

    @cached_property
    def _codes(self) -> dict[str | None, int]:
        return {value: code for code, value in enumerate(self.values)}


@dataclass(frozen=True)
class Hashed:
    """Category → CRC32 of its UTF-8 bytes modulo `buckets`; null → `buckets`."""

    buckets: int

    @property
    def size(self) -> int:
        return self.buckets + 1

    def encode(self, raw: Sequence[str | None]) -> np.ndarray:
        """Codes float32 [n] of `raw`."""
        n = self.buckets
        return np.array([n if v is None else zlib.crc32(v.encode()) % n for v in raw], dtype=np.float32)

    def plain(self) -> Any:
        """As JSON, for the spec's hash."""
        return self.buckets


@dataclass(frozen=True)
class Frequency:
    """Category → how frequent it is, as `shares` (pairs of text and number) say; null and values not listed → 0."""

    shares: tuple[tuple[str, float], ...]

    @property
    def size(self) -> int:
        return len(self.shares) + 1

    def encode(self, raw: Sequence[str | None]) -> np.ndarray:
        """Shares float32 [n] of `raw`."""
        shares = self._shares
        return np.array([shares.get(value, 0.0) for value in raw], dtype=np.float32)

    def plain(self) -> Any:
        """As JSON, for the spec's hash."""
        return [list(pair) for pair in self.shares]

    @cached_property
    def _shares(self) -> dict[str | None, float]:
        return dict(self.shares)


Encoding = Vocabulary | Hashed | Frequency
