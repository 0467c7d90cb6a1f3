"""`weir demo`: a year of real flights, end to end, on this machine."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from streams.cli.output import JsonOption, emit, progress, start, table


def demo(
    months: Annotated[str, typer.Option(metavar="1-12", help="Months of 2013.")] = "1-12",
    speed: Annotated[float | None, typer.Option(help="Times real time; default: as fast as it goes.", min=1.0)] = None,
    output: Annotated[Path, typer.Option(help="Folder for the report and the logs.")] = Path("demo-output"),
    keep: Annotated[bool, typer.Option("--keep", help="Keep the archive and the registry too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Replay a year of flights from a cold start: models are trained as drift and age ask for; ends with a report."""
    from streams.errors import UsageError, WeirError

    start(report=True)
    try:
        from examples.flights.data import DataMissing, parse_months
        from examples.flights.demo import Demo, Options
    except ModuleNotFoundError as error:
        raise WeirError(f"the demo needs {error.name}: pip install 'weir[demo]'") from error
    from monitors.console import LiveView, View

    try:
        chosen = parse_months(months)
    except ValueError as error:
        raise UsageError(f"--months {error}") from None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with LiveView(View("Weir demo: flights of 2013")) as live:
            outcome = Demo(Options(chosen, speed, output, keep), live).run()
    except DataMissing as error:
        raise WeirError(str(error)) from error
    emit(outcome.as_json(), as_json=as_json, text=table(("flights of 2013", ""), outcome.summary()))
    progress(f"report: {output / 'report.html'}")
    if outcome.lost:
        raise WeirError(f"{outcome.lost} requests have no prediction")
