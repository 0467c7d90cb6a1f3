"""`weir models`: versions of a pipeline's model, and which of them are served."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.output import JsonOption, PipelineArgument, emit, start, table

if TYPE_CHECKING:
    from models.rollout import Deployment
    from streams.pipeline import Pipeline
    from streams.settings import Settings

app = typer.Typer(help="Versions of a pipeline's model: list, deploy, roll back.", no_args_is_help=True)


_SHOWN = 19  # characters of a lineage's value: a time without its zone, the beginning of a digest


class Place(StrEnum):
    champion = "champion"
    shadow = "shadow"


@app.command("list")
def list_models(pipeline: PipelineArgument, as_json: JsonOption = False) -> None:
    """Versions, newest first, and the places they have."""
    from models.made_for import misfit
    from streams.loading import load_pipeline
    from streams.release import open_registry

    settings = start(report=True)
    loaded = load_pipeline(pipeline)
    registry = open_registry(settings)
    current = registry.routing(loaded.model)
    versions: list[dict[str, Any]] = [
        {
            "version": found.version.version,
            "places": list(found.aliases),
            "created": datetime.fromtimestamp(found.created_ms / 1000, UTC).isoformat(timespec="seconds"),
            "fits": found.version.spec_hash == loaded.spec.hash,
            "misfit": misfit(found.version, loaded.spec.hash, loaded.spec.digests),
            "sha256": found.version.sha256,
            "uri": found.version.uri,
            "lineage": found.lineage,
        }
        for found in registry.versions(loaded.model)
    ]
    report = {
        "model": loaded.model,
        "spec_hash": loaded.spec.hash,
        "deployment": _described(current),
        "versions": versions,
    }
    text = None
    if not as_json:
        rows = [
            (
                found["version"],
                ", ".join(found["places"]),
                found["created"].removesuffix("+00:00").replace("T", " "),
                "yes" if found["fits"] else f"no: {found['misfit']}",
                found["sha256"][:12],
                ", ".join(f"{name} {str(value)[:_SHOWN]}" for name, value in found["lineage"].items()),
            )
            for found in versions
        ]
        text = f"{loaded.model}, deployment {current.id if current else '(none)'}\n" + table(
            ("version", "serves as", "created (UTC)", "fits", "sha256", "lineage"), rows
        )
    emit(report, as_json=as_json, text=text)


@app.command("deploy")
def deploy(
    pipeline: PipelineArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="The model.", show_default=False)],
    place: Annotated[Place, typer.Option("--as", help="Its place: champion scores, shadow scores beside it.")] = (
        Place.champion
    ),
    as_json: JsonOption = False,
) -> None:
    """Register an ONNX file and put it into service; running workers switch between two rounds."""
    from streams import release
    from streams.loading import load_pipeline

    settings = start(report=True)
    loaded = load_pipeline(pipeline)
    registry = release.open_registry(settings)
    version = release.register(loaded, registry, file)
    deployment = release.deploy(loaded, registry, version, place.value)
    published = publish(loaded, settings, deployment)
    report = {
        "model": loaded.model,
        "version": version.version,
        "as": place.value,
        "published": published,
        **_report(deployment),
    }
    said = f"{loaded.model} version {version.version} is {place.value} (deployment {deployment.id})"
    emit(report, as_json=as_json, text=said + _when(published))


@app.command("rollback")
def rollback(pipeline: PipelineArgument, as_json: JsonOption = False) -> None:
    """Go back to the deployment before the current one; once more goes one further back."""
    from streams import release
    from streams.loading import load_pipeline

    settings = start(report=True)
    loaded = load_pipeline(pipeline)
    deployment = release.open_registry(settings).rollback(loaded.model)
    published = publish(loaded, settings, deployment)
    champion = f"version {deployment.champion.version}" if deployment.champion else "no version"
    report = {"model": loaded.model, "published": published, **_report(deployment)}
    said = f"{loaded.model}: {champion} is champion again (deployment {deployment.id})"
    emit(report, as_json=as_json, text=said + _when(published))


def publish(pipeline: Pipeline, settings: Settings, deployment: Deployment) -> bool:
    """Publishes where there is a broker; False for an embedded one that is down: it is told at its start."""
    from streams import release
    from streams.cli.servers import find_broker

    broker = find_broker(settings)
    if broker is None:
        return False
    release.publish(pipeline, settings, broker, deployment)
    return True


def _when(published: bool) -> str:
    return "" if published else "; the embedded broker does not run: it takes effect at the next start"


def _report(deployment: Deployment) -> dict[str, Any]:
    return {"deployment": _described(deployment)}


def _described(deployment: Deployment | None) -> dict[str, Any] | None:
    import json

    from models.rollout import to_json

    found: dict[str, Any] | None = json.loads(to_json(deployment)) if deployment else None
    return found
