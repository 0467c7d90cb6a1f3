"""The model registry: versions with their lineage, and the routing table with its history, in MLflow.

MLflow's registry alone is used (names, versions, tags, aliases); models are never loaded through it, and
workers never talk to it. Importing it takes seconds, so that happens on first use, and not for a registry on
SQLite that is still empty.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from models import rollout
from models.errors import ModelRefused, RegistryError, one_line
from models.files import sha256_of, write_atomically
from models.made_for import Digests, keep
from models.rollout import Deployment, Version

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

KEPT_DEPLOYMENTS = 20
"""How many deployments of a model can be rolled back through."""

Lineage = Mapping[str, str | int | float]
"""What a version was made from: archive range and digest, seed, code revision, metrics."""

_TAG_LIMIT = 5000  # the width of the column in MLflow's databases
_PREFIX = "weir."
_HISTORY = "weir.history"
_DEPLOYMENT = "weir.deployment."
_OUR_ALIAS = re.compile(r"champion|canary|shadow(-\d+)?")


@dataclass(frozen=True)
class Registered:
    """A version as the registry knows it. aliases: the places it has in the current deployment."""

    version: Version
    created_ms: int
    aliases: tuple[str, ...]
    lineage: dict[str, str]


class Registry:
    """uri: MLflow's store (sqlite:///path, or a server's http(s)://); artifacts_dir: where model files are
    kept, readable by the workers under the same path.

    Every method blocks and may raise RegistryError.
    """

    def __init__(self, uri: str, artifacts_dir: Path) -> None:
        self._uri = uri
        path = uri.removeprefix("sqlite:///")
        self._file = Path(path) if path != uri else None
        self._artifacts_dir = artifacts_dir.absolute()

    def register(
        self,
        model: str,
        path: Path,
        spec_hash: str,
        lineage: Lineage | None = None,
        *,
        output: str | None = None,
        features: Digests | None = None,
    ) -> Version:
        """Keeps a copy of the ONNX file at `path` and makes it the model's next version.

        The same file for the same features is the same version: registering it again gives that one back.
        features: those of the spec, kept beside the file for who has to say what it does not fit.
        """
        _check_name(model)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise RegistryError(f"{path} cannot be read: {error.strerror}") from None
        sha256 = sha256_of(data)
        folder = self._artifacts_dir / model
        try:
            if features is not None:
                keep(folder, spec_hash, features)
        except OSError as error:
            raise RegistryError(f"{folder} cannot be written: {error.strerror}") from None
        for known in self.versions(model):
            if (known.version.sha256, known.version.spec_hash, known.version.output) == (
                sha256,
                spec_hash,
                output,
            ):
                return known.version
        kept = folder / f"{sha256}.onnx"
        try:
            write_atomically(kept, data)
        except OSError as error:
            raise RegistryError(f"{kept} cannot be written: {error.strerror}") from None
        tags = {_PREFIX + name: str(value) for name, value in (lineage or {}).items()}
        tags |= {_PREFIX + "sha256": sha256, _PREFIX + "spec_hash": spec_hash}
        if output is not None:
            tags[_PREFIX + "output"] = output
        with self._mlflow() as client:
            if self._tags(client, model) is None:
                client.create_registered_model(model)
            return _registered(client.create_model_version(model, source=kept.as_uri(), tags=tags), ()).version

    def versions(self, model: str) -> list[Registered]:
        """All versions that were registered here, newest first; none for a model that is not known."""
        _check_name(model)
        if self._is_new:
            return []
        aliases: dict[str, list[str]] = {}
        with self._mlflow() as client:
            found = list(client.search_model_versions(f"name = '{model}'", max_results=10_000))
            if found:
                for alias, number in client.get_registered_model(model).aliases.items():
                    aliases.setdefault(str(number), []).append(alias)
        ours = [_registered(v, aliases.get(str(v.version), ())) for v in found if _PREFIX + "sha256" in v.tags]
        return sorted(ours, key=lambda r: int(r.version.version), reverse=True)

    def version(self, model: str, number: str) -> Version:
        for known in self.versions(model):
            if known.version.version == number:
                return known.version
        raise RegistryError(f"{model} has no version {number}; list them with: weir models list")

    def version_of(self, model: str, lineage: Lineage) -> Version | None:
        """The newest version whose lineage says all that `lineage` says (`{"retrain": id}`), if there is one."""
        wanted = {name: str(value) for name, value in lineage.items()}
        for known in self.versions(model):
            if wanted.items() <= known.lineage.items():
                return known.version
        return None

    def mark(self, version: Version, marks: Lineage) -> None:
        """Writes to a version what came of it: `{"status": "rejected", "reasons": "…"}`. It is lineage from then on.

        What was written under the same name before is replaced. Raises RegistryError where the version is not known.
        """
        known = self.version(version.model, version.version)
        if known.sha256 != version.sha256:
            raise RegistryError(f"version {version.version} of {version.model} is another file than the one to mark")
        reserved = {"sha256", "spec_hash", "output"} & marks.keys()
        if reserved:
            raise RegistryError(f"{', '.join(sorted(reserved))} of a version cannot be marked")
        with self._mlflow() as client:
            for name, value in marks.items():
                client.set_model_version_tag(version.model, version.version, _PREFIX + name, str(value)[:_TAG_LIMIT])

    def routing(self, model: str) -> Deployment | None:
        """The current deployment, or None before the first."""
        _check_name(model)
        if self._is_new:
            return None
        with self._mlflow() as client:
            tags = self._tags(client, model) or {}
        history = _history(tags)
        return _deployment(tags, history[-1]) if history else None

    def history(self, model: str) -> list[Deployment]:
        """The deployments that are kept, the current one first."""
        _check_name(model)
        if self._is_new:
            return []
        with self._mlflow() as client:
            tags = self._tags(client, model) or {}
        return [_deployment(tags, id) for id in reversed(_history(tags))]

    def set_routing(self, deployment: Deployment) -> None:
        """Makes `deployment` the current one; the ones before are kept for rollback."""
        _check_name(deployment.model)
        with self._mlflow() as client:
            tags = self._tags(client, deployment.model)
            if tags is None:
                client.create_registered_model(deployment.model)
                tags = {}
            history = _history(tags)
            if history[-1:] != [deployment.id]:
                _store(client, deployment, [*history, deployment.id], tags)

    def rollback(self, model: str) -> Deployment:
        """Makes what the deployment before the current one said current again, and returns it.

        Called again, it goes one further back.
        """
        _check_name(model)
        nothing_before = RegistryError(f"{model} has no deployment before the current one to go back to")
        if self._is_new:
            raise nothing_before
        with self._mlflow() as client:
            tags = self._tags(client, model) or {}
            history = _history(tags)
            if len(history) < 2:
                raise nothing_before
            current, previous = _deployment(tags, history[-1]), _deployment(tags, history[-2])
            deployment = rollout.rollback(current, previous)
            _store(client, deployment, [*history[:-2], deployment.id], tags)
        return deployment

    @property
    def _is_new(self) -> bool:
        """Whether nothing has been registered yet: known without MLflow, which takes seconds to import."""
        return self._file is not None and not self._file.exists()

    @contextmanager
    def _mlflow(self) -> Iterator[MlflowClient]:
        """The client, with its and its database's errors mapped."""
        _import_quietly()
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield self._client
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise RegistryError(f"registry {self._uri}: {one_line(error)}") from None

    @cached_property
    def _client(self) -> MlflowClient:
        from mlflow.tracking import MlflowClient

        with warnings.catch_warnings(), self._alone():
            warnings.simplefilter("ignore")  # the store is imported only now
            if self._file is not None and not self._file.exists():
                _create(self._file, lambda uri: MlflowClient(tracking_uri=uri, registry_uri=uri))
            client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
            client.search_registered_models(max_results=1)  # looks at the tables, which a newer MLflow may have changed
            return client

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Of several processes that open a registry on SQLite, one makes its tables, and the others wait."""
        if self._file is None:
            yield
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.with_name(self._file.name + ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @staticmethod
    def _tags(client: MlflowClient, model: str) -> dict[str, str] | None:
        """Tags of the registered model, None if there is no such model."""
        found = list(client.search_registered_models(f"name = '{model}'"))
        return dict(found[0].tags) if found else None


def _import_quietly() -> None:
    """MLflow without its telemetry, its log lines and the warnings of the libraries it uses."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # it complains where there is no git
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.tracking  # noqa: F401


