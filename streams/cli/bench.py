"""`weir bench`: how fast this machine scores the payments example, beside what one would write by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streams.cli.output import JsonOption, emit, progress, start, table

SHORT_RECORDS = 30_000


def bench(
    records: Annotated[int, typer.Option(min=1000, help="Payments to score.")] = 1_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each system; the median is reported.")] = 2,
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of the payments topic.")] = 4,
    systems: Annotated[str, typer.Option(help="Which to run, separated by commas; default: all.")] = "",
    broker: Annotated[
        str | None, typer.Option(help="host:port of a Kafka to use; default: one is fetched and started.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the charts to this SVG file.")] = None,
    short: Annotated[
        bool, typer.Option("--short", help=f"One round of {SHORT_RECORDS:,} payments: does it run?")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Weir, stock Faust and two hand-written loops score the same payments, in turns, on one real Kafka."""
    from loadtest import report
    from loadtest.bench import Bench
    from loadtest.systems import select

    start(report=True)
    chosen = select(systems)
    if short:
        records, rounds = SHORT_RECORDS, 1
    results = Bench(records, rounds, partitions, chosen, broker).run(progress)
    if plot is not None:
        report.write_plot(results, plot)
    emit(report.as_json(results), as_json=as_json, text=table(report.COLUMNS, report.as_rows(results)))
