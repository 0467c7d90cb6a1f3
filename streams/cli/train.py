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
from streams.errors import UsageError, WeirError

if TYPE_CHECKING:
    from models.dataset import Dataset
    from models.trainer import Epoch, Trained
    from streams.pipeline import Pipeline


def train(
    pipeline: PipelineArgument,
    from_: Annotated[str | None, typer.Option("--from", help="First day or time (UTC), e.g. 2013-01-01.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Day or time (UTC) before which to end.")] = None,
    archive: Annotated[Path | None, typer.Option(help="Folder of Parquet files; default: the pipeline's own.")] = None,
    seed: Annotated[int, typer.Option(help="The same data and seed give the same model.")] = 7,
    deploy: Annotated[bool, typer.Option("--deploy", help="Make it the champion.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train on the archive of logged features and labels, and register the model with its lineage."""
    from streams import release
    from streams.loading import load_pipeline
    from streams.monitor import archive_folder

    settings = start(report=True)
    loaded = load_pipeline(pipeline)
    folder = archive or archive_folder(loaded, settings)
    dataset = read_dataset(loaded, folder, parse_time("--from", from_), parse_time("--to", to))
    for reason in dataset.skipped:
        progress(f"skipped {reason}")
    progress(f"{len(dataset):,} labelled events, {len(dataset.names)} features")
    out = settings.data_dir / "training" / f"{loaded.model}-{dataset.digest[:12]}-{seed}.onnx"
    out.parent.mkdir(parents=True, exist_ok=True)
    trained = fit(loaded, dataset, out, seed)
    registry = release.open_registry(settings)
    version = release.register(loaded, registry, trained.path, lineage(dataset, trained))
    report: dict[str, Any] = {
        "model": loaded.model,
        "version": version.version,
        "path": str(trained.path),
        "sha256": version.sha256,
        "spec_hash": version.spec_hash,
        "rows": len(dataset),
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


def read_dataset(pipeline: Pipeline, folder: Path, from_ms: int | None = None, to_ms: int | None = None) -> Dataset:
    """The pipeline's training data: its features as logged, categories encoded as in serving."""
    from features.spec import Category
    from models import dataset

    categories = {f.name: f.encoding for f in pipeline.spec.features if isinstance(f, Category)}
    return dataset.read(
        folder,
        pipeline.spec.names,
        encode={name: encoding.encode for name, encoding in categories.items()},
        sizes={name: encoding.size for name, encoding in categories.items()},
        from_ms=from_ms,
        to_ms=to_ms,
    )


def fit(pipeline: Pipeline, dataset: Dataset, out: Path, seed: int) -> Trained:
    """Trains with the pipeline's own function, or with the built-in network; progress on stderr."""
    from models.errors import ModelError
    from models.trainer import Trained, train_mlp
    from streams.loading import load_function

    if pipeline.retrain is None:
        try:
            with _bar() as on_epoch:
                return train_mlp(dataset, out, seed=seed, on_epoch=on_epoch)
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise WeirError("training needs torch: install weir with the extra train") from error
    where = pipeline.retrain.function
    function = load_function(where)
    try:
        trained = function(dataset, out, seed)
    except (WeirError, ModelError):
        raise
    except Exception as error:
        raise WeirError(f"{where} failed: {type(error).__name__}: {error}") from error
    if not isinstance(trained, Trained):
        raise WeirError(f"{where} must return models.trainer.Trained, it returned {type(trained).__name__}")
    return trained


def lineage(dataset: Dataset, trained: Trained) -> dict[str, str | int | float]:
    """What the registry keeps of a training: the data it saw, the seed, what it reached."""
    return {
        "rows": len(dataset),
        "from": _iso(int(dataset.times[0])),
        "to": _iso(int(dataset.times[-1])),
        "data": dataset.digest,
        "seed": trained.seed,
        **{name: round(value, 6) for name, value in trained.metrics.items() if name != "rows"},
    }


def parse_time(option: str, text: str | None) -> int | None:
    """Milliseconds of an ISO day or time; UTC where it names no zone."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{option} {text}: write a day or time such as 2013-03-01 or 2013-03-01T12:00") from error
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="seconds")


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
