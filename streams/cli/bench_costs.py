"""What `weir bench` says of growth, of a second worker, of a backlog and of a start.

judged: whether the command ends with 1 where the figures are not what they should be; those of a short run mean little.
"""

from __future__ import annotations

from pathlib import Path

import typer

from streams.cli.output import emit, progress, start, table


def growth(axes: str, rounds: int, plot: Path | None, *, short: bool, as_json: bool) -> None:
    """UsageError for an axis that is not there."""
    from loadtest.growth import run
    from loadtest.growth_points import plan
    from loadtest.growth_report import COLUMNS

    start(report=True)
    found = run(progress, plan(axes, short=short), rounds)
    if plot is not None:
        found.plot(plot)
    emit(found.as_json(), as_json=as_json, text=table(COLUMNS, found.as_rows()))


def scale(records: int, rounds: int, seconds: float, plot: Path | None, *, judged: bool, as_json: bool) -> None:
    """Fails if two workers cost too much more than one."""
    from loadtest.scale import COLUMNS, run

    start(report=True)
    found = run(progress, records=records, rounds=rounds, seconds=seconds)
    if plot is not None:
        found.plot(plot)
    emit(found.as_json(), as_json=as_json, text=f"{table(COLUMNS, found.as_rows())}\n{found.summary()}")
    if judged and not found.passed:
        raise typer.Exit(1)


def catchup(
    backlog: int,
    per_s: int,
    partitions: int,
    plot: Path | None,
    *,
    peak_records: int,
    usual_s: float,
    judged: bool,
    as_json: bool,
) -> None:
    """Fails if it was slow, grew, or came late out of it; also unjudged if a prediction was lost or made twice."""
    from loadtest.catchup import run
    from loadtest.catchup_report import COLUMNS

    start(report=True)
    found = run(
        progress, backlog=backlog, per_s=per_s, partitions=partitions, peak_records=peak_records, usual_s=usual_s
    )
    if plot is not None:
        found.plot(plot)
    emit(found.as_json(), as_json=as_json, text=table(COLUMNS, found.as_rows()))
    if not (found.passed if judged else found.whole):
        raise typer.Exit(1)


def starting(entities: int, bound: int, rounds: int, plot: Path | None, *, judged: bool, as_json: bool) -> None:
    """Fails if the first prediction came late, or the worker is too large."""
    from loadtest.starting import run
    from loadtest.starting_report import COLUMNS, MEMORY_COLUMNS

    start(report=True)
    found = run(progress, rounds=rounds, entities=entities, bound=bound)
    if plot is not None:
        found.plot(plot)
    tables = table(COLUMNS, found.as_rows()), table(MEMORY_COLUMNS, found.memory_rows())
    emit(found.as_json(), as_json=as_json, text="\n\n".join([*tables, found.summary()]))
    if judged and not found.passed:
        raise typer.Exit(1)
