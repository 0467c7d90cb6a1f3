"""Online features in a program of one's own: of entities, as of now, from Redis alone.

    async with FeatureReader("fraud.py", "redis://localhost:6379/0") as reader:
        found = await reader.read([{"user_id": "42"}, {"user_id": "43"}], features=["user_id_count_1h"])
        found.values            # float64 [2, 1], NaN = none
        found[0]["user_id_count_1h"].state    # present, missing, expired or rebuilding

`BlockingFeatureReader` is the same without `async` and `await`, for any number of threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Self

from features.codec import CodecError, components_of
from features.reader import Entity, ReadError, StateReader, Unreadable
from features.readings import Reading, Readings
from features.redis_store import RedisStore
from features.store import StoreMisconfigured, StoreUnavailable
from streams.entity_readers import EntityReaders
from streams.event import integer_fields
from streams.loading import load_pipeline
from streams.parts import parts_of
from streams.pipeline import Pipeline
from streams.settings import load_settings

__all__ = [
    "BlockingFeatureReader",
    "FeatureReader",
    "ReadError",
    "Reading",
    "Readings",
    "StoreMisconfigured",
    "StoreUnavailable",
    "Unreadable",
]


class FeatureReader:
    """Reads the features of a pipeline's entities as its workers left them, at most a checkpoint interval ago.

    pipeline: the object, or what the command line takes. redis_url: of a server, or of any node of a cluster; None =
    WEIR_REDIS. partitions: of the scored topic; None = as the worker has noted in Redis. timeout_s: of a read.

    One reader serves any number of tasks of its event loop.
    """

    def __init__(
        self,
        pipeline: Pipeline | str,
        redis_url: str | None = None,
        *,
        partitions: int | None = None,
        timeout_s: float = 1.0,
    ) -> None:
        loaded = load_pipeline(pipeline) if isinstance(pipeline, str) else pipeline
        self.pipeline = loaded
        url = redis_url if redis_url is not None else _redis_of_settings()
        self._timeout_s = timeout_s
        self._states: list[tuple[StateReader, RedisStore]] = []
        own = self._state_of(loaded, url, partitions)
        remote = [(part.group, part.pipeline) for part in parts_of(loaded) if part.group is not None]
        self.readers = EntityReaders(own, {group: self._state_of(seen, url, None) for group, seen in remote})

    async def read(
        self,
        entities: Sequence[Entity],
        *,
        at: int | datetime | None = None,
        features: Sequence[str] | None = None,
        ask_all: bool = False,
    ) -> Readings:
        """The features of `entities`, each a mapping of the fields that name it; all must name the same fields.

        Those of a remote group are asked for alone, by the fields that name it.

        at: event time (ms since 1970, or with a time zone) to read at; None = now. features: None = all whose
        entity's fields are given. ask_all: looks in all partitions, for topics whose partitioner is another than
        declared.

        Raises ReadError where that cannot be answered, StoreUnavailable where Redis does not, StoreMisconfigured where
        it refuses.
        """
        return await self.readers.read(entities, _ms(at), features, ask_all=ask_all)

    def _state_of(self, pipeline: Pipeline, url: str, partitions: int | None) -> StateReader:
        store = RedisStore(url, pipeline.name, connect_timeout_s=self._timeout_s, command_timeout_s=self._timeout_s)
        state = StateReader(
            pipeline.spec,
            store,
            key=pipeline.lead.key,
            partitions=partitions,
            partitioner=pipeline.lead.partitioner,
            floats={f.name for f in pipeline.lead.stream.fields} - integer_fields(pipeline.lead.event),
        )
        self._states.append((state, store))
        return state

    async def some_entities(self, most: int = 20) -> list[list[dict[str, str]]]:
        """Entities that there is state of, for `read`: of each kind up to `most`, as the store comes upon them.

        Raises StoreUnavailable, StoreMisconfigured.
        """
        found: list[list[dict[str, str]]] = []
        for kind, store in ((kind, store) for state, store in self._states for kind in state.kinds):
            rows = await store.some_rows(kind.number, most)
            found.append([])
            for row in rows:
                with suppress(CodecError):  # a stranger's
                    texts = components_of(row.key, len(kind.fields))
                    found[-1].append(dict(zip(kind.fields, texts, strict=True)))
        return [some for some in found if some]

    async def close(self) -> None:
        """Closes the connections."""
        for _, store in self._states:
            await store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()


class BlockingFeatureReader:
    """A `FeatureReader` for code without an event loop: it has one in a thread of its own. Safe in any thread."""

    def __init__(
        self,
        pipeline: Pipeline | str,
        redis_url: str | None = None,
        *,
        partitions: int | None = None,
        timeout_s: float = 1.0,
    ) -> None:
        self._reader = FeatureReader(pipeline, redis_url, partitions=partitions, timeout_s=timeout_s)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="weir-features", daemon=True)
        self._thread.start()

    def read(
        self,
        entities: Sequence[Entity],
        *,
        at: int | datetime | None = None,
        features: Sequence[str] | None = None,
        ask_all: bool = False,
    ) -> Readings:
        """See `FeatureReader.read`."""
        reading = self._reader.read(entities, at=at, features=features, ask_all=ask_all)
        return asyncio.run_coroutine_threadsafe(reading, self._loop).result()

    def close(self) -> None:
        """Closes the connections and ends the thread. May be called twice."""
        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._reader.close(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _ms(at: int | datetime | None) -> int | None:
    if not isinstance(at, datetime):
        return at
    if at.tzinfo is None:
        raise ReadError("at", "a time without its zone; write datetime(…, tzinfo=UTC)")
    return round(at.timestamp() * 1000)


def _redis_of_settings() -> str:
    from streams.cli.servers import find_redis, not_running

    settings = load_settings()
    url = find_redis(settings)
    if url is None:
        raise not_running(settings, "redis")
    return url
