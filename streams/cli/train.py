"""`weir train`: a new version of a pipeline's model, from the features that its predictions logged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.cli.models import publish
from streams.cli.output import JsonOption, PipelineArgument, emit, progress, start
from streams.errors import UsageError

if TYPE_CHECKING:
    from models.trainer import Epoch
    from streams.training import Lineage


def train(
    pipeline: PipelineArgument,
    from_: Annotated[str | None, typer.Option("--from", help="First day or time (UTC), e.g. 2013-01-01.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Day or time (UTC) before which to end.")] = None,
    archive: Annotated[Path | None, typer.Option(help="Folder of Parquet files; default: the pipeline's own.")] = None,
    dataset: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Train on what weir features backfill made, not on the archive.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same data and seed give the same model.")] = 7,
    deploy: Annotated[bool, typer.Option("--deploy", help="Make it the champion.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train on the archive of logged features and labels, and register the model with its lineage."""
    from streams import release
    from streams.loading import load_pipeline
    from streams.monitor import archive_folder
    from streams.offline.training import read_backfilled
    from streams.training import fit, lineage, read_dataset

    settings = start(report=True)
    loaded = load_pipeline(pipeline)
    if dataset is not None and archive is not None:
        raise UsageError("--archive and --dataset: train on one of them")
    within: dict[str, Any] = {"from_ms": parse_time("--from", from_), "to_ms": parse_time("--to", to)}
    origin: Lineage = {}
    if dataset is not None:
        data, origin = read_backfilled(loaded, dataset, **within)
    else:
        data = read_dataset(loaded, archive or archive_folder(loaded, settings), **within)
    for reason in data.skipped:
        progress(f"skipped {reason}")
    progress(f"{len(data):,} labelled events, {len(data.names)} features")
    out = settings.data_dir / "training" / f"{loaded.model}-{data.digest[:12]}-{seed}.onnx"
    out.parent.mkdir(parents=True, exist_ok=True)
    with _bar() as on_epoch:
        trained = fit(loaded, data, out, seed, on_epoch)
    registry = release.open_registry(settings)
    version = release.register(loaded, registry, trained.path, {**lineage(data, trained), **origin})
    report: dict[str, Any] = {
        "model": loaded.model,
        "version": version.version,
        "path": str(trained.path),
        "sha256": version.sha256,
        "spec_hash": version.spec_hash,
        "rows": len(data),
        "seed": trained.seed,
        "metrics": dict(trained.metrics),
        "deployment": None,
    }
    said = f"{loaded.model} version {version.version}: " + ", ".join(f"{k} {v:.4g}" for k, v in trained.metrics.items())
    if deploy:
        deployment = release.deploy(loaded, registry, version)
        report["published"] = publish(loaded, settings, deployment)
        report["deployment"] = deployment.id
        said += f"; champion (deployment {deployment.id})"
    else:
        said += f"; put it into service with: weir models deploy {pipeline} {trained.path}"
    emit(report, as_json=as_json, text=said)


def parse_time(option: str, text: str | None) -> int | None:
    """Milliseconds of an ISO day or time; UTC where it names no zone."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{option} {text}: write a day or time such as 2013-03-01 or 2013-03-01T12:00") from error
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


@contextmanager
def _bar() -> Iterator[Callable[[Epoch], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("training"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as drawn:
        task = drawn.add_task("", total=None)

        def on_epoch(epoch: Epoch) -> None:
            said = f"epoch {epoch.number}: log loss {epoch.validation_loss:.4f}"
            drawn.update(task, total=epoch.of, completed=epoch.number, description=said)

        yield on_epoch
