"""`weir features`: what a model sees, and what entities' features are now."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli import filling, offline
from streams.cli.output import JsonOption, PipelineArgument, emit, progress, start, table
from streams.errors import UsageError, WeirError

if TYPE_CHECKING:
    from streams.example_values import Examples
    from streams.pipeline import Pipeline
    from streams.settings import Settings

app = typer.Typer(
    help="Features of a pipeline: list them, read entities', serve them over HTTP, compute them from files.",
    no_args_is_help=True,
)
app.command("backfill")(offline.backfill)
app.command("diff")(offline.diff)
app.command("fill")(filling.fill)


@app.command("list")
def list_features(pipeline: PipelineArgument, as_json: JsonOption = False) -> None:
    """The features in the order of the model's inputs, each with its meaning in words and example values."""
    from streams.catalogue import described
    from streams.catalogue_page import shown
    from streams.loading import load_pipeline

    settings = start(report=True)
    loaded = load_pipeline(pipeline)
    examples = _example_values(loaded, settings)
    features = [
        {**described(loaded, feature), "examples": examples.values.get(feature.name, [])}
        for feature in loaded.spec.features
    ]
    report = {
        "pipeline": loaded.name,
        "spec_hash": loaded.spec.hash,
        "online_examples": examples.online,
        "features": features,
    }
    text = None
    if not as_json:
        columns = ["name", "kind", "of", "source", "entity", "window", "meaning"]
        if loaded.groups:
            columns.insert(5, "remote")
        if any(examples.values.values()):
            columns.append("examples")
        text = table(columns, [[shown(feature.get(column)) for column in columns] for feature in features])
        progress(f"example values of the online store: {examples.online}")
    emit(report, as_json=as_json, text=text)


