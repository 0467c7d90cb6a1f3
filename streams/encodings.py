"""Encodings of categories, as a declaration gives them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from features.spec import Encoding, Frequency, Hashed, Vocabulary
from streams.errors import DeclarationError

AnyEncoding = Encoding | Sequence[str] | Mapping[str, float]
"""A list of texts is a vocabulary; texts with their shares are frequencies."""


def encoding_of(feature: str, encoding: AnyEncoding) -> Encoding:
    """The encoding; a DeclarationError that names `feature` where it cannot be one."""
    if isinstance(encoding, Hashed):
        if not isinstance(encoding.buckets, int) or encoding.buckets < 1:
            raise DeclarationError(f"feature {feature}: Hashed({encoding.buckets!r}) needs at least one bucket")
        return encoding
    if isinstance(encoding, Frequency | Mapping):
        return _frequency(feature, dict(encoding.shares if isinstance(encoding, Frequency) else encoding))
    values = encoding.values if isinstance(encoding, Vocabulary) else encoding
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise DeclarationError(f"feature {feature}: give its values as a list of texts, or Hashed(buckets)")
    if len(set(values)) < len(values):
        twice = next(value for value in values if list(values).count(value) > 1)
        raise DeclarationError(f"feature {feature}: the value {twice!r} is listed twice")
    if not values:
        raise DeclarationError(f"feature {feature}: the vocabulary is empty; list its values, or use Hashed(buckets)")
    return Vocabulary(tuple(values))


def _frequency(feature: str, shares: dict[str, float]) -> Frequency:
    if not shares:
        raise DeclarationError(f"feature {feature}: no frequencies; write each text with its share")
    for text, share in shares.items():
        if not isinstance(text, str) or not isinstance(share, int | float) or not math.isfinite(share):
            raise DeclarationError(f"feature {feature}: {text!r}: {share!r} is not a text with its share, a number")
    return Frequency(tuple((text, float(share)) for text, share in shares.items()))
