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
from streams.pipeline import Pipeline
from streams.schemas.codec import Codec
from streams.schemas.declared import declared_codec
from streams.schemas.registry import RegistryAway
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
        """Raises what `declared_codec` raises."""
        sources = pipeline.sources
        return cls([declared_codec(f"source {s.topic}", s.codec, s.event, settings, metrics) for s in sources])

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