@app.command("catalogue")
def catalogue_page(
    pipeline: PipelineArgument,
    output: Annotated[Path, typer.Option(help="The page: FILE.html or FILE.md.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """A page about the features: what each means, its source, freshness, rules, models and example values."""
    from streams.catalogue import catalogue
    from streams.catalogue_page import render
    from streams.errors import UsageError, WeirError
    from streams.loading import load_pipeline
    from streams.release import open_registry

    settings = start(report=True)
    loaded = load_pipeline(pipeline)
    if output.suffix not in (".html", ".md"):
        raise UsageError(f"{output}: a page ends in .html or .md")
    versions = open_registry(settings).versions(loaded.model)
    examples = _example_values(loaded, settings)
    found = catalogue(loaded, versions, examples.values, examples.online)
    try:
        output.write_text(render(found, output.suffix), encoding="utf-8")
    except OSError as error:
        raise WeirError(f"{output} cannot be written: {error.strerror}") from error
    emit({**found, "page": str(output)}, as_json=as_json, text=f"{output}: {len(found['features'])} features")


@app.command("read")
def read(
    pipeline: PipelineArgument,
    field: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FIELD=VALUE…]", help="One entity, for example user_id=u42.", show_default=False),
    ] = None,
    entity: Annotated[
        list[str] | None,
        typer.Option(
            "--entity",
            metavar="FIELD=VALUE[,FIELD=VALUE…]",
            help="An entity, for example user_id=u42 or origin=JFK,carrier=AA; again for more.",
            show_default=False,
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Event time: ms since 1970, or as 2026-11-28T12:00:00Z; default: now."),
    ] = None,
    feature: Annotated[
        list[str] | None, typer.Option("--feature", help="Only this feature; again for more. Default: all.")
    ] = None,
    ask_all: Annotated[bool, typer.Option("--all-partitions", help="Do not compute the partition: ask all.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Entities' features as of now; a window that has passed is never shown as present."""
    from streams.loading import load_pipeline

    start(report=True)
    loaded = load_pipeline(pipeline)
    entities = [_fields([text], loaded) for text in entity or []]
    if field:
        entities.insert(0, _fields(field, loaded))
    if not entities:
        raise UsageError(f"no entity: add --entity {loaded.lead.key}=…")
    found = _read(loaded, entities, _time_ms(at), feature or None, ask_all)
    report: dict[str, Any] = {"pipeline": loaded.name, "at": found[0]["at"], "entities": found}
    if len(found) == 1:
        report |= {"entity": found[0]["entity"], "features": found[0]["features"]}
    emit(report, as_json=as_json, text=None if as_json else "\n\n".join(map(_shown, found)))


@app.command("serve")
def serve(
    pipeline: PipelineArgument,
    http: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where to listen; default: WEIR_HTTP.", show_default=False)
    ] = None,
    most: Annotated[int, typer.Option("--max-entities", min=1, max=10_000, help="Entities of one request.")] = 1000,
    with_parent: Annotated[bool, typer.Option("--with-parent", hidden=True)] = False,
) -> None:
    """Answer POST /features with entities' features until stopped; needs Redis alone."""
    from streams.settings import load_settings

    settings = start(role="features")
    if http is not None:
        settings = load_settings(http=http)
    if with_parent:
        from streams.supervisor import end_with_parent

        end_with_parent()
    from streams.loading import load_pipeline

    loaded = load_pipeline(pipeline)
    from streams.features_process import run_features

    run_features(loaded, settings, most=most)


def _fields(texts: Sequence[str], pipeline: Pipeline) -> dict[str, str | float | None]:
    """An entity of ["a=1", "b=2"] or ["a=1,b=2"]. A comma separates only where FIELD= follows."""
    fields: dict[str, str | float | None] = {}
    for text in texts:
        for item in re.split(r",(?=[A-Za-z_]\w*=)", text):
            name, equals, value = item.partition("=")
            if not equals or not name:
                raise UsageError(f"{item!r}: write FIELD=VALUE, for example {pipeline.lead.key}=…")
            if name in fields:
                raise UsageError(f"{item!r}: {name} is there already; write --entity once for each entity")
            fields[name] = value
    return fields


def _time_ms(text: str | None) -> int | None:
    if text is None:
        return None
    if re.fullmatch(r"-?\d{1,18}", text):
        return int(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--at {text}: write ms since 1970, or a time such as 2026-11-28T12:00:00Z") from None
    return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


@app.command("check")
def check(
    pipeline: PipelineArgument,
    files: Annotated[
        list[Path],
        typer.Option(
            "--input",
            help="Parquet, CSV or JSON lines, of events or of features; or what weir features backfill wrote: FOLDER, "
            "or FOLDER@VERSION for an earlier one. May be repeated.",
        ),
    ],
    source: Annotated[str | None, typer.Option(help="The topic whose events they are; default: the scored.")] = None,
    as_json: JsonOption = False,
) -> None:
    """The rules and types of the pipeline over files or a dataset; exit code 1 where something breaks them."""
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


def _example_values(pipeline: Pipeline, settings: Settings) -> Examples:
    from streams.cli.servers import find_redis, not_running
    from streams.example_values import example_values
    from streams.monitor import archive_folder

    def redis_url() -> str:
        url = find_redis(settings)
        if url is None:
            raise not_running(settings, "redis")
        return url

    return example_values(pipeline, archive_folder(pipeline, settings), redis_url)


def _examples(found: list[list[Any]]) -> str:
    return ", ".join(f"row {row}: {value!r}" for row, value in found)


def _read(
    pipeline: Pipeline,
    entities: Sequence[dict[str, str | float | None]],
    at_ms: int | None,
    features: list[str] | None,
    ask_all: bool,
) -> list[dict[str, Any]]:
    """One report an entity, in their order. Entities that name the same fields are read together."""
    from dataclasses import asdict

    from streams.online import BlockingFeatureReader, ReadError, Unreadable

    at_ms = time.time_ns() // 1_000_000 if at_ms is None else at_ms
    found: dict[int, dict[str, Any]] = {}
    with BlockingFeatureReader(pipeline) as reader:
        for fields in dict.fromkeys(frozenset(entity) for entity in entities):
            places = [place for place, entity in enumerate(entities) if entity.keys() == fields]
            some = [entities[place] for place in places]
            try:
                readings = reader.read(some, at=at_ms, features=features, ask_all=ask_all)
            except Unreadable as error:
                raise WeirError(str(error)) from error
            except ReadError as error:
                raise UsageError(str(error)) from error
            ages = readings.checkpoint_ages_s(time.time_ns() // 1_000_000)
            for place, one, age_s in zip(places, readings, ages, strict=True):
                found[place] = {
                    "entity": entities[place],
                    "at": readings.at_ms,
                    "checkpoint_age_s": age_s,
                    "features": {name: asdict(reading) for name, reading in one.items()},
                }
    return [found[place] for place in range(len(entities))]


def _shown(found: dict[str, Any]) -> str:
    name = ", ".join(f"{field}={value}" for field, value in found["entity"].items())
    age_s = found["checkpoint_age_s"]
    written = "" if age_s is None else f" (written by the worker {age_s:.1f} s ago)"
    rows = [
        (name, _short(one["value"]), one["state"], _short(one["age_s"]), _utc(one["newest_ms"]))
        for name, one in found["features"].items()
    ]
    return f"{name}{written}\n" + table(("feature", "value", "", "age s", "newest event, or its pane's start"), rows)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.7g}"


def _utc(time_ms: int | None) -> str:
    return "" if time_ms is None else datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
