"""`weir bench`: how fast this machine scores the payments example, beside what one would write by hand."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from streams.cli.output import JsonOption, emit, progress, start, table
from streams.errors import UsageError

SHORT_RECORDS = 30_000
SHORT_RATE, SHORT_SECONDS = 1_000, 3.0


class Mode(StrEnum):
    """What is measured."""

    peak = "peak"
    latency = "latency"


_ONLY = {
    Mode.peak: ("records", "plot"),
    Mode.latency: ("rate", "seconds", "warmup"),
}
"""The options that mean nothing in any other mode."""


def bench(
    context: typer.Context,
    mode: Annotated[
        Mode, typer.Argument(help="peak: a full topic, as fast as it goes; latency: payments at a steady rate.")
    ] = Mode.peak,
    records: Annotated[int, typer.Option(min=1000, help="peak: payments to score.")] = 1_000_000,
    rate: Annotated[
        list[str] | None,
        typer.Option(help="latency: payments a second, or several separated by commas; default: 10000."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="latency: how long each turn is measured.")] = 30.0,
    warmup: Annotated[float, typer.Option(min=1, help="latency: seconds at the same rate before that.")] = 5.0,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each system; the median is reported.")] = 2,
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of the payments topic.")] = 4,
    systems: Annotated[str, typer.Option(help="Which to run, separated by commas; default: all.")] = "",
    broker: Annotated[
        str | None, typer.Option(help="host:port of a Kafka to use; default: one is fetched and started.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="peak: write the charts to this SVG file.")] = None,
    short: Annotated[
        bool, typer.Option("--short", help="Does it run? One round of a few seconds; its figures mean little.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Weir and hand-written loops (peak: stock Faust too) score the same payments, in turns, on one real Kafka."""
    _refuse_others(context, mode)
    if mode is Mode.latency:
        rates = (SHORT_RATE,) if short else _rates(rate or [])
        rounds, seconds, warmup = (1, SHORT_SECONDS, 1.0) if short else (rounds, seconds, warmup)
        _latency(rates, seconds, warmup, rounds, partitions, systems, broker, as_json=as_json)
    else:
        records, rounds = (SHORT_RECORDS, 1) if short else (records, rounds)
        _peak(records, rounds, partitions, systems, broker, plot, as_json=as_json)


def _peak(
    records: int, rounds: int, partitions: int, systems: str, broker: str | None, plot: Path | None, *, as_json: bool
) -> None:
    from loadtest import report
    from loadtest.bench import Bench
    from loadtest.systems import select

    start(report=True)
    results = Bench(records, rounds, partitions, select(systems), broker).run(progress)
    if plot is not None:
        report.write_plot(results, plot)
    emit(report.as_json(results), as_json=as_json, text=table(report.COLUMNS, report.as_rows(results)))


def _latency(
    rates: tuple[int, ...],
    seconds: float,
    warmup: float,
    rounds: int,
    partitions: int,
    systems: str,
    broker: str | None,
    *,
    as_json: bool,
) -> None:
    """Ends with 1 if a payment was lost."""
    from loadtest import latency_report as report
    from loadtest.latency import LatencyBench
    from loadtest.systems import LATENCY, select

    settings = start(report=True)
    load = report.load()
    chosen = select(systems, LATENCY, LATENCY)
    results = LatencyBench(rates, seconds, warmup, rounds, partitions, chosen, broker).run(progress)
    bounds = report.bounds(results, settings.commit_interval)
    lines = [table(report.COLUMNS, report.as_rows(results)), *map(str, bounds)]
    lines += [f"LOST at {r.rate:,} records/s: {r.lost:,} of {r.sent:,} by {r.system}" for r in results if r.lost]
    emit(
        report.as_json(results, bounds, warmup_s=warmup, seconds=seconds, load=load),
        as_json=as_json,
        text="\n".join(lines),
    )
    if any(r.lost for r in results):
        raise typer.Exit(1)


def _rates(given: list[str]) -> tuple[int, ...]:
    """Of `--rate 2000,10000 --rate 30000`; 10,000 by default. UsageError for what is no number above 0."""
    texts = [text.strip() for one in given for text in one.split(",") if text.strip()] or ["10000"]
    if wrong := [text for text in texts if not (text.isdecimal() and int(text) > 0)]:
        raise UsageError(f"--rate {wrong[0]}: write payments a second, such as 2000,10000")
    return tuple(dict.fromkeys(map(int, texts)))


def _refuse_others(context: typer.Context, mode: Mode) -> None:
    """UsageError for an option that was given and belongs to another mode."""
    for other, names in _ONLY.items():
        for name in names if other is not mode else ():
            source = context.get_parameter_source(name)
            if source is not None and source.name == "COMMANDLINE":
                raise UsageError(f"--{name} is for `weir bench {other.value}`, not for {mode.value}")
