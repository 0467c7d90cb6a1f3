"""Payments by the million, as fast as Kafka takes them: encoded as one matrix of bytes a block.

`examples.payments.generate` makes such payments one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from examples.payments.generate import Record
from loadtest.variants import number_names

BLOCK = 50_000
_MERCHANTS = 500
_MOST_CENTS = 9_999_999
_DIGITS = np.frombuffer(b"".join(b"%04d" % i for i in range(10_000)), np.uint8).reshape(-1, 4)
_WHOLE = np.frombuffer(b"".join(b"%5d" % i for i in range(100_000)), np.uint8).reshape(-1, 5)


@dataclass(frozen=True)
class Flood:
    """Payments of `users` users, evenly over event time from `start_ms` (2001 or later: 13 digits) on: each pays once
    in `every_s` on average.

    The first `users` payments are one of each user, in a random order, unless `each_first` is off; from then on the
    user is drawn evenly. numbers: how many amounts x01, x02, … a payment carries beside its own.
    The first n are the same however many follow.
    """

    users: int = 10_000
    numbers: int = 0
    start_ms: int = 1_735_689_600_000  # 2025-01-01, UTC
    every_s: float = 500.0
    each_first: bool = True
    seed: int = 7

    @property
    def per_s(self) -> float:
        """Payments a second of event time."""
        return self.users / self.every_s

    def drawn(self, n: int) -> Iterator[np.ndarray]:
        """The users of the first `n` payments, int32, a block at a time."""
        once = np.arange(self.users if self.each_first else 0, dtype=np.int32)
        once = np.random.default_rng(self.seed).permutation(once)
        for start in range(0, n, BLOCK):
            at = slice(start, min(n, start + BLOCK))
            later = np.random.default_rng([self.seed, start]).integers(0, self.users, BLOCK, dtype=np.int32)
            first = once[at]
            yield np.concatenate([first, later[len(first) : at.stop - start]])

    def records(self, n: int) -> Iterator[Record]:
        """The first `n` payments, in event-time order."""
        for number, users in enumerate(self.drawn(n)):
            first = number * BLOCK
            places = np.arange(first, first + len(users))
            times = self.start_ms + (places * 1000.0 / self.per_s).astype(np.int64)
            keys, values = self._encode(places, users, times, np.random.default_rng([self.seed, first, 1]))
            yield from map(Record, keys, values, times.tolist())

    def _encode(
        self, places: np.ndarray, users: np.ndarray, times: np.ndarray, draw: np.random.Generator
    ) -> tuple[list[bytes], list[bytes]]:
        """Keys and values of a block. Every value is as long as the others: amounts are padded with spaces."""
        wide = max(5, len(str(self.users - 1)))
        cents = np.clip(draw.lognormal(3.2, 1.1, BLOCK) * 100, 1, _MOST_CENTS).astype(np.int64)
        merchants = draw.integers(0, _MERCHANTS, BLOCK)
        n = len(users)
        row = _Rows(n)
        row.text(b'{"payment_id":"p').whole(places, 8).text(b'","user_id":"')
        key_at = row.width
        row.text(b"u").whole(users, wide).text(b'","merchant":"m').whole(merchants[:n], 3)
        row.text(b'","amount":').amount(cents[:n]).text(b',"ts":').whole(times, 13)
        for i, name in enumerate(number_names(self.numbers), 1):
            row.text(b',"%b":' % name.encode()).amount(np.roll(cents, 997 * i)[:n])
        row.text(b"}")
        matrix = np.concatenate(row.parts, axis=1)
        return _texts(matrix[:, key_at : key_at + 1 + wide]), _texts(matrix)


class _Rows:
    """`n` rows of text side by side, built from left to right; parts: uint8 [n, …]."""

    def __init__(self, n: int) -> None:
        self.n, self.width = n, 0
        self.parts: list[np.ndarray] = []

    def text(self, text: bytes) -> _Rows:
        return self._add(np.broadcast_to(np.frombuffer(text, np.uint8), (self.n, len(text))))

    def whole(self, values: np.ndarray, width: int) -> _Rows:
        """Whole numbers ≥ 0 with leading zeros."""
        groups = [_DIGITS[values // 10**power % 10_000] for power in range(4 * ((width - 1) // 4), -1, -4)]
        return self._add(np.concatenate(groups, axis=1)[:, -width:])

    def amount(self, cents: np.ndarray) -> _Rows:
        """`%8.2f` of int64 [n] cents."""
        self._add(_WHOLE[cents // 100]).text(b".")
        return self._add(_DIGITS[cents % 100][:, 2:])

    def _add(self, part: np.ndarray) -> _Rows:
        self.parts.append(part)
        self.width += part.shape[1]
        return self


def _texts(matrix: np.ndarray) -> list[bytes]:
    """Each row of uint8 [n, width] as bytes; none ends with a zero byte."""
    found: list[bytes] = np.ascontiguousarray(matrix).view(f"S{matrix.shape[1]}").ravel().tolist()
    return found
