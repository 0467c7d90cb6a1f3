"""`weir features fill`: the past of a remote group that is new."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.output import JsonOption, PipelineArgument, emit, start

if TYPE_CHECKING:
    from streams.filling import Filled


def fill(
    pipeline: PipelineArgument,
    group: Annotated[str, typer.Option(help="The remote group, as its workers name it.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Send a new remote group the events of before it: before the workers run that know it.

    First while those of before still run, for the most of it; then once more when they have been stopped.
    """
    import asyncio
    from dataclasses import asdict

    from streams.filling import fill
    from streams.loading import load_pipeline

    settings = start(report=True)
    loaded = load_pipeline(pipeline)
    with _bar(group) as say:
        filled = asyncio.run(fill(loaded, group, settings, say))
    report = {"pipeline": loaded.name, "group": group, **asdict(filled)}
    emit(report, as_json=as_json, text=_text(filled))


def _text(filled: Filled) -> str:
    lines = [
        f"{filled.topic}: {filled.sent:,} events sent in {filled.seconds:.1f} s "
        f"({filled.unnamed:,} name no entity, {filled.unusable:,} are dead letters)"
    ]
    if filled.members or filled.left:
        lines.append(
            f"workers of the sources: {filled.members} (a stopped one counts for some seconds more); committed since: "
            f"{filled.left:,} records. Stop them, and run this again before workers run that know the group"
        )
    return "\n".join(lines)


@contextmanager
def _bar(group: str) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn(f"filling {group}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as drawn:
        task = drawn.add_task("", total=None)
        yield lambda done, wanted: drawn.update(task, total=wanted, completed=done)
