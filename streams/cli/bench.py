"""`weir bench`: how fast this machine scores the payments example, beside what one would write by hand."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from streams.cli import bench_costs
from streams.cli.output import JsonOption, emit, progress, start, table
from streams.errors import UsageError

SHORT_RECORDS = 30_000
SHORT_RATE, SHORT_SECONDS = 1_000, 3.0
SHORT_ENTITIES, SHORT_MINUTES = 2_000, 0.5
SHORT_LOAD = 400_000
"""Of two workers: some are worked off before both have their partitions."""
SHORT_READS = 200
WARM_UP_S = 120.0
"""Of a soak; a third of it where that is shorter."""
SCALE_SECONDS, PEAK_RECORDS, USUAL_S, BOUND = 20.0, 1_000_000, 15.0, 200_000


class Mode(StrEnum):
    """What is measured."""

    peak = "peak"
    latency = "latency"
    recovery = "recovery"
    soak = "soak"
    monitor = "monitor"
    growth = "growth"
    scale = "scale"
    catchup = "catchup"
    start = "start"
    backfill = "backfill"
    reader = "reader"
    gpu = "gpu"


_COMPARED = (Mode.peak, Mode.latency)
_ONLY = {
    "records": (Mode.peak, Mode.monitor, Mode.scale, Mode.catchup, Mode.backfill),
    "plot": (Mode.peak, Mode.latency, Mode.soak, Mode.growth, Mode.scale, Mode.catchup, Mode.start),
    "shape": (Mode.latency, Mode.soak),
    "traced": (Mode.peak,),
    "rate": (Mode.latency, Mode.recovery, Mode.soak, Mode.catchup),
    "seconds": (Mode.latency,),
    "warmup": (Mode.latency,),
    "rounds": (*_COMPARED, Mode.recovery, Mode.growth, Mode.scale, Mode.start, Mode.backfill),
    "partitions": (*_COMPARED, Mode.recovery, Mode.soak, Mode.catchup),
    "systems": _COMPARED,
    "broker": _COMPARED,
    "entities": (Mode.recovery, Mode.start),
    "minutes": (Mode.soak,),
    "axis": (Mode.growth,),
    "reads": (Mode.reader,),
}
"""The modes of options that mean nothing in the others."""


def bench(
    context: typer.Context,
    mode: Annotated[
        Mode,
        typer.Argument(
            help="peak: a full topic, as fast as it goes; latency: payments at a steady rate; recovery: a worker is "
            "killed; soak: half of the peak and model swaps, for long; monitor: how fast it joins and watches; growth: "
            "more entities, features, partitions, a larger model, other batches; scale: two workers beside one; "
            "catchup: a backlog while payments go on; start: seconds to the first prediction, bytes an entity; "
            "backfill: features from a file, beside polars and pandas; reader: online features, beside a plain MGET; "
            "gpu: models on CUDA beside the CPU."
        ),
    ] = Mode.peak,
    records: Annotated[
        int | None,
        typer.Option(
            min=1000,
            help="peak: payments to score, monitor: predictions to join, backfill: rows, default 1,000,000; scale: "
            "default 3,000,000; "
            "catchup: the backlog, default 5,000,000.",
        ),
    ] = None,
    rate: Annotated[
        list[str] | None,
        typer.Option(
            help="Payments a second. latency: or several separated by commas, default 10000; recovery: default 2000; "
            "soak: default half of the peak; catchup: default 5000."
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="latency: how long each turn is measured.")] = 30.0,
    warmup: Annotated[float, typer.Option(min=1, help="latency: seconds at the same rate before that.")] = 5.0,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Turns of each system, default 2; recovery: kills, default 3; growth: of each point, default 1; "
            "start: default 5. Medians are reported.",
        ),
    ] = None,
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of the payments topic.")] = 4,
    systems: Annotated[str, typer.Option(help="Which to run, separated by commas; default: all.")] = "",
    broker: Annotated[
        str | None, typer.Option(help="host:port of a Kafka to use; default: one is fetched and started.")
    ] = None,
    entities: Annotated[
        int | None,
        typer.Option(
            min=100, help="Users that have state. recovery: default 100,000; start: those seen, default 1,000,000."
        ),
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="soak: how long, the warm-up included.")] = 15.0,
    axis: Annotated[
        str, typer.Option(help="growth: entities, features, partitions, model, batch; default: all of them.")
    ] = "",
    reads: Annotated[int, typer.Option(min=100, help="reader: reads of each size.")] = 5000,
    plot: Annotated[
        Path | None,
        typer.Option(help="Write the chart to this SVG file; latency: or to this folder, with .hgrm files."),
    ] = None,
    shape: Annotated[
        str,
        typer.Option(
            help="latency, soak: steady, ramp, spike or diurnal, and any of hot, late, poison, drift; joined by +."
        ),
    ] = "steady",
    traced: Annotated[
        float, typer.Option(min=0, max=1, help="peak: share of the payments whose trace is sampled.")
    ] = 0.01,
    short: Annotated[
        bool, typer.Option("--short", help="Does it run? One round of a few seconds; its figures mean little.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """How Weir scores payments on a real Kafka: fast, soon, beside what one would write by hand; killed; for long."""
    _refuse_others(context, mode)
    rates = (SHORT_RATE,) if short else _rates(rate or [])
    if short:
        records, rounds = SHORT_RECORDS, 1
    match mode:
        case Mode.latency:
            seconds, warmup = (SHORT_SECONDS, 1.0) if short else (seconds, warmup)
            rates, rounds = rates or (10_000,), rounds or 2
            _latency(rates, seconds, warmup, rounds, partitions, systems, broker, shape, plot, as_json=as_json)
        case Mode.recovery:
            entities = SHORT_ENTITIES if short else entities or 100_000
            _recovery(entities, _one(rates) or 2_000, rounds or 3, partitions, as_json=as_json)
        case Mode.monitor:
            _monitor(records or 1_000_000, as_json=as_json)
        case Mode.gpu:
            _gpu(0.05 if short else 1.0, as_json=as_json)
        case Mode.reader:
            _reader(SHORT_READS if short else reads, as_json=as_json)
        case Mode.backfill:
            _backfill(records or 1_000_000, rounds or 3, as_json=as_json)
        case Mode.soak:
            _soak(SHORT_MINUTES if short else minutes, _one(rates), partitions, shape, plot, as_json=as_json)
        case Mode.growth:
            bench_costs.growth(axis, rounds or 1, plot, short=short, as_json=as_json)
        case Mode.scale:
            records, seconds = (SHORT_LOAD, SHORT_SECONDS) if short else (records or 3_000_000, SCALE_SECONDS)
            bench_costs.scale(records, rounds or 2, seconds, plot, judged=not short, as_json=as_json)
        case Mode.catchup:
            peak, usual_s = (SHORT_RECORDS, SHORT_SECONDS) if short else (PEAK_RECORDS, USUAL_S)
            bench_costs.catchup(
                records or 5_000_000,
                _one(rates) or 5_000,
                partitions,
                plot,
                peak_records=peak,
                usual_s=usual_s,
                judged=not short,
                as_json=as_json,
            )
        case Mode.start:
            entities, bound = (SHORT_ENTITIES, SHORT_ENTITIES // 2) if short else (entities or 1_000_000, BOUND)
            bench_costs.starting(entities, bound, rounds or 5, plot, judged=not short, as_json=as_json)
        case Mode.peak:
            _peak(records or 1_000_000, rounds or 2, partitions, systems, broker, traced, plot, as_json=as_json)


def _peak(
    records: int,
    rounds: int,
    partitions: int,
    systems: str,
    broker: str | None,
    traced: float,
    plot: Path | None,
    *,
    as_json: bool,
) -> None:
    from loadtest import report
    from loadtest.bench import Bench
    from loadtest.systems import select

    start(report=True)
    results = Bench(records, rounds, partitions, select(systems), broker, traced).run(progress)
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
    shape: str,
    plot: Path | None,
    *,
    as_json: bool,
) -> None:
    """Ends with 1 if a payment was lost."""
    from loadtest import latency_report as report
    from loadtest import stages
    from loadtest.latency import LatencyBench, systems_for
    from loadtest.shapes import Load

    settings = start(report=True)
    load, wanted = report.load(), Load.parse(shape)
    chosen = systems_for(wanted, systems)
    results = LatencyBench(rates, seconds, warmup, rounds, partitions, chosen, broker, wanted).run(progress)
    bounds = report.bounds(results, settings.commit_interval)
    lines = [table(report.COLUMNS, report.as_rows(results)), *map(str, bounds)]
    if rows := report.stage_rows(results):
        lines.append(f"\n{table(stages.COLUMNS, rows)}")
    if rows := report.stale_rows(results):
        lines.append(f"\n{table(report.STALE_COLUMNS, rows)}")
    if plot is not None:
        lines += [f"written: {path}" for path in report.plot(results, plot)]
    lines += [f"LOST at {r.rate:,} records/s: {r.lost:,} of {r.sent:,} by {r.system}" for r in results if r.lost]
    emit(
        report.as_json(results, bounds, warmup_s=warmup, seconds=seconds, load=load, shape=str(wanted)),
        as_json=as_json,
        text="\n".join(lines),
    )
    if any(r.lost for r in results):
        raise typer.Exit(1)


def _recovery(entities: int, per_s: int, kills: int, partitions: int, *, as_json: bool) -> None:
    """Ends with 1 if a prediction was lost or made twice."""
    from loadtest.recovery import COLUMNS, run

    start(report=True)
    found = run(progress, entities=entities, per_s=per_s, kills=kills, partitions=partitions)
    emit(found.as_json(), as_json=as_json, text=f"{table(COLUMNS, found.as_rows())}\n{found.summary()}")
    if not found.passed:
        raise typer.Exit(1)


def _soak(
    minutes: float, per_s: int | None, partitions: int, shape: str, plot: Path | None, *, as_json: bool
) -> None:
    """Ends with 1 if the worker has grown, or predictions or swaps were lost."""
    from loadtest.shapes import Load
    from loadtest.soak import COLUMNS, run

    start(report=True)
    warm_up_s, load = min(WARM_UP_S, minutes * 60 / 3), Load.parse(shape)
    found = run(progress, minutes=minutes, per_s=per_s, partitions=partitions, warm_up_s=warm_up_s, load=load)
    if plot is not None:
        found.plot(plot)
    emit(found.as_json(), as_json=as_json, text=table(COLUMNS, found.as_rows()))
    if not found.passed:
        raise typer.Exit(1)


def _backfill(records: int, rounds: int, *, as_json: bool) -> None:
    from loadtest.backfill import COLUMNS, run

    start(report=True)
    found = run(progress, records=records, rounds=rounds)
    emit(found.as_json(), as_json=as_json, text=table(COLUMNS, found.as_rows()))


def _monitor(records: int, *, as_json: bool) -> None:
    from loadtest.monitor import COLUMNS, run

    start(report=True)
    found = run(progress, records=records)
    emit(found.as_json(), as_json=as_json, text=table(COLUMNS, found.as_rows()))


def _reader(reads: int, *, as_json: bool) -> None:
    from loadtest import reader

    start(report=True)
    found = reader.run(progress, reads=reads)
    tables = table(reader.COLUMNS, found.as_rows()), table(reader.MEMORY_COLUMNS, found.as_memory_rows())
    emit(found.as_json(), as_json=as_json, text="\n\n".join((*tables, found.summary())))


def _gpu(seconds: float, *, as_json: bool) -> None:
    """Ends with 0 also where there is no GPU: it says so."""
    from loadtest import gpu

    start(report=True)
    found, rows = gpu.report(progress, seconds=seconds)
    emit(found, as_json=as_json, text=gpu.text_of(found, rows))


def _one(rates: tuple[int, ...]) -> int | None:
    """The rate, if one was given. UsageError for several."""
    if len(rates) > 1:
        raise UsageError("--rate: one number here; several are for `weir bench latency`")
    return rates[0] if rates else None


def _rates(given: list[str]) -> tuple[int, ...]:
    """Of `--rate 2000,10000 --rate 30000`. UsageError for what is no number above 0."""
    texts = [text.strip() for one in given for text in one.split(",") if text.strip()]
    if wrong := [text for text in texts if not (text.isdecimal() and int(text) > 0)]:
        raise UsageError(f"--rate {wrong[0]}: write payments a second, such as 2000,10000")
    return tuple(dict.fromkeys(map(int, texts)))


def _refuse_others(context: typer.Context, mode: Mode) -> None:
    """UsageError for an option that was given and belongs to other modes."""
    for name, modes in _ONLY.items():
        source = context.get_parameter_source(name)
        if mode not in modes and source is not None and source.name == "COMMANDLINE":
            listed = ", ".join(one.value for one in modes)
            raise UsageError(f"--{name} is for `weir bench {listed}`, not for {mode.value}")
