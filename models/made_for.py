"""The features that a version was made for: kept beside its file, so that one that does not fit is refused by name.

`features-<spec hash>.json` in the model's folder: {feature: digest of its declaration}, in the order of the inputs.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path

from models.errors import ModelError
from models.files import read_uri, write_atomically
from models.rollout import Version

Digests = Mapping[str, str]
"""Digests of declarations by feature, in the order of the model's inputs."""

_SHOWN = 8


def keep(folder: Path, spec_hash: str, features: Digests) -> None:
    """Writes what versions in `folder` that were made for this spec take. Raises OSError."""
    path = folder / _name(spec_hash)
    if not path.exists():
        write_atomically(path, json.dumps(dict(features)).encode())


def misfit(version: Version, spec_hash: str, features: Digests) -> str | None:
    """Why a version does not fit features, whose spec has this hash, by name; None if it fits. May block.

    Where nobody kept what it was made for, the hashes are all that is said.
    """
    if version.spec_hash == spec_hash:
        return None
    made = _made_for(version)
    said = f": {differences(made, features)}" if made is not None and features else ""
    return f"made for other features (spec {version.spec_hash}, the pipeline's is {spec_hash}){said}"


def differences(made: Digests, wanted: Digests) -> str:
    """How the features that a version was made for differ from those that a pipeline has."""
    found = [
        ("it was trained without", [name for name in wanted if name not in made]),
        ("the pipeline has no", [name for name in made if name not in wanted]),
        ("declared otherwise now:", [name for name in wanted if name in made and made[name] != wanted[name]]),
    ]
    said = [f"{what} {_listed(names)}" for what, names in found if names]
    if not said:
        moved = [name for name, other in zip(wanted, made, strict=True) if name != other]
        said = [f"in another order: {_listed(moved)}" if moved else "missing numbers have another value now"]
    return "; ".join(said)


def _made_for(version: Version) -> dict[str, str] | None:
    try:
        found = json.loads(read_uri(posixpath.join(posixpath.dirname(version.uri), _name(version.spec_hash))))
    except (ModelError, ValueError):  # nobody kept it, or it cannot be had: it would only explain
        return None
    return found if isinstance(found, dict) else None


def _name(spec_hash: str) -> str:
    return f"features-{spec_hash}.json"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
