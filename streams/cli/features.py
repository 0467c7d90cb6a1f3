"""`weir features`: what a model sees, and what an entity's features are now."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.output import JsonOption, PipelineArgument, emit, start, table

if TYPE_CHECKING:
    from features.spec import Feature
    from streams.pipeline import Pipeline
    from streams.settings import Settings

app = typer.Typer(help="Features of a pipeline: list them, read an entity's.", no_args_is_help=True)


@app.command("list")
def list_features(pipeline: PipelineArgument, as_json: JsonOption = False) -> None:
    """The features in the order of the model's inputs."""
    from streams.loading import load_pipeline

    start(report=True)
    loaded = load_pipeline(pipeline)
    features = [_described(loaded, feature) for feature in loaded.spec.features]
    report = {"pipeline": loaded.name, "spec_hash": loaded.spec.hash, "features": features}
    text = None
    if not as_json:
        columns = ("name", "kind", "of", "source", "entity", "window")
        text = table(columns, [[feature.get(column) for column in columns] for feature in features])
    emit(report, as_json=as_json, text=text)


@app.command("read")
def read(
    pipeline: PipelineArgument,
    entity: Annotated[
        list[str],
        typer.Argument(metavar="FIELD=VALUE…", help="The entity, for example user_id=u42.", show_default=False),
    ],
    at: Annotated[int | None, typer.Option(help="Event time to read at, ms since 1970; default: now.")] = None,
    ask_all: Annotated[bool, typer.Option("--all-partitions", help="Do not compute the partition: ask all.")] = False,
    as_json: JsonOption = False,
) -> None:
    """An entity's features as of now; a window that has passed is never shown as present."""
    from streams.errors import UsageError
    from streams.loading import load_pipeline

    settings = start(report=True)
    loaded = load_pipeline(pipeline)
    fields: dict[str, str | float | None] = {}
    for item in entity:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise UsageError(f"{item!r}: write FIELD=VALUE, for example {loaded.lead.key}=…")
        fields[name] = value
    readings = _read(loaded, settings, fields, at, ask_all)
    report = {"pipeline": loaded.name, "entity": fields, "features": readings}
    text = None
    if not as_json:
        rows = [
            (name, _short(found["value"]), found["state"], _utc(found["newest_ms"])) for name, found in readings.items()
        ]
        text = table(("feature", "value", "", "newest event, or its pane's start"), rows)
    emit(report, as_json=as_json, text=text)


def _read(
    pipeline: Pipeline,
    settings: Settings,
    fields: dict[str, str | float | None],
    at_ms: int | None,
    ask_all: bool,
) -> dict[str, dict[str, Any]]:
    from dataclasses import asdict

    from features.reader import FeatureReader, ReadError
    from features.redis_store import RedisStore
    from features.store import StoreUnavailable
    from streams.cli.servers import find_redis, not_running
    from streams.errors import UsageError, WeirError
    from streams.event import integer_fields

    url = find_redis(settings)
    if url is None:
        raise not_running(settings, "redis")
    partitions = _partitions(pipeline, settings)
    store = RedisStore(url, pipeline.name)
    reader = FeatureReader(
        pipeline.spec,
        store,
        key=pipeline.lead.key,
        partitions=partitions,
        partitioner=pipeline.lead.partitioner,
        floats={f.name for f in pipeline.lead.stream.fields} - integer_fields(pipeline.lead.event),
    )
    try:
        readings = reader.read_once(fields, at_ms, ask_all=ask_all)
    except ReadError as error:
        raise UsageError(str(error)) from error
    except StoreUnavailable as error:
        raise WeirError(str(error)) from error
    return {name: asdict(reading) for name, reading in readings.items()}


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.7g}"


def _utc(time_ms: int | None) -> str:
    return "" if time_ms is None else datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _partitions(pipeline: Pipeline, settings: Settings) -> int:
    from confluent_kafka.admin import AdminClient

    from streams.cli.servers import find_broker, not_running
    from streams.errors import WeirError
    from streams.kafka import client_config, partition_counts

    broker = find_broker(settings)
    if broker is None:
        raise not_running(settings, "broker")
    topic = pipeline.lead.topic
    admin = AdminClient(client_config(settings, broker, "weir-features", lambda _: None))
    count = partition_counts(admin, [topic], embedded=settings.embedded_broker)[topic]
    if not count:
        raise WeirError(f"topic {topic} does not exist on {broker}")
    return count


def _described(pipeline: Pipeline, feature: Feature) -> dict[str, Any]:
    from features.spec import Aggregate, Calendar, Category, Computed, Hashed, Ratio
    from features.windows import Window

    found: dict[str, Any] = {"name": feature.name, "source": pipeline.lead.topic}
    if isinstance(feature, Computed | Ratio):
        kind = "ratio" if isinstance(feature, Ratio) else "compute"
        return {**found, "kind": kind, "of": ", ".join(a.name for a in feature.uses) or None}
    if isinstance(feature, Category):
        encoding = feature.encoding
        size = f"{encoding.buckets} buckets" if isinstance(encoding, Hashed) else f"{encoding.size - 1} values"
        return {**found, "kind": "category", "of": feature.field, "window": size}
    if isinstance(feature, Calendar):
        return {**found, "kind": "calendar", "of": feature.part, "window": feature.zone}
    if isinstance(feature, Aggregate):
        within = f"within {(feature.within_ms or 0) / 86_400_000:g}d"
        window = within if feature.window is None else feature.window.text
        if feature.window is not None and not isinstance(feature.window, Window):
            window = f"{window}, {within}"
        if feature.where is not None:
            window = f"{window}, where {feature.where.text}"
        return {
            "name": feature.name,
            "kind": feature.op,
            "of": feature.field,
            "source": pipeline.sources[feature.stream].topic,
            "entity": ", ".join(feature.entity),
            "window": window,
        }
    return {**found, "kind": "field", "of": feature.field}