def _create(file: Path, open_store: Callable[[str], MlflowClient]) -> None:
    """Makes the database of a registry on SQLite: whole, or not at all. Called by one process at a time.

    MLflow builds it in dozens of steps; a process that is killed on the way would leave what nobody can open any more.
    """
    for left in file.parent.glob(f".{file.name}-*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{file.name}-") as folder:
        built, whole = Path(folder) / "built", Path(folder) / "whole"
        open_store(f"sqlite:///{built}").search_registered_models(max_results=1)
        with closing(sqlite3.connect(built)) as source, closing(sqlite3.connect(whole)) as copy:
            source.backup(copy)  # the store keeps its own file open
        whole.replace(file)


def _store(client: MlflowClient, deployment: Deployment, history: list[str], tags: Mapping[str, str]) -> None:
    name, history = deployment.model, history[-KEPT_DEPLOYMENTS:]
    client.set_registered_model_tag(name, _DEPLOYMENT + deployment.id, rollout.to_json(deployment).decode())
    # the history is the switch: what it names is written before, what it no longer names removed after
    client.set_registered_model_tag(name, _HISTORY, json.dumps(history))
    for tag in tags:
        if tag.startswith(_DEPLOYMENT) and tag.removeprefix(_DEPLOYMENT) not in history:
            client.delete_registered_model_tag(name, tag)
    wanted: dict[str, str] = {}  # for people who look into MLflow: only the tags decide
    if deployment.champion:
        wanted["champion"] = deployment.champion.version
    if deployment.canary:
        wanted["canary"] = deployment.canary.version.version
    for number, shadow in enumerate(deployment.shadows, start=1):
        wanted["shadow" if number == 1 else f"shadow-{number}"] = shadow.version
    for alias in client.get_registered_model(name).aliases:
        if _OUR_ALIAS.fullmatch(alias) and alias not in wanted:
            client.delete_registered_model_alias(name, alias)
    for alias, version in wanted.items():
        client.set_registered_model_alias(name, alias, version)


def _registered(found: ModelVersion, aliases: list[str] | tuple[str, ...]) -> Registered:
    tags = {k.removeprefix(_PREFIX): v for k, v in found.tags.items() if k.startswith(_PREFIX)}
    version = Version(
        model=found.name,
        version=str(found.version),
        uri=found.source or "",
        sha256=tags.pop("sha256"),
        spec_hash=tags.pop("spec_hash", ""),
        output=tags.pop("output", None),
    )
    return Registered(version, int(found.creation_timestamp), tuple(sorted(aliases)), tags)


def _history(tags: Mapping[str, str]) -> list[str]:
    """Ids of the deployments, the current one last."""
    history: list[str] = json.loads(tags.get(_HISTORY, "[]"))
    return history


def _deployment(tags: Mapping[str, str], id: str) -> Deployment:
    try:
        return rollout.from_json(tags[_DEPLOYMENT + id].encode())
    except (KeyError, ModelRefused) as error:
        raise RegistryError(f"deployment {id} in the registry cannot be read: {one_line(error)}") from None


def _check_name(model: str) -> None:
    if not re.fullmatch(r"\w[\w.-]*", model, re.ASCII):
        raise RegistryError(f"model name {model!r}: use letters, digits, dots, dashes and underscores")
