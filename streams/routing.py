"""The trainer's hand on the routing table: told as an alert, kept in the registry, published to the workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import orjson
import stamina
import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient

from models import rollout
from models.errors import RegistryError
from models.registry import Registry
from models.rollout import Deployment, Version
from streams import release
from streams.errors import WeirError
from streams.kafka import client_config, ensure_topic, producer_config
from streams.pipeline import Pipeline
from streams.settings import Settings
from streams.tracing import Tracer

log = structlog.get_logger(__name__)

T = TypeVar("T")
_TELL_S = 20.0


class Routing:
    """The current deployment, and the one way to change it. Not for several threads; every method but `current` blocks.

    Three steps make a change: the alert, the registry, the topic. A crash between them is mended: an alert without its
    change is told again, with the same `id`, when the change is decided again; a change that is not published is by
    `settle`, which is to be called first.
    """

    def __init__(
        self, pipeline: Pipeline, settings: Settings, broker: str, registry: Registry, tracer: Tracer | None = None
    ) -> None:
        self._pipeline, self._settings, self._broker = pipeline, settings, broker
        self.registry = registry
        self.current: Deployment = rollout.unscored(pipeline.model)
        self.stale = True
        """Whether `current` is to be read from the registry, and published, before it is relied on."""
        self.tracer = tracer or Tracer(pipeline.name)
        self.traces: dict[str, bytes] = {}
        """By version, the `traceparent` of what deployed it: what a roll-out continues, in the same process."""
        self._known: set[str] = set()
        self._base = client_config(settings, broker, f"weir-{pipeline.name}-trainer-alerts", lambda _: None)
        # told one by one: reports of success cost nothing
        self._config = {**producer_config(self._base), "message.timeout.ms": int(_TELL_S * 1000)}
        self._producer: Producer | None = None

    def settle(self) -> bool:
        """Reads what the registry says, and publishes it, if that may not have been done; True if it was needed."""
        if not self.stale:
            return False
        history = patiently(lambda: self.registry.history(self._pipeline.model))
        if history:
            release.publish(self._pipeline, self._settings, self._broker, history[0])
        self._known.update(deployment.id for deployment in history)
        self.current = history[0] if history else rollout.unscored(self._pipeline.model)
        self.stale = False
        return True

    def change(
        self, following: Deployment, kind: str, time_ms: int, *, trace: bytes | None = None, **detail: Any
    ) -> None:
        """Makes `following` the routing. kind, time_ms (event time), detail: of the alert, `version` with them.

        trace: `traceparent` of what led to it; None = what deployed the version.
        Raises RegistryError or WeirError; what was done of it is found by `settle`.
        """
        if (found := patiently(lambda: self.registry.routing(self._pipeline.model))) and found.id != self.current.id:
            self.stale = True
            raise WeirError(f"the routing of {self._pipeline.model} was changed by hand meanwhile: looking again")
        self._known.add(following.id)
        self.tell(kind, time_ms, id=following.id, deployment=following.id, **detail)
        self.stale = True
        patiently(lambda: self.registry.set_routing(following))
        version = str(detail.get("version"))
        parent = trace or self.traces.get(version)
        with self.tracer.step("deploy", parent=parent, deployment=following.id, kind=kind, version=version) as step:
            release.publish(self._pipeline, self._settings, self._broker, following, step.headers)
        if step.traceparent is not None:
            self.traces[version] = step.traceparent
        self.current, self.stale = following, False
        log.info("deployment published", deployment=following.id, kind=kind, **_places(following))

    def seen(self, deployment: Deployment) -> None:
        """A record of the deployments topic: of another hand (`weir models deploy`), perhaps."""
        if deployment.id not in self._known:
            self.stale = True

    def tell(self, kind: str, time_ms: int, **detail: Any) -> None:
        """An alert, delivered when this returns. Raises WeirError."""
        value = {"kind": kind, "pipeline": self._pipeline.name, "time": time_ms, **detail}
        errors: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                errors.append(error)

        topic = self._pipeline.topics.alerts
        try:
            if self._producer is None:
                ensure_topic(AdminClient(self._base), self._pipeline, topic, self._settings)
                self._producer = Producer(self._config)
            body = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SORT_KEYS)
            self._producer.produce(topic, body, kind.encode(), partition=0, on_delivery=delivered)  # in their order
            left = self._producer.flush(2 * _TELL_S)
        except (KafkaException, BufferError) as error:
            raise WeirError(f"an alert cannot be told on {topic}: {error}") from error
        if errors or left:
            raise WeirError(f"an alert cannot be told on {topic}: {errors[0].str() if errors else 'no answer'}")


def patiently(ask: Callable[[], T]) -> T:
    """The registry's answer; a moment's trouble (a locked database, a restart) is waited out for ten seconds."""
    for attempt in stamina.retry_context(on=RegistryError, attempts=5, timeout=10.0, wait_initial=0.1, wait_max=2.0):
        with attempt:
            return ask()
    raise AssertionError("stamina raises or returns")


def fitting(deployment: Deployment, spec_hash: str) -> Deployment:
    """`deployment` without the shadows that were made for other features: no worker could serve it with them.

    Where nothing has to go it is the same one; else one that follows it and says the same cause and evidence.
    """
    while (stranger := next((v for v in deployment.shadows if v.spec_hash != spec_hash), None)) is not None:
        said = deployment.cause, deployment.evidence
        deployment = rollout.drop(deployment, stranger.version, cause=said[0], evidence=said[1])
    return deployment


def champion_of(deployment: Deployment, spec_hash: str) -> Version | None:
    """The champion, if it was made for these features."""
    champion = deployment.champion
    return champion if champion is not None and champion.spec_hash == spec_hash else None


def _places(deployment: Deployment) -> Mapping[str, Any]:
    champion = deployment.champion.version if deployment.champion else None
    return {"champion": champion, "shadows": [version.version for version in deployment.shadows]}
