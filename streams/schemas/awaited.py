"""The schemas of a worker's sources, fetched before they are needed: while the registry is away, decoding waits.

A record whose schema cannot be had is not a bad record; it would become one if decoding went on without it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import structlog

from monitors.metrics import Metrics
from streams.batches import RecordBatch
from streams.breaker import Breaker
from streams.errors import UsageError
from streams.pipeline import Pipeline
from streams.schemas.codec import Codec
from streams.schemas.registry import RegistryAway, SchemaRegistry
from streams.settings import Settings

log = structlog.get_logger(__name__)

_LOOK_S = 0.1


class AwaitedSchemas:
    """codecs: by stream; None where a source is plain JSON."""

    def __init__(self, codecs: Sequence[Codec | None]) -> None:
        self.codecs = codecs
        self.waiting = ""
        """What holds decoding up, in words; empty if nothing does."""
        self._breaker = Breaker(time.monotonic)
        self._any = any(codec is not None for codec in codecs)

    @classmethod
    def of(cls, pipeline: Pipeline, settings: Settings, metrics: Metrics) -> AwaitedSchemas:
        """UsageError: a codec without its extra, or without a registry."""
        registry = None
        for source in pipeline.sources:
            if source.codec in ("avro", "protobuf") and registry is None:
                registry = _registry(source.topic, source.codec, settings)
            if source.codec == "avro":
                _needs_avro(source.topic)
        return cls(
            [
                None
                if source.codec == "json"
                else Codec(source.codec, source.event, None if source.codec == "json-schema" else registry, metrics)
                for source in pipeline.sources
            ]
        )

    async def ready(self, batches: Sequence[RecordBatch]) -> None:
        """Returns when every schema of `batches` has been answered for. Waits for as long as it takes."""
        if not self._any:
            return
        for batch in batches:
            codec = self.codecs[batch.stream]
            while codec is not None and (headers := codec.unseen(batch.values)):
                if not self._breaker.closed:
                    await asyncio.sleep(_LOOK_S)
                    continue
                try:
                    await asyncio.to_thread(codec.learn, headers)
                except RegistryAway as error:
                    self._breaker.failed()
                    if not self.waiting:
                        log.warning("the schema registry does not answer, decoding waits", error=str(error))
                    self.waiting = f"the schema registry does not answer: {error}"
                    continue
                self._breaker.succeeded()
                if self.waiting:
                    log.info("the schema registry answers again")
                self.waiting = ""


def _registry(topic: str, codec: str, settings: Settings) -> SchemaRegistry:
    if not settings.schema_registry:
        raise UsageError(f"source {topic} is codec={codec!r}: set WEIR_SCHEMA_REGISTRY to the registry's URL")
    password = settings.schema_registry_password
    return SchemaRegistry(
        settings.schema_registry.split(","),
        settings.schema_registry_username,
        password.get_secret_value() if password else None,
        settings.schema_registry_ca,
    )


def _needs_avro(topic: str) -> None:
    try:
        import streams.schemas.avro  # noqa: F401
    except ImportError as error:
        mend = f"pip install 'weir[schemas]' ({error})"
        raise UsageError(f"source {topic} is codec='avro', which needs: {mend}") from error
