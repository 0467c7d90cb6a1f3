"""Which version scores which row: deployments, their arms, and the steps from one deployment to the next.

A deployment is one immutable value and one record on the deployments topic, so that a switch is atomic. Its
id is a hash of what it says and of the id before it: the same steps from the same start give the same ids
anywhere.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Sequence

import msgspec
import numpy as np

from models.errors import ModelRefused

CHAMPION, CANARY = 0, 1
"""Codes of the arms in what `arms` gives."""

_MIX = np.uint32(2654435761)


class Version(msgspec.Struct, frozen=True):
    """A model's file, pinned: uri (a path, file:// or http(s)://), SHA-256, hash of its features.

    output: the ONNX output that is the score; None = found by the contract.
    """

    model: str
    version: str
    uri: str
    sha256: str
    spec_hash: str
    output: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(
                f"sha256 of version {self.version} must be 64 hex digits, not {self.sha256[:80]!r}"
            )


class Canary(msgspec.Struct, frozen=True):
    """A version that scores a share of the keys, 0 < share < 1."""

    version: Version
    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"canary share must lie between 0 and 1, not {self.share}")


class Deployment(msgspec.Struct, frozen=True):
    """The routing table of a model. Without a champion rows go out unscored; shadows score every row."""

    id: str = msgspec.field(name="deployment")
    model: str
    champion: Version | None
    shadows: tuple[Version, ...] = ()
    canary: Canary | None = None

    def __post_init__(self) -> None:
        if self.canary and not self.champion:
            raise ValueError("a canary needs a champion beside it")
        for name in [v.version for v in self.versions if v.model != self.model]:
            raise ValueError(f"version {name} belongs to another model than {self.model}")
        names = [v.version for v in self.versions]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"version {name} has two places in one deployment")

    @property
    def versions(self) -> tuple[Version, ...]:
        """Champion, canary and shadows, those that there are."""
        champion = (self.champion,) if self.champion else ()
        canary = (self.canary.version,) if self.canary else ()
        return (*champion, *canary, *self.shadows)


def to_json(deployment: Deployment) -> bytes:
    return msgspec.json.encode(deployment)


def from_json(data: bytes) -> Deployment:
    """Fields it does not know are ignored. Raises ModelRefused with the field that is wrong."""
    try:
        return msgspec.json.decode(data, type=Deployment)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelRefused(f"not a deployment: {error}") from None


def arms(deployment: Deployment, keys: Sequence[bytes | None]) -> np.ndarray:
    """The arm of each row, uint8 [n]: CHAMPION or CANARY, by the message keys. Null keys are the champion's.

    Equal keys share an arm, and a key that a canary has got stays with it as its share grows.
    """
    canary = deployment.canary
    if canary is None:
        return np.zeros(len(keys), dtype=np.uint8)
    # salted, so that it is not always the same customers who try what is new
    salt = zlib.crc32(canary.version.sha256.encode())
    crc32 = zlib.crc32
    hashes = np.fromiter((crc32(key, salt) if key is not None else 0 for key in keys), np.uint32, len(keys))
    # CRC32 also chooses the partition: mixed, so that each partition sends the same share
    chosen = hashes * _MIX < np.uint32(int(canary.share * 2**32))
    if None in keys:
        chosen &= np.fromiter((key is not None for key in keys), bool, len(keys))
    return chosen.astype(np.uint8)


def unscored(model: str) -> Deployment:
    """The deployment before the first: no champion."""
    return _follow("", model, None)


def promote(current: Deployment, version: Version) -> Deployment:
    """`version` becomes champion and leaves any other place; the champion before and the canary go."""
    return _follow(current.id, current.model, version, _without(current.shadows, version))


def add_shadow(current: Deployment, version: Version) -> Deployment:
    """`version` scores every row in the background, in addition to the shadows there are."""
    shadows = (*_without(current.shadows, version), version)
    canary = (current.canary.version, current.canary.share) if current.canary else None
    return _follow(current.id, current.model, current.champion, shadows, canary)


def add_canary(current: Deployment, version: Version, share: float) -> Deployment:
    """`version` scores `share` of the keys, in place of any canary before; it is no shadow any more."""
    shadows = _without(current.shadows, version)
    return _follow(current.id, current.model, current.champion, shadows, (version, share))


def rollback(current: Deployment, previous: Deployment) -> Deployment:
    """What `previous` said, as a new deployment that follows `current`."""
    canary = (previous.canary.version, previous.canary.share) if previous.canary else None
    return _follow(current.id, current.model, previous.champion, previous.shadows, canary)


def _without(versions: tuple[Version, ...], version: Version) -> tuple[Version, ...]:
    return tuple(v for v in versions if v.version != version.version)


def _follow(
    predecessor: str,
    model: str,
    champion: Version | None,
    shadows: tuple[Version, ...] = (),
    canary: tuple[Version, float] | None = None,
) -> Deployment:
    try:
        draft = Deployment("", model, champion, shadows, Canary(*canary) if canary else None)
    except ValueError as error:
        raise ModelRefused(str(error)) from None
    digest = hashlib.sha256(predecessor.encode() + b"\0" + to_json(draft)).hexdigest()
    return msgspec.structs.replace(draft, id=digest[:16])
