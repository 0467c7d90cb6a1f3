"""From the batches of a poll to columns for the lanes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import structlog

from features.partitioner import partition_of
from monitors.metrics import Metrics
from streams.batches import RecordBatch
from streams.decode import decoder_of
from streams.decoded import DeadLetter, Decoded
from streams.hop import Origin, beginning, unframed, with_origin
from streams.parts import Part
from streams.schemas.awaited import AwaitedSchemas

log = structlog.get_logger(__name__)

_SAMPLE = 100

_Opened = tuple[RecordBatch, Origin | None, list[DeadLetter]]
"""A batch of the source's own records, where they came from, and the dead among them."""


class DecodedPoll(NamedTuple):
    """The columns of a poll's batches, each with the generation of its partition's reading; when they were made, in ns,
    monotonic.
    """

    batches: list[tuple[int, Decoded]]
    began_ns: int
    ended_ns: int


class Decoding:
    """Decodes what `part` reads. partitions: of each source."""

    def __init__(self, part: Part, schemas: AwaitedSchemas, metrics: Metrics, partitions: int) -> None:
        self._part, self._metrics, self._partitions = part, metrics, partitions
        self.schemas = schemas
        pipeline = part.pipeline
        self._sources = pipeline.sources
        self._decoders = [
            decoder_of(source, stream, pipeline.spec, codec)
            for stream, (source, codec) in enumerate(zip(pipeline.sources, schemas.codecs, strict=True))
        ]
        for decoder in self._decoders:
            decoder.prepare()
        self._seen: set[tuple[int, int]] = set()

    async def of(self, batches: Sequence[RecordBatch]) -> DecodedPoll:
        """Waits for schemas that are not known yet."""
        opened = [self._opened(batch) for batch in batches]
        await self.schemas.ready([batch for batch, *_ in opened])
        return self._decoded(opened)

    def _opened(self, batch: RecordBatch) -> _Opened:
        """The records of the source in a batch, and where they came from, if that goes on or came along."""
        if self._part.group is not None:
            return unframed(batch, self._part.carried)
        if self._part.sends_to and batch.stream == 0:
            return beginning(batch)
        return batch, None, []

    def _decoded(self, opened: Sequence[_Opened]) -> DecodedPoll:
        began_ns = time.monotonic_ns()
        found = []
        for stream, decoder in enumerate(self._decoders):
            mine = [one for one in opened if one[0].stream == stream]
            for (batch, origin, dead), decoded in zip(mine, decoder.decode_all([o[0] for o in mine]), strict=True):
                if (stream, batch.partition) not in self._seen and self._part.group is None:
                    self._check_partitioner(batch)
                if origin is not None:
                    with_origin(decoded, batch, origin, dead)
                    if self._part.group is not None and self._sources[0].id is None:
                        decoded.ids = self._places(decoded)
                found.append((batch.generation, decoded))
        ended_ns = time.monotonic_ns()
        self._metrics.observe("weir_stage_seconds", (ended_ns - began_ns) / 1e9, stage="decode")
        return DecodedPoll(found, began_ns, ended_ns)

    def _check_partitioner(self, batch: RecordBatch) -> None:
        """Whoever reads features by key must know where the producers put it."""
        self._seen.add((batch.stream, batch.partition))
        source = self._sources[batch.stream]
        strays = sum(
            partition_of(key, self._partitions, source.partitioner) != batch.partition
            for key in batch.keys[:_SAMPLE]
            if key is not None
        )
        if strays:
            log.warning(
                "records are not in the partitions of their keys: reads by key will miss them",
                source=source.topic,
                partition=batch.partition,
                strays=f"{strays} of {min(len(batch), _SAMPLE)}",
                declared=source.partitioner,
                mend='declare Source(partitioner="murmur2") for Java producers, "crc32" for librdkafka\'s',
            )

    def _places(self, decoded: Decoded) -> list[str]:
        """What names events without an id: where they stand in their source."""
        assert decoded.origin is not None
        prefix = self._part.declared.lead.topic
        pairs = zip(decoded.origin.partitions.tolist(), decoded.origin.offsets.tolist(), strict=True)
        return [f"{prefix}-{partition}-{offset}" for partition, offset in pairs]
