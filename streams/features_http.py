"""POST /features: the features of a batch of entities, in JSON. A wrong request is told the place and the mend."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from features.reader import Entity, ReadError, Unreadable
from features.readings import STATES, Readings
from features.store import StoreMisconfigured, StoreUnavailable
from monitors.metrics import Metrics
from streams.breaker import Breaker
from streams.entity_readers import EntityReaders

BODY_BYTES = 4 * 1024 * 1024
"""The largest request."""
IN_FLIGHT = 256
"""Requests that are worked on at once; more are told to come again."""
READ_S = 2.0
"""How long a read may take, connecting included."""
_EXAMPLE = 'send {"entities": [{"FIELD": VALUE, …}, …]}, with "features": [NAME, …] and "at": MS if wanted'


class Refusal(Exception):
    """The answer to a request that is not answered: an HTTP status, and what to say."""

    def __init__(self, status: int, message: str, *, field: str = "", mend: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"field": field, "message": message, "mend": mend}}


class Question(NamedTuple):
    """What a request asks; at_ms None = now, features None = all."""

    entities: list[Entity]
    features: list[str] | None
    at_ms: int | None


class FeaturesEndpoint:
    """Answers POST /features from `reader`. most: entities of one request.

    Redis that does not answer is left alone for a while, longer each time; meanwhile the answer is 503 at once.
    """

    def __init__(
        self,
        reader: EntityReaders,
        metrics: Metrics,
        *,
        pipeline: str,
        most: int,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader, self._metrics = reader, metrics
        self._pipeline, self._most = pipeline, most
        self._breaker = Breaker(monotonic_s)
        self._in_flight = 0
        self._away: dict[str, str] = {"redis": "not asked yet"}
        self.routes = [Route("/features", self._post, methods=["POST"])]

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether entities can be read, and why not."""
        return not self._away, dict(self._away)

    async def look(self) -> None:
        """Finds out whether the store answers and holds this pipeline's features. To be called every second or so."""
        if self._breaker.closed:
            try:
                await self._guarded(self._reader.look())
            except Refusal:
                return
            self._away = {}

    async def _post(self, request: Request) -> Response:
        began = time.perf_counter()
        try:
            question = parse(await _body(request), self._most)
            readings = await self._answer(question)
            body, status, headers = orjson.dumps(self._report(question.entities, readings)), 200, {}
        except Refusal as refusal:
            body, status = orjson.dumps(refusal.body), refusal.status
            headers = {"retry-after": "1"} if status == 503 else {}
        except ClientDisconnect:
            status = 499  # nobody reads the answer; the number is nginx's
            body, headers = b"", {}
        self._metrics.inc("weir_feature_requests_total", status=status)
        self._metrics.observe("weir_feature_request_seconds", time.perf_counter() - began)
        return Response(body, status, headers, media_type="application/json")

    async def _answer(self, question: Question) -> Readings:
        if self._in_flight >= IN_FLIGHT:
            busy = f"{self._in_flight} requests are worked on already"
            raise Refusal(503, busy, mend="try again, or start more servers")
        if not self._breaker.closed:
            raise Refusal(503, "; ".join(self._away.values()) or "the feature store does not answer", mend="try again")
        self._in_flight += 1
        try:
            asking = self._reader.read(question.entities, question.at_ms, question.features)
            readings: Readings = await self._guarded(asking)
        finally:
            self._in_flight -= 1
        self._metrics.inc("weir_feature_entities_total", len(readings))
        for state, count in enumerate(np.bincount(readings.states.ravel(), minlength=len(STATES)).tolist()):
            if count:
                self._metrics.inc("weir_feature_values_total", count, state=STATES[state])
        return readings

    async def _guarded(self, asking: Any) -> Any:
        """What `asking` gives. Its failures become refusals, and those of the store open the breaker."""
        try:
            found = await asyncio.wait_for(asking, READ_S)
        except Unreadable as error:
            self._breaker.succeeded()
            self._away = {"features": str(error)}
            raise Refusal(503, str(error), field=error.field) from error
        except ReadError as error:
            raise Refusal(422, error.said, field=error.field, mend="see the message") from error
        except (StoreUnavailable, StoreMisconfigured, TimeoutError) as error:
            self._breaker.failed()
            self._away = {"redis": str(error) or f"no answer from Redis in {READ_S:g} s"}
            raise Refusal(503, self._away["redis"], mend="try again when Redis answers") from error
        self._breaker.succeeded()
        return found

    def _report(self, entities: Sequence[Entity], readings: Readings) -> dict[str, Any]:
        names = readings.names
        groups = {",".join(group): place for place, group in enumerate(readings.groups)}
        places = list(groups.values())
        rows = zip(
            entities,
            readings.values.tolist(),
            readings.states.tolist(),
            readings.ages_s[:, places].tolist(),
            readings.checkpoint_ages_s(time.time_ns() // 1_000_000),
            strict=True,
        )
        return {
            "pipeline": self._pipeline,
            "at": readings.at_ms,
            "results": [
                {
                    "entity": entity,
                    "values": dict(zip(names, values, strict=True)),
                    "states": dict(zip(names, map(STATES.__getitem__, states), strict=True)),
                    "age_s": dict(zip(groups, ages, strict=True)),
                    "checkpoint_age_s": written,
                }
                for entity, values, states, ages, written in rows
            ],
        }


def parse(body: bytes, most: int) -> Question:
    """The question in a request's body. Raises Refusal: 400 no JSON object, 413 too many, 422 what cannot be asked."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, f"the body is no JSON: {error}", mend=_EXAMPLE) from None
    if not isinstance(found, dict):
        raise Refusal(400, "the body is no JSON object", mend=_EXAMPLE)
    if unknown := sorted(found.keys() - {"entities", "features", "at"}):
        raise Refusal(422, f"{unknown[0]} is not a field of a request", field=unknown[0], mend=_EXAMPLE)
    entities, features, at_ms = found.get("entities"), found.get("features"), found.get("at")
    if not isinstance(entities, list) or not entities:
        raise Refusal(422, "entities must be a list of one entity or more", field="entities", mend=_EXAMPLE)
    if len(entities) > most:
        raise Refusal(
            413, f"{len(entities):,} entities are too many", field="entities", mend=f"ask for at most {most:,} at once"
        )
    for place, entity in enumerate(entities):
        if not isinstance(entity, dict):
            raise Refusal(422, "an entity must be an object", field=f"entities[{place}]", mend=_EXAMPLE)
    if features is not None and not (
        isinstance(features, list) and features and all(isinstance(name, str) for name in features)
    ):
        raise Refusal(422, "features must be a list of names", field="features", mend="leave it out for all features")
    if at_ms is not None and (not isinstance(at_ms, int) or isinstance(at_ms, bool)):
        raise Refusal(422, "at must be whole ms since 1970", field="at", mend="leave it out for now")
    return Question(entities, features, at_ms)


async def _body(request: Request) -> bytes:
    """The body, read no further than it may be long. Raises Refusal."""
    too_long = Refusal(413, f"the body is longer than {BODY_BYTES:,} bytes", mend="ask for fewer entities at once")
    parts, length = [], 0
    async for part in request.stream():
        length += len(part)
        if length > BODY_BYTES:
            raise too_long
        parts.append(part)
    return b"".join(parts)
