"""`weir worker`, `weir run`, `weir monitor` and `weir trainer`: the processes that stay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.output import PipelineArgument, progress, start

if TYPE_CHECKING:
    from streams.pipeline import Pipeline
    from streams.settings import Settings

WithParent = Annotated[bool, typer.Option("--with-parent", hidden=True, help="End when standard input closes.")]

GroupOption = Annotated[
    str | None,
    typer.Option("--group", help="Work on a remote group's events instead: of an entity that is not in the key."),
]


def worker(pipeline: PipelineArgument, group: GroupOption = None, with_parent: WithParent = False) -> None:
    """Score a pipeline's events until stopped; more workers share its partitions."""
    from streams.lean import begin_imports, keep_heaps

    begin_imports()
    keep_heaps()
    settings = start(role="worker")
    _follow_parent(with_parent)
    from streams.loading import load_pipeline

    loaded = load_pipeline(pipeline)
    with _embedded(loaded, settings):
        from streams.worker import run_worker

        run_worker(loaded, settings, group=group, started=_say_where)


def run(pipeline: PipelineArgument) -> None:
    """A worker, a monitor and, where the pipeline retrains, a trainer, with the embedded servers that are asked for."""
    settings = start(role="run")
    from streams.loading import load_pipeline

    loaded = load_pipeline(pipeline)
    roles = ["worker", "monitor"]
    if loaded.retrain is not None:
        from streams.trainer_process import cannot_train

        if reason := cannot_train(loaded):
            progress(f"no trainer: {reason}")
        else:
            roles.append("trainer")
    roles += [f"worker --group {group.name}" for group in loaded.groups]
    with _embedded(loaded, settings):
        from streams.supervisor import run_all

        code = run_all(pipeline, settings, roles)
    if code:
        raise typer.Exit(code)


def monitor(pipeline: PipelineArgument, with_parent: WithParent = False) -> None:
    """Join predictions with their labels and archive them for training."""
    settings = start(role="monitor")
    _follow_parent(with_parent)
    from streams.loading import load_pipeline

    loaded = load_pipeline(pipeline)
    from streams.monitor_process import run_monitor

    run_monitor(loaded, settings)


def trainer(pipeline: PipelineArgument, with_parent: WithParent = False) -> None:
    """Train a new version for each retrain event, judge it, roll it out and take it back if it is worse."""
    settings = start(role="trainer")
    _follow_parent(with_parent)
    from streams.loading import load_pipeline

    loaded = load_pipeline(pipeline)
    from streams.trainer_process import run_trainer

    run_trainer(pipeline, loaded, settings)


@contextmanager
def _embedded(pipeline: Pipeline, settings: Settings) -> Iterator[None]:
    """The embedded servers, where the settings ask for them and no other process of DATA_DIR has them."""
    from streams.embedded import find_embedded, start_embedded

    if not (settings.embedded_broker or settings.embedded_redis) or find_embedded(settings.data_dir):
        yield
        return
    with start_embedded(settings.data_dir) as pair:
        if settings.embedded_broker:
            from streams.release import publish_current

            topics = list(dict.fromkeys(source.topic for source in pipeline.sources))
            if pipeline.labels and pipeline.labels.topic not in topics:
                topics.append(pipeline.labels.topic)
            progress(f"embedded broker on {pair.broker}: produce {', '.join(topics)} there")
            publish_current(pipeline, settings, pair.broker)
        yield


def _say_where(url: str) -> None:
    import structlog

    structlog.get_logger(__name__).info("starting", ready=f"{url}/health/ready", metrics=f"{url}/metrics")


def _follow_parent(with_parent: bool) -> None:
    if with_parent:
        from streams.supervisor import end_with_parent

        end_with_parent()
