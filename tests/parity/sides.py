"""The four that must agree, each as a table of feature values: stream, online reader, backfill and oracle."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from features.read_plan import readable
from features.reader import MOST
from features.spec import Calendar, Category, Computed, Feature, Ratio
from features.windows import MINUTE_MS
from models import tables
from streams.offline.backfill import Backfill
from streams.offline.diff import KEYS
from streams.offline.entity_times import AtTimes
from streams.offline.files import Input, file_input, inputs_of
from streams.offline.frames import PREFIX, ROW, feature_schema
from streams.offline.rejects import Reject
from streams.offline.rows import Reading
from streams.online import FeatureReader
from streams.parts import parts_of
from streams.pipeline import Pipeline
from tests.integration.outputs import hops
from tests.integration.tape import PARTITIONS, Place, Tape
from tests.integration.worker import Servers, Worker, ends_of, ran_out
from tests.oracles.features import Event, Oracle, features_of, kept_alone
from tests.oracles.near import Near, sketches
from tests.parity.compare import NEAR

AT = "at"
"""The field of an event's time in a table of entities."""
LATER_MS = 15 * MINUTE_MS
LIVE_S = 10.0


def inputs(tape: Tape, folder: Path) -> dict[str, Input]:
    """The tape's records as Parquet files, one a topic, with their places."""
    given = []
    for stream, source in enumerate(tape.pipeline.sources):
        mine = [record for record in tape.records if record.stream == stream]
        partitions = np.array([record.partition for record in mine])
        offsets = np.empty(len(mine), dtype=np.int64)
        for partition in np.unique(partitions):
            rows = np.flatnonzero(partitions == partition)
            offsets[rows] = np.arange(len(rows))
        keep = [i for i, record in enumerate(mine) if record.value is not None and record.usable]
        lines = b"\n".join(mine[i].value or b"" for i in keep)
        path = folder / f"{source.topic}.parquet"
        pl.read_ndjson(BytesIO(lines), infer_schema_length=None).with_columns(
            _partition=pl.Series(partitions[keep]),
            _offset=pl.Series(offsets[keep]),
            _timestamp=pl.Series([mine[i].timestamp for i in keep]),
        ).write_parquet(path)
        given.append(f"{source.topic}={path}")
    return inputs_of(given, tape.topics)


def stream(tape: Tape, servers: Servers, folder: Path) -> Path:
    """What a running worker logs: its predictions, as they stand on their topic, one a line.

    Where a group is read, records come while it runs: of a backlog it would be done before the group's state is there.
    """
    live = any(not group.exact for group in tape.pipeline.groups)
    if not live:
        tape.send(servers.broker)
    path = folder / "predictions.jsonl"
    expected = sum(record.stream == 0 and record.value is not None and record.usable for record in tape.records)
    with ExitStack() as stack:
        roles = ["worker", *(f"worker --group {group.name}" for group in tape.pipeline.groups)]
        workers = [stack.enter_context(ran_out(tape.path, servers, role=role)) for role in roles]
        if live:
            tape.send(servers.broker, per_s=len(tape.records) / LIVE_S)
        with path.open("wb") as file:
            for value in _records(servers.broker, tape.pipeline.topics.predictions, expected):
                file.write(value + b"\n")
        workers[0].caught_up()
        for worker in workers[1:]:
            _at_the_end(worker, servers.broker)
    return path


def _at_the_end(worker: Worker, broker: str) -> None:
    """Waits until a group's worker has all of its topic: behind a partition's last event lies a transaction's end."""
    ends = ends_of(broker, worker.status()["offsets"])

    def there() -> bool:
        offsets = worker.status()["offsets"]
        return all(end - offsets[topic].get(str(partition), 0) <= 1 for (topic, partition), end in ends.items())

    worker.wait_for(there, 60.0)


def backfill(tape: Tape, files: dict[str, Input], folder: Path) -> Path:
    path = folder / "backfill.parquet"
    work = Backfill(tape.pipeline, files, Reading(), none_rejected)
    tables.write(path, work.frames(), work.schema, {"spec_hash": tape.pipeline.spec.hash})
    return path


