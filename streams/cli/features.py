"""`weir features`: what a model sees, and what an entity's features are now."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli import offline
from streams.cli.output import JsonOption, PipelineArgument, emit, start, table

if TYPE_CHECKING:
    from streams.pipeline import Pipeline
    from streams.settings import Settings

app = typer.Typer(help="Features of a pipeline: list them, read an entity's.", no_args_is_help=True)
app.command("backfill")(offline.backfill)
app.command("diff")(offline.diff)


@app.command("list")
def list_features(pipeline: PipelineArgument, as_json: JsonOption = False) -> None:
    """The features in the order of the model's inputs, each with its meaning in words."""
    from streams.catalogue import described
    from streams.loading import load_pipeline

    start(report=True)
    loaded = load_pipeline(pipeline)
    features = [described(loaded, feature) for feature in loaded.spec.features]
    report = {"pipeline": loaded.name, "spec_hash": loaded.spec.hash, "features": features}
    text = None
    if not as_json:
        columns = ("name", "kind", "of", "source", "entity", "window", "meaning")
        text = table(columns, [[feature.get(column) for column in columns] for feature in features])
    emit(report, as_json=as_json, text=text)


@app.command("catalogue")
def catalogue_page(
    pipeline: PipelineArgument,
    output: Annotated[Path, typer.Option(help="The page: FILE.html or FILE.md.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """A page about the features: what each means, its source, freshness, rules, models and example values."""
    from streams.catalogue import archived_examples, catalogue
    from streams.catalogue_page import render
    from streams.errors import UsageError, WeirError
    from streams.loading import load_pipeline
    from streams.monitor import archive_folder
    from streams.release import open_registry

    settings = start(report=True)
    loaded = load_pipeline(pipeline)
    if output.suffix not in (".html", ".md"):
        raise UsageError(f"{output}: a page ends in .html or .md")
    versions = open_registry(settings).versions(loaded.model)
    found = catalogue(loaded, versions, archived_examples(loaded, archive_folder(loaded, settings)))
    try:
        output.write_text(render(found, output.suffix), encoding="utf-8")
    except OSError as error:
        raise WeirError(f"{output} cannot be written: {error.strerror}") from error
    emit({**found, "page": str(output)}, as_json=as_json, text=f"{output}: {len(found['features'])} features")


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


@app.command("check")
def check(
    pipeline: PipelineArgument,
    files: Annotated[
        list[Path],
        typer.Option("--input", help="Parquet, CSV or JSON lines, of events or of features; may be repeated."),
    ],
    source: Annotated[str | None, typer.Option(help="The topic whose events they are; default: the scored.")] = None,
    as_json: JsonOption = False,
) -> None:
    """The rules and types of the pipeline over files; exit code 1 where something breaks them."""
    from streams.check_files import check_files
    from streams.errors import UsageError, did_you_mean
    from streams.loading import load_pipeline

    start(report=True)
    loaded = load_pipeline(pipeline)
    topics = {found.topic: found for found in loaded.sources}
    if source is not None and source not in topics:
        known = did_you_mean(source, topics) or f"; there is {', '.join(topics)}"
        raise UsageError(f"{source!r} is not among the sources of {loaded.name}{known}")
    report = check_files(loaded, topics[source] if source else loaded.lead, files)
    text = None
    if not as_json:
        columns = ("", "rule", "asks", "rows", "share", "on the stream", "for example")
        rows = [
            (f.of, f.rule, f.asks, f.rows, f"{f.share:.4%}", f.action, _examples(f.examples)) for f in report.findings
        ]
        said = f"{report.rows} rows, {report.kind}: {len(report.checked)} conditions checked, {len(rows)} broken"
        skipped = [f"not checked: {rule}: {why}" for rule, why in report.unchecked.items()]
        text = "\n".join([said, *skipped, *([table(columns, rows)] if rows else [])])
    emit({"pipeline": loaded.name, **report.as_dict()}, as_json=as_json, text=text)
    if not report.ok:
        raise typer.Exit(1)


def _examples(found: list[list[Any]]) -> str:
    return ", ".join(f"row {row}: {value!r}" for row, value in found)


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
