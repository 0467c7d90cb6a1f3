"""A model's way into service: checked, registered, and its place published on the deployments topic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient

from models import rollout
from models.errors import ModelRefused
from models.registry import Registry
from models.rollout import Deployment, Version
from models.runner import Runner
from streams.errors import UsageError, WeirError
from streams.kafka import client_config, ensure_topic, producer_config
from streams.pipeline import Pipeline
from streams.settings import Settings

Place = Literal["champion", "shadow"]
_PUBLISH_S = 20.0


def open_registry(settings: Settings) -> Registry:
    """The registry of these settings. Its model files lie under DATA_DIR, which the workers must have too."""
    uri, path = settings.registry, sqlite_path(settings)
    # MLflow keeps one store per URI: a relative one would stay with the directory it was first used in.
    return Registry(f"sqlite:///{path.absolute()}" if path else uri, settings.data_dir / "models")


def sqlite_path(settings: Settings) -> Path | None:
    """The file of a registry on SQLite."""
    path = settings.registry.removeprefix("sqlite:///")
    return Path(path) if path != settings.registry else None


def register(
    pipeline: Pipeline, registry: Registry, path: Path, lineage: Mapping[str, str | int | float] | None = None
) -> Version:
    """Makes the ONNX file at `path` a version of the pipeline's model, if a worker could serve it.

    Raises UsageError where it could not, with the reason; RegistryError.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    try:
        Runner(data, pipeline.spec.names, output=pipeline.output, sizes=(1,)).release()
    except ModelRefused as error:
        raise UsageError(f"{path}: {error}") from error
    named = {"pipeline": pipeline.name, **(lineage or {})}
    spec = pipeline.spec
    return registry.register(pipeline.model, path, spec.hash, named, output=pipeline.output, features=spec.digests)


def deploy(pipeline: Pipeline, registry: Registry, version: Version, place: Place = "champion") -> Deployment:
    """The registry's routing with `version` in `place`; the same one where it has that place already.

    With a rollout declared, the champion before stays as a shadow that can come back by itself.
    """
    current = registry.routing(pipeline.model) or rollout.unscored(pipeline.model)
    if place == "shadow":
        following = rollout.add_shadow(current, version)
    elif pipeline.rollout is not None:
        following = rollout.install(current, version, cause="deployed", keep_first=pipeline.rollout.keep_first)
    else:
        following = rollout.promote(current, version)
    same = (current.champion, current.canary, set(current.shadows))
    if same == (following.champion, following.canary, set(following.shadows)):
        return current
    registry.set_routing(following)
    return following


def publish(
    pipeline: Pipeline,
    settings: Settings,
    broker: str,
    deployment: Deployment,
    headers: Sequence[tuple[str, bytes]] = (),
) -> None:
    """Puts `deployment` on the pipeline's deployments topic, which is made where it is missing.

    broker: host:port,… headers: of the record. Returns once the brokers have it. Raises WeirError.
    """
    base = client_config(settings, broker, f"weir-{pipeline.name}-deploy", lambda _: None)
    topic = pipeline.topics.deployments
    ensure_topic(AdminClient(base), pipeline, topic, settings)
    errors: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            errors.append(error)

    producer = Producer({**producer_config(base), "message.timeout.ms": int(_PUBLISH_S * 1000)})
    key, value = pipeline.model.encode(), rollout.to_json(deployment)
    producer.produce(topic, value, key, headers=list(headers) or None, on_delivery=delivered)
    left = producer.flush(2 * _PUBLISH_S)
    if errors or left:
        reason = errors[0].str() if errors else "no answer"
        raise WeirError(f"deployment {deployment.id} is registered, but not published: {reason}; deploy it again")


def publish_current(pipeline: Pipeline, settings: Settings, broker: str) -> Deployment | None:
    """Publishes what the registry says, if anything: an embedded broker starts empty."""
    deployment = open_registry(settings).routing(pipeline.model)
    if deployment is not None:
        publish(pipeline, settings, broker, deployment)
    return deployment