def oracle(tape: Tape, folder: Path) -> tuple[Path, Path]:
    """The loop over the events, as float32; and what is near enough of the sketches (`compare.NEAR`)."""
    spec, path, bounds = tape.pipeline.spec, folder / "oracle.parquet", folder / "near.parquet"
    keys = ("id", "time", "partition", "offset")
    schema: dict[str, Any] = {**{name: ROW[name] for name in keys}, **feature_schema(spec)}
    # The loop knows aggregates, values and categories; the others are made of these here.
    plain = tuple(
        f for f in spec.features if not isinstance(f, Computed | Ratio | Calendar) and f.name not in spec.given
    )
    looped = replace(spec, features=(*plain, *(a for a in spec.kept if a not in plain)), given=frozenset())
    given = _of_groups(tape)
    rough = sorted(sketches(spec))
    place = {name: schema[name] for name in KEYS["place"]}
    of_rough = {f"{column}.{name}": dtype for name in rough for column, dtype in NEAR.items()}
    frames, near = [], []
    for events in tape.arrivals():
        loop, rows, allowed = Oracle(looped), [], []
        for event in events:
            values = loop.see(event)
            if values is None:
                continue
            values |= given.get((event.partition, event.offset), {})
            for feature in spec.features:
                if feature.name not in values:
                    values[feature.name] = _made(feature, event, values)
                if values[feature.name] is None and not isinstance(feature, Category):
                    values[feature.name] = None if math.isnan(spec.missing) else spec.missing
            ranges = [_near(loop.near.get(name), spec.missing) for name in rough]
            allowed.append((event.partition, event.offset, event.time, *chain.from_iterable(ranges)))
            id_ = event.fields[tape.pipeline.lead.id] if tape.pipeline.lead.id else ""
            rows.append((id_, event.time, event.partition, event.offset, *(values[name] for name in spec.names)))
        wide = {n: pl.Float64 if d == pl.Float32 else d for n, d in schema.items()}
        frames.append(pl.DataFrame(rows, schema=wide, orient="row").cast(schema))
        near.append(pl.DataFrame(allowed, schema={**place, **of_rough}, orient="row"))
    pl.concat(frames).write_parquet(path)
    pl.concat(near).write_parquet(bounds)
    return path, bounds


def by_topic(tape: Tape, servers: Servers, oracle: pl.LazyFrame) -> pl.LazyFrame | None:
    """The oracle's table, with remote groups by a loop over their topics: in the order in which events came there.

    None where the pipeline has no exact group.
    """
    spec, kept = tape.pipeline.spec, dict[Place, dict[str, Any]]()
    parts = [part for part in parts_of(tape.pipeline) if part.group is not None and part.group.exact]
    for part in parts:
        given, lead = kept_alone(part.pipeline.spec), part.pipeline.lead
        for partition, hopped in hops(servers.broker, lead.topic, part.carried).items():
            events = [Event(0, fields[lead.time], i, partition, fields) for i, (_, fields) in enumerate(hopped)]
            for (place, _), values in zip(hopped, features_of(given, events), strict=True):
                kept.setdefault(place, {}).update(values)
    if not parts:
        return None
    names = [name for name in spec.names if name in next(iter(kept.values()))]
    missing = None if math.isnan(spec.missing) else spec.missing
    rows = [(*place, *(missing if v[n] is None else v[n] for n in names)) for place, v in kept.items()]
    columns = {f"{PREFIX}{name}": pl.Float64 for name in names}
    keys = {name: ROW[name] for name in ("partition", "offset")}
    table = pl.DataFrame(rows, schema={**keys, **columns}, orient="row").cast(dict.fromkeys(columns, pl.Float32))
    return oracle.drop(columns).join(table.lazy(), on=list(keys), how="left")


def _near(given: Near | None, missing: float) -> Near:
    """As it is logged, where something missing is near enough."""
    if given is None or given.among is None or math.isnan(missing):
        return given or Near()
    return given._replace(among=tuple(missing if value is None else value for value in given.among))


def _of_groups(tape: Tape) -> dict[Place, dict[str, Any]]:
    """What remote groups keep, by a loop over all scored events by time, as if they lay in one partition."""
    spec = tape.pipeline.spec
    aggregates = tuple(a for a in spec.aggregates if a.name in spec.given)
    if not aggregates:
        return {}
    loop, found = Oracle(replace(spec, features=aggregates, given=frozenset())), {}
    events = [event for events in tape.arrivals() for event in events if event.stream == 0]
    for event in sorted(events, key=lambda e: (e.time, e.partition, e.offset)):
        found[event.partition, event.offset] = loop.see(event._replace(partition=0)) or {}
    return found


def _made(feature: Feature, event: Event, values: dict[str, Any]) -> float | None:
    """What is made of the event and of aggregates, by the definition."""
    if isinstance(feature, Ratio):
        upper, lower = values[feature.upper.name], values[feature.lower.name]
        return upper / lower if upper is not None and lower else None
    if isinstance(feature, Calendar):
        local = datetime.fromtimestamp(event.time / 1000, ZoneInfo(feature.zone))
        minutes, weekday = 60 * local.hour + local.minute, local.weekday()
        parts = {"minute_of_day": minutes, "weekday": weekday, "weekend": weekday >= 5}
        return float(parts[feature.part] if feature.part in parts else getattr(local, feature.part))
    assert isinstance(feature, Computed)
    columns = {name: np.array([value]) for name, value in event.fields.items()}
    columns |= {a.name: np.array([values[a.name]], dtype=np.float64) for a in feature.uses}
    found = float(np.asarray(feature.function(columns))[0])
    return found if math.isfinite(found) else None


