"""Which version scores which row: deployments, their arms, and the steps from one deployment to the next.

A deployment is one immutable value and one record on the deployments topic, so that a switch is atomic. Its
id is a hash of what it says and of the id before it: the same steps from the same start give the same ids
anywhere.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from models.errors import ModelRefused

CHAMPION, CANARY = 0, 1
"""Codes of the arms in what `arms` gives."""

ROLES = ("candidate", "previous", "first")
"""What a shadow can be beside a shadow: fields of a deployment."""

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
            raise ValueError(f"sha256 of version {self.version} must be 64 hex digits, not {self.sha256[:80]!r}")


class Canary(msgspec.Struct, frozen=True):
    """A version that scores a share of the keys, 0 < share < 1."""

    version: Version
    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"canary share must lie between 0 and 1, not {self.share}")


class Deployment(msgspec.Struct, frozen=True):
    """The routing table of a model. Without a champion rows go out unscored; shadows score every row.

    candidate, previous, first: the shadows (by version) that may become champion, that was champion before and can
    come back, and that was the first champion. cause: why it came to this: a retrain event's id, or words; evidence:
    the numbers that decided. Those five are left out of the record where they are None.
    """

    id: str = msgspec.field(name="deployment")
    model: str
    champion: Version | None
    shadows: tuple[Version, ...] = ()
    canary: Canary | None = None
    candidate: str | None = None
    previous: str | None = None
    first: str | None = None
    cause: str | None = None
    evidence: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.canary and not self.champion:
            raise ValueError("a canary needs a champion beside it")
        for name in [v.version for v in self.versions if v.model != self.model]:
            raise ValueError(f"version {name} belongs to another model than {self.model}")
        names = [v.version for v in self.versions]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"version {name} has two places in one deployment")
        for role in ROLES:
            name = getattr(self, role)
            if name is not None and self.shadow(name) is None:
                raise ValueError(f"{role} {name} is not among the shadows")

    def shadow(self, name: str | None) -> Version | None:
        """The shadow that is called so, if there is one."""
        return next((v for v in self.shadows if v.version == name), None)

    @property
    def versions(self) -> tuple[Version, ...]:
        """Champion, canary and shadows, those that there are."""
        champion = (self.champion,) if self.champion else ()
        canary = (self.canary.version,) if self.canary else ()
        return (*champion, *canary, *self.shadows)


def to_json(deployment: Deployment) -> bytes:
    record: dict[str, Any] = msgspec.to_builtins(deployment)
    for name in (*ROLES, "cause", "evidence"):  # as if they did not exist: ids of before they did stay
        if record[name] is None:
            del record[name]
    return msgspec.json.encode(record)


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
    return _follow(Deployment("", model, None), None)


def promote(current: Deployment, version: Version) -> Deployment:
    """`version` becomes champion and leaves any other place; the champion before and the canary go."""
    return _follow(current, version, _without(current.shadows, version))


def add_shadow(current: Deployment, version: Version) -> Deployment:
    """`version` scores every row in the background, in addition to the shadows there are."""
    return _follow(current, current.champion, (*_without(current.shadows, version), version), current.canary)


def add_canary(current: Deployment, version: Version, share: float) -> Deployment:
    """`version` scores `share` of the keys, in place of any canary before; it is no shadow any more."""
    return _follow(current, current.champion, _without(current.shadows, version), (version, share))


def rollback(current: Deployment, previous: Deployment) -> Deployment:
    """What `previous` said, as a new deployment that follows `current`."""
    return _follow(current, previous.champion, previous.shadows, previous.canary, roles=_roles(previous))


def add_candidate(
    current: Deployment, version: Version, *, cause: str | None = None, evidence: Mapping[str, Any] | None = None
) -> Deployment:
    """`version` scores every row in the background, to become champion; a candidate before it leaves.

    Raises ModelRefused where it is the champion or the canary.
    """
    shadows = (*_without(_without_role(current, "candidate"), version), version)
    roles = _roles(current) | {"candidate": version.version}
    if current.previous == version.version:
        roles["previous"] = None
    return _follow(current, current.champion, shadows, current.canary, roles=roles, cause=cause, evidence=evidence)


def install(
    current: Deployment,
    version: Version,
    *,
    cause: str | None = None,
    evidence: Mapping[str, Any] | None = None,
    keep_first: bool = False,
) -> Deployment:
    """`version` becomes champion; the one before stays as the shadow `previous`, that it can come back.

    A `previous` that was there leaves. keep_first: the first champion that leaves its place becomes the shadow
    `first`, which stays. The canary goes, a candidate that is another version stays one. Of a version that is champion
    already, nothing changes but what is said of it.
    """
    former = current.champion
    if former is None or former.version == version.version:
        shadows, previous = _without(current.shadows, version), current.previous
    else:
        shadows, previous = _without(_without_role(current, "previous"), version), former.version
        shadows = (*_without(shadows, former), former)
    roles = _roles(current) | {"previous": previous}
    if keep_first and current.first is None and former is not None and former.version != version.version:
        roles["first"] = former.version
    return _follow(current, version, shadows, roles=roles, cause=cause, evidence=evidence)


def promote_candidate(
    current: Deployment,
    *,
    cause: str = "promoted",
    evidence: Mapping[str, Any] | None = None,
    keep_first: bool = False,
) -> Deployment:
    """The candidate becomes champion, as `install` says. Raises ModelRefused where there is none."""
    candidate = _in_role(current, "candidate")
    return install(current, candidate, cause=cause, evidence=evidence, keep_first=keep_first)


def drop(
    current: Deployment, version: str, *, cause: str | None = None, evidence: Mapping[str, Any] | None = None
) -> Deployment:
    """The shadow `version` leaves; where it is `first` and a candidate too, it is only no candidate any more.

    Raises ModelRefused where no shadow is called so.
    """
    if current.shadow(version) is None:
        raise ModelRefused(f"version {version} is not among the shadows of {current.model}")
    kept = version == current.first and version in (current.candidate, current.previous)
    shadows = tuple(v for v in current.shadows if v.version != version or kept)
    roles = {role: None if name == version and role != "first" else name for role, name in _roles(current).items()}
    return _follow(current, current.champion, shadows, current.canary, roles=roles, cause=cause, evidence=evidence)


def retire_previous(
    current: Deployment, *, cause: str = "guard over", evidence: Mapping[str, Any] | None = None
) -> Deployment:
    """The former champion is not needed any more: it leaves, unless it is `first`. Raises ModelRefused."""
    return drop(current, _in_role(current, "previous").version, cause=cause, evidence=evidence)


def roll_back_to_previous(
    current: Deployment, *, cause: str = "rolled back", evidence: Mapping[str, Any] | None = None
) -> Deployment:
    """The former champion is champion again, and the present one leaves; the canary goes, a candidate stays.

    Raises ModelRefused where no former champion is kept.
    """
    previous = _in_role(current, "previous")
    roles = _roles(current) | {"previous": None}
    return _follow(current, previous, _without(current.shadows, previous), roles=roles, cause=cause, evidence=evidence)


def _in_role(current: Deployment, role: str) -> Version:
    found = current.shadow(getattr(current, role))
    if found is None:
        raise ModelRefused(f"{current.model} has no {role} in deployment {current.id or 'none'}")
    return found


def _roles(deployment: Deployment) -> dict[str, str | None]:
    return {role: getattr(deployment, role) for role in ROLES}


def _without(versions: tuple[Version, ...], version: Version) -> tuple[Version, ...]:
    return tuple(v for v in versions if v.version != version.version)


def _without_role(current: Deployment, role: str) -> tuple[Version, ...]:
    """The shadows without the one that has this role alone."""
    name = getattr(current, role)
    others = [current_name for other, current_name in _roles(current).items() if other != role]
    return tuple(v for v in current.shadows if v.version != name or name in others)


def _follow(
    current: Deployment,
    champion: Version | None,
    shadows: tuple[Version, ...] = (),
    canary: Canary | tuple[Version, float] | None = None,
    *,
    roles: Mapping[str, str | None] | None = None,
    cause: str | None = None,
    evidence: Mapping[str, Any] | None = None,
) -> Deployment:
    """The deployment after `current`. A role whose version is no shadow any more is nobody's."""
    names = {v.version for v in shadows}
    kept = {role: name for role, name in (_roles(current) if roles is None else roles).items() if name in names}
    try:
        found = Canary(*canary) if isinstance(canary, tuple) else canary
        draft = Deployment(
            "", current.model, champion, shadows, found, **kept,
            cause=cause, evidence=None if evidence is None else dict(evidence),
        )  # fmt: skip
    except ValueError as error:
        raise ModelRefused(str(error)) from None
    digest = hashlib.sha256(current.id.encode() + b"\0" + to_json(draft)).hexdigest()
    return msgspec.structs.replace(draft, id=digest[:16])