def entities(tape: Tape, files: dict[str, Input], most: int, folder: Path) -> Path:
    """A table of at most `most` entities of the scored stream, half of them as of the instant after the last event, the
    others a quarter of an hour later, when some windows have emptied.
    """
    of_features = {name for aggregate in tape.pipeline.spec.aggregates for name in aggregate.entity}
    names = sorted(of_features | {tape.pipeline.lead.key})
    ends = []
    for source in tape.pipeline.sources:
        table = pl.scan_parquet(files[source.topic].paths[0])
        ends.append(table.select(pl.col(source.time).max()).collect().item())
    at_ms = max(ends) + 1
    time = at_ms + LATER_MS * (pl.int_range(pl.len()) % 2)
    lead = pl.read_parquet(files[tape.pipeline.lead.topic].paths[0]).select(names).drop_nulls()
    some = lead.unique(maintain_order=True).tail(most)
    path = folder / "entities.parquet"
    named = some.with_columns(time=time.cast(pl.Int64), id=pl.concat_str(*names, separator="|"))
    named.sort("time", maintain_order=True).write_parquet(path)
    return path


def at_times(tape: Tape, files: dict[str, Input], table: Path) -> pl.LazyFrame:
    """The backfill's values of the entities' table."""
    work = AtTimes(tape.pipeline, files, file_input(AT, str(table), "--at"), Reading(), none_rejected)
    return _padded(tape.pipeline, pl.concat(work.frames()).lazy())


def reader(tape: Tape, servers: Servers, table: Path) -> pl.LazyFrame:
    """The online reader's values of the entities' table, from what the workers left in Redis."""
    pipeline, rows = tape.pipeline, pl.read_parquet(table)
    groups = [group.entity for group in pipeline.groups]
    own = {name for entity in pipeline.spec.entities for name in entity}

    async def read_all() -> pl.DataFrame:
        async with FeatureReader(pipeline, servers.redis_url, partitions=PARTITIONS) as found:
            sides = [await _read(found, rows, sorted(own | {pipeline.lead.key}))]
            sides += [await _read(found, rows, group) for group in groups]
            return pl.concat(sides, how="horizontal")

    values = asyncio.run(read_all()).cast(pl.Float32)
    return _padded(pipeline, rows.select("id", "time").hstack(values).lazy())


async def _read(found: FeatureReader, rows: pl.DataFrame, entity: Sequence[str]) -> pl.DataFrame:
    values: list[dict[str, Any]] = []
    for (at_ms, *_), then in rows.group_by("time", maintain_order=True):
        for some in then.select(entity).iter_slices(MOST):
            readings = await found.read(some.to_dicts(), at=at_ms)
            values += [{f"{PREFIX}{name}": one.value for name, one in reading.items()} for reading in readings]
    return pl.DataFrame(values, infer_schema_length=None)


def _padded(pipeline: Pipeline, table: pl.LazyFrame) -> pl.LazyFrame:
    """With the features that cannot be read without an event, as nothing, on both sides."""
    nothing = {
        f"{PREFIX}{f.name}": pl.String if isinstance(f, Category) else pl.Float32
        for f in pipeline.spec.features
        if f.name not in readable(pipeline.spec)
    }
    return table.with_columns(pl.lit(None, dtype=dtype).alias(name) for name, dtype in nothing.items())


def _records(broker: str, topic: str, count: int) -> Iterator[bytes]:
    """The first `count` committed values of a topic. RuntimeError if for a minute none comes."""
    config = {"bootstrap.servers": broker, "group.id": "parity", "enable.auto.commit": False}
    config |= {"isolation.level": "read_committed", "fetch.wait.max.ms": 50}
    consumer = Consumer(config)
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
        while count > 0:
            messages = consumer.consume(min(5000, count), 60.0)  # it waits until there are as many
            if not messages:
                raise RuntimeError(f"{topic}: {count} predictions did not come")
            for message in messages:
                error = message.error()
                if error is not None:
                    if error.code() != KafkaError._PARTITION_EOF and not error.retriable():
                        raise KafkaException(error)
                    continue
                count -= 1
                yield message.value() or b""
    finally:
        consumer.close()


def none_rejected(rejects: list[Reject]) -> None:
    raise AssertionError(f"a row was rejected: {json.dumps(rejects[0]._asdict())}")
